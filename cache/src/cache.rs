//! `Cache`: the map from keys to entries, and the count of bytes.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock::{Clock, Victim};
use crate::entry::{Entry, Found, Swept};
use crate::guard::{Lookup, MakeGuard, Waiter};
use crate::stats::{Counters, Stats};
use crate::sync::{Arc, AtomicU64, Map, RINGS};

/// How often a value looks for room before it is given up on; others may take what it freed.
const ROOM_ATTEMPTS: usize = 4;

/// A concurrent cache. Clones are handles of the same cache.
pub struct Cache<K: Hash + Eq + Clone, V> {
    shared: Arc<Shared<K, V>>,
}

impl<K: Hash + Eq + Clone, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Cache { shared: self.shared.clone() }
    }
}

impl<K: Hash + Eq + Clone, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish()
    }
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// What a kept value needs beside its own memory, in bytes: its key twice, its entry, and its places in
    /// the map and in a clock, of which either may be half empty.
    pub const OVERHEAD_BYTES: u64 =
        (size_of::<Entry<V>>() + 4 * (size_of::<K>() + size_of::<usize>())) as u64;

    /// An empty cache that keeps values of at most `bytes_max` bytes together.
    pub fn new(bytes_max: u64) -> Cache<K, V> {
        Cache {
            shared: Arc::new(Shared {
                map: Map::new(),
                rings: std::array::from_fn(|_| Part::default()),
                bytes: AtomicU64::new(0),
                bytes_max,
            }),
        }
    }

    /// The value of `key`, or the duty to make it, or a place in the queue. Never waits.
    pub fn lookup(&self, key: K) -> Lookup<K, V> {
        Shared::lookup(&self.shared, key)
    }

    /// The value of `key` if it is there. Makes nothing and waits for nothing.
    pub fn peek(&self, key: &K) -> Option<Arc<V>> {
        let entry = self.shared.map.get(key)?;
        let value = entry.peek()?;
        self.shared.part(&entry).counters.hit();
        Some(value)
    }

    /// The value of `key`, made by `make` unless it is there or another thread makes it, for whom
    /// this waits. `make` gives the value and its size in bytes. An error is the caller's own: others
    /// who wait for the value will try for themselves.
    ///
    /// No lock is held while `make` runs. It must not ask for the same key.
    pub fn get_or_make<E>(
        &self,
        key: K,
        make: impl FnOnce() -> Result<(V, u64), E>,
    ) -> Result<Arc<V>, E> {
        let mut lookup = self.lookup(key);
        loop {
            match lookup {
                Lookup::Hit(value) => return Ok(value),
                Lookup::Wait(waiter) => lookup = waiter.wait(),
                Lookup::Make(guard) => {
                    let (value, size_bytes) = make()?;
                    return Ok(guard.fill(value, size_bytes));
                }
            }
        }
    }

    /// Drops all values whose keys `condemned` says to drop. A value that is being made meanwhile
    /// still reaches those who wait for it, but is not kept. Gives the number of keys.
    ///
    /// `condemned` must not use this cache: part of the map is locked while it looks at a key.
    pub fn remove_if(&self, mut condemned: impl FnMut(&K) -> bool) -> usize {
        let mut removed = Vec::new();
        self.shared.map.retain(|key, entry| {
            let remove = condemned(key);
            if remove {
                removed.push(entry.clone());
            }
            !remove
        });
        for entry in &removed {
            if let Swept::Evicted { value, size_bytes } = entry.remove() {
                drop(value);
                self.shared.give_back(size_bytes);
            }
        }
        if !removed.is_empty() {
            // Else what is never swept would be remembered for ever.
            self.shared.rings.iter().for_each(|part| part.clock.forget_dead());
        }
        removed.len()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            bytes: self.shared.bytes.load(Relaxed),
            bytes_max: self.shared.bytes_max,
            ..Stats::default()
        };
        for part in &self.shared.rings {
            part.counters.add_to(&mut stats);
            stats.entries += part.clock.len() as u64;
        }
        stats
    }
}

/// What the handles and guards of one cache share.
#[derive(Debug)]
pub(crate) struct Shared<K: Hash + Eq + Clone, V> {
    /// LOCK ORDER: a shard's lock is held inside of this type's methods only, and no other lock with
    /// it.
    map: Map<K, Entry<V>>,
    rings: [Part<K, V>; RINGS],
    /// Sum of the sizes of all kept values, and of reservations for those about to be kept.
    bytes: AtomicU64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Part<K, V> {
    clock: Clock<K, V>,
    counters: Counters,
}

impl<K, V> Default for Part<K, V> {
    fn default() -> Self {
        Part { clock: Clock::default(), counters: Counters::default() }
    }
}

impl<K: Hash + Eq + Clone, V> Shared<K, V> {
    pub(crate) fn lookup(shared: &Arc<Shared<K, V>>, key: K) -> Lookup<K, V> {
        loop {
            let entry = match shared.map.get(&key) {
                Some(entry) => entry,
                None => {
                    let fresh = Arc::new(Entry::new(shared.ring_of(&key)));
                    let entry = shared.map.get_or_insert(key.clone(), &fresh);
                    if Arc::ptr_eq(&entry, &fresh) {
                        shared.count_miss(&entry);
                        return Lookup::Make(MakeGuard::new(shared.clone(), key, entry));
                    }
                    entry
                }
            };
            let counters = &shared.part(&entry).counters;
            match entry.ask() {
                Found::Value(value) => {
                    counters.hit();
                    return Lookup::Hit(value);
                }
                Found::Make => {
                    counters.miss();
                    return Lookup::Make(MakeGuard::new(shared.clone(), key, entry));
                }
                Found::Wait => {
                    counters.wait();
                    return Lookup::Wait(Waiter::new(shared.clone(), key, entry));
                }
                // Whoever killed it is about to take it out of the map; do it for them.
                Found::Dead => shared.forget(&key, &entry),
            }
        }
    }

    fn ring_of(&self, key: &K) -> usize {
        self.map.hash_low(key) & (RINGS - 1)
    }

    fn part(&self, entry: &Entry<V>) -> &Part<K, V> {
        &self.rings[entry.ring & (RINGS - 1)]
    }

    pub(crate) fn count_miss(&self, entry: &Entry<V>) {
        self.part(entry).counters.miss();
    }

    /// Takes exactly this entry out of the map, not a later one of the same key.
    pub(crate) fn forget(&self, key: &K, entry: &Arc<Entry<V>>) {
        self.map.remove(key, entry);
    }

    pub(crate) fn abandon(&self, key: &K, entry: &Arc<Entry<V>>) {
        self.part(entry).counters.abandon();
        if entry.abandon() {
            self.forget(key, entry);
        }
    }

    pub(crate) fn fill(&self, key: &K, entry: &Arc<Entry<V>>, value: Arc<V>, size_bytes: u64) {
        let part = self.part(entry);
        if !self.reserve(entry.ring, size_bytes) {
            part.counters.reject();
            entry.fill(value, 0);
            self.forget(key, entry);
        } else if entry.fill(value, size_bytes) {
            part.clock.add(key.clone(), entry.clone());
        } else {
            self.give_back(size_bytes);
        }
    }

    /// Takes `size_bytes` of the allowance, dropping values where needed; `false` if there is no
    /// room because too much is in use.
    fn reserve(&self, first_ring: usize, size_bytes: u64) -> bool {
        if size_bytes > self.bytes_max {
            return false;
        }
        for _ in 0..ROOM_ATTEMPTS {
            let taken = self.bytes.fetch_update(Relaxed, Relaxed, |bytes| {
                bytes.checked_add(size_bytes).filter(|&sum| sum <= self.bytes_max)
            });
            let Err(bytes) = taken else { return true };
            let wanted = bytes.saturating_add(size_bytes).saturating_sub(self.bytes_max);
            if self.make_room(first_ring, wanted) == 0 {
                return false;
            }
        }
        false
    }

    /// Drops values of about `wanted` bytes; gives how many bytes they had.
    fn make_room(&self, first_ring: usize, wanted: u64) -> u64 {
        let mut victims: Vec<Victim<K, V>> = Vec::new();
        let mut freed = 0;
        // Twice around all clocks, once for the reference bits: a value that was asked for lately
        // outlives those of other clocks that were not.
        for step in 0..2 * RINGS {
            if freed >= wanted {
                break;
            }
            let part = &self.rings[(first_ring + step) & (RINGS - 1)];
            let before = victims.len();
            freed += part.clock.evict(wanted - freed, &mut victims);
            part.counters.evict((victims.len() - before) as u64);
        }
        for victim in victims {
            self.forget(&victim.key, &victim.entry);
            // First gone, then not counted: else another value would be in memory beside it.
            drop(victim.value);
            self.give_back(victim.size_bytes);
        }
        freed
    }

    fn give_back(&self, size_bytes: u64) {
        let before = self.bytes.fetch_sub(size_bytes, Relaxed);
        debug_assert!(before >= size_bytes, "bytes are given back once");
    }
}
