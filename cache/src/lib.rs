//! A cache that makes every missing value once, however many ask for it, and is bounded in bytes.
//!
//! It knows nothing of PostgreSQL. Start reading at `lookup`; README.md has the locks.

#![forbid(unsafe_code)]

mod clock;
mod entry;
mod stats;

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use clock::Clock;
use entry::{Entry, Seen};
use stats::Counters;
pub use stats::Stats;

/// A cache of values `V` under keys `K`. Cheap to clone; clones are the same cache.
pub struct Cache<K, V> {
    shared: Arc<Shared<K, V>>,
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Cache { shared: self.shared.clone() }
    }
}

struct Shared<K, V> {
    /// LOCK ORDER: 1, a shard. Never held while a value is made or waited for.
    entries: DashMap<K, Arc<Entry<V>>>,
    /// LOCK ORDER: taken with nothing else held; entries are looked at only after it is released.
    clock: Mutex<Clock<K>>,
    bytes: AtomicU64,
    bytes_max: u64,
    counters: Counters,
}

/// What a lookup found.
pub enum Lookup<K: Hash + Eq + Clone, V> {
    /// The value.
    Hit(Arc<V>),
    /// Nothing: the caller has to make the value.
    Make(MakeGuard<K, V>),
    /// Somebody else is making the value.
    Wait(Waiter<K, V>),
}

/// The duty to make a value. Dropped unfilled, it passes to one of those who wait.
pub struct MakeGuard<K: Hash + Eq + Clone, V> {
    shared: Arc<Shared<K, V>>,
    key: K,
    entry: Arc<Entry<V>>,
    filled: bool,
}

/// A place among those who wait for a value that is being made.
pub struct Waiter<K: Hash + Eq + Clone, V> {
    shared: Arc<Shared<K, V>>,
    key: K,
    entry: Arc<Entry<V>>,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// An empty cache that keeps at most `bytes_max` bytes of values.
    pub fn new(bytes_max: u64) -> Cache<K, V> {
        Cache {
            shared: Arc::new(Shared {
                entries: DashMap::new(),
                clock: Mutex::new(Clock::default()),
                bytes: AtomicU64::new(0),
                bytes_max,
                counters: Counters::default(),
            }),
        }
    }

    /// Looks `key` up. Of all who look up a missing key, one gets `Make` and the others `Wait`.
    pub fn lookup(&self, key: K) -> Lookup<K, V> {
        let shared = &self.shared;
        loop {
            let mut made = false;
            // The shard's lock ends with this statement.
            let entry = shared
                .entries
                .entry(key.clone())
                .or_insert_with(|| {
                    made = true;
                    Arc::new(Entry::in_the_making())
                })
                .clone();
            if made {
                shared.counters.misses.fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                return Lookup::Make(MakeGuard { shared, key, entry, filled: false });
            }
            match entry.look() {
                Seen::Value(value) => {
                    shared.counters.hits.fetch_add(1, Ordering::Relaxed);
                    return Lookup::Hit(value);
                }
                Seen::InTheMaking => {
                    shared.counters.waits.fetch_add(1, Ordering::Relaxed);
                    return Lookup::Wait(Waiter { shared: shared.clone(), key, entry });
                }
                // It was taken out of the map between the two steps: look again.
                Seen::Removed => {}
            }
        }
    }

    /// The value under `key` if it is there; makes nothing and waits for nothing.
    pub fn peek(&self, key: &K) -> Option<Arc<V>> {
        let entry = self.shared.entries.get(key)?.clone();
        match entry.look() {
            Seen::Value(value) => Some(value),
            Seen::InTheMaking | Seen::Removed => None,
        }
    }

    /// The value under `key`, made with `make` if it is missing, together with its size in bytes.
    ///
    /// # Errors
    /// What `make` gives. The next who asks tries again.
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

    /// Takes out every value whose key the predicate names. Values being made are left alone.
    pub fn remove_if(&self, mut predicate: impl FnMut(&K) -> bool) {
        let shared = &self.shared;
        let keys: Vec<K> =
            shared.entries.iter().map(|e| e.key().clone()).filter(|k| predicate(k)).collect();
        for key in keys {
            shared.remove(&key, |entry| entry.remove_value());
        }
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats(self.shared.bytes.load(Ordering::Relaxed))
    }
}

impl<K: Hash + Eq + Clone, V> Shared<K, V> {
    /// Takes the entry under `key` out of the map if `take` gives its size; `take` runs under the
    /// shard's lock, so that nobody finds the entry in between.
    fn remove(&self, key: &K, take: impl FnOnce(&Entry<V>) -> Option<u64>) -> bool {
        let mut taken = None;
        self.entries.remove_if(key, |_, entry| {
            taken = take(entry);
            taken.is_some()
        });
        if let Some(size) = taken {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        taken.is_some()
    }

    /// Takes values out until there is room for `size` more bytes, and claims it. `false` if there
    /// is no room because all values are in use.
    fn claim(&self, size: u64) -> bool {
        if size > self.bytes_max {
            return false;
        }
        loop {
            let claimed = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                Some(bytes + size).filter(|bytes| *bytes <= self.bytes_max)
            });
            if claimed.is_ok() {
                return true;
            }
            if !self.evict_one() {
                return false;
            }
        }
    }

    fn evict_one(&self) -> bool {
        // Twice around: once to take the marks of recent use away, once to find the victim.
        let tries = self.clock.lock().len().saturating_mul(2);
        for _ in 0..tries {
            let Some(key) = self.clock.lock().next() else { return false };
            let entry = self.entries.get(&key).map(|entry| entry.clone());
            // A key without an entry was removed by somebody else: its place in the clock ends.
            let Some(entry) = entry else { continue };
            if entry.take_mark() {
                self.clock.lock().push(key);
                continue;
            }
            drop(entry);
            if self.remove(&key, Entry::evict_value) {
                self.counters.evictions.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            if self.entries.contains_key(&key) {
                self.clock.lock().push(key);
            }
        }
        false
    }
}

impl<K: Hash + Eq + Clone, V> MakeGuard<K, V> {
    /// Hands in the value, which counts as `size_bytes` towards the bound.
    pub fn fill(mut self, value: V, size_bytes: u64) -> Arc<V> {
        let value = Arc::new(value);
        self.filled = true;
        if self.shared.claim(size_bytes) {
            self.entry.fill(value.clone(), size_bytes);
            self.shared.clock.lock().push(self.key.clone());
        } else {
            // No room: those who wait get the value, later ones make it anew.
            self.entry.fill(value.clone(), 0);
            self.shared.remove(&self.key, Entry::remove_value);
        }
        value
    }
}

impl<K: Hash + Eq + Clone, V> Drop for MakeGuard<K, V> {
    fn drop(&mut self) {
        if !self.filled && !self.entry.pass_on() {
            self.shared.remove(&self.key, Entry::remove_abandoned);
        }
    }
}

impl<K: Hash + Eq + Clone, V> Waiter<K, V> {
    /// Waits until the value is made (`Hit`) or the duty to make it has come here (`Make`).
    pub fn wait(self) -> Lookup<K, V> {
        match self.entry.wait() {
            Seen::Value(value) => Lookup::Hit(value),
            Seen::InTheMaking => Lookup::Make(MakeGuard {
                shared: self.shared,
                key: self.key,
                entry: self.entry,
                filled: false,
            }),
            Seen::Removed => Cache { shared: self.shared }.lookup(self.key),
        }
    }
}

#[cfg(test)]
mod tests;
