//! What the threads of a cache share their data by. The model test compiles the other files with its own
//! `sync` (`tests/interleavings/sync.rs`), whose locks try every order in which threads can come.

use std::hash::{BuildHasher, Hash};
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};

use dashmap::DashMap;
pub(crate) use parking_lot::{Condvar, Mutex};

/// Number of clocks; a power of two. More would only split the order of eviction further.
pub(crate) const RINGS: usize = 16;

/// A map of `Arc`s in shards, each with a lock of its own that is held inside of these methods only.
#[derive(Debug)]
pub(crate) struct Map<K: Hash + Eq, E>(DashMap<K, Arc<E>>);

impl<K: Hash + Eq, E> Map<K, E> {
    pub(crate) fn new() -> Map<K, E> {
        Map(DashMap::new())
    }

    pub(crate) fn get(&self, key: &K) -> Option<Arc<E>> {
        self.0.get(key).map(|there| there.value().clone())
    }

    /// What is there, and that is `fresh` if nothing was.
    pub(crate) fn get_or_insert(&self, key: K, fresh: &Arc<E>) -> Arc<E> {
        self.0.entry(key).or_insert_with(|| fresh.clone()).clone()
    }

    /// Takes exactly this value out, not a later one of the same key.
    pub(crate) fn remove(&self, key: &K, value: &Arc<E>) {
        // What is taken out is dropped when the lock is free again.
        self.0.remove_if(key, |_, there| Arc::ptr_eq(there, value));
    }

    /// Keeps what `keep` says to keep; a shard is locked while it looks at a key.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&K, &Arc<E>) -> bool) {
        self.0.retain(|key, value| keep(key, value));
    }

    /// The lowest bits of the key's hash; the map takes the upper ones for its shards.
    pub(crate) fn hash_low(&self, key: &K) -> usize {
        self.0.hasher().hash_one(key) as usize
    }
}
