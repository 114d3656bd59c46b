//! `Clock`: which value to drop when room is needed (CLOCK, Corbató 1968: one reference bit per
//! value, and a hand that gives each a second chance).

use crate::entry::{Entry, Swept};
use crate::sync::{Arc, Mutex};

/// A ring of kept values with a hand. A cache has several, each for a part of the keys.
#[derive(Debug)]
pub(crate) struct Clock<K, V> {
    /// LOCK ORDER: rank 1, above an entry's. Held while the hand moves; never while a value is made
    /// or dropped, never together with a lock of the map or with another clock's.
    ring: Mutex<Ring<K, V>>,
}

#[derive(Debug)]
struct Ring<K, V> {
    places: Vec<(K, Arc<Entry<V>>)>,
    hand: usize,
}

/// A value that was dropped to make room.
pub(crate) struct Victim<K, V> {
    pub(crate) key: K,
    pub(crate) entry: Arc<Entry<V>>,
    pub(crate) size_bytes: u64,
    /// Kept until no lock is held, for dropping it may take long.
    pub(crate) value: Arc<V>,
}

impl<K, V> Default for Clock<K, V> {
    fn default() -> Self {
        Clock { ring: Mutex::new(Ring { places: Vec::new(), hand: 0 }) }
    }
}

impl<K, V> Clock<K, V> {
    /// Adds a value that is kept from now on, unless it was removed already: whoever removes kills
    /// the entry first and looks for it here second, so that it cannot slip through.
    pub(crate) fn add(&self, key: K, entry: Arc<Entry<V>>) {
        let mut ring = self.ring.lock();
        if !entry.is_dead() {
            ring.places.push((key, entry));
        }
    }

    /// Drops values until `bytes_wanted` are free or the hand has come round once. Those in use stay,
    /// and those asked for since the hand's last visit lose their reference bit.
    pub(crate) fn evict(&self, bytes_wanted: u64, victims: &mut Vec<Victim<K, V>>) -> u64 {
        let mut ring = self.ring.lock();
        let mut steps = ring.places.len();
        let mut freed = 0;
        while freed < bytes_wanted && steps > 0 && !ring.places.is_empty() {
            steps -= 1;
            if ring.hand >= ring.places.len() {
                ring.hand = 0;
            }
            let at = ring.hand;
            let swept = ring.places.get(at).map(|(_, entry)| entry.sweep());
            match swept {
                Some(Swept::Kept) | None => ring.hand += 1,
                // The last value takes the free place. It came last, so that it is the last to be looked at: if it were
                // the next, what comes in would always drive out what came in just before.
                Some(Swept::Gone) => {
                    drop(ring.places.swap_remove(at));
                    ring.hand += 1;
                }
                Some(Swept::Evicted { value, size_bytes }) => {
                    let (key, entry) = ring.places.swap_remove(at);
                    ring.hand += 1;
                    freed += size_bytes;
                    victims.push(Victim { key, entry, size_bytes, value });
                }
            }
        }
        freed
    }

    /// Forgets the values that are no longer kept.
    pub(crate) fn forget_dead(&self) {
        self.ring.lock().places.retain(|(_, entry)| !entry.is_dead());
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.lock().places.len()
    }
}
