//! What a lookup gives: a value, the duty to make it, or a place in the queue.

use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::cache::Shared;
use crate::entry::{Entry, Found};
use crate::sync::Arc;

/// The answer to a lookup.
#[must_use]
#[derive(Debug)]
pub enum Lookup<K: Hash + Eq + Clone, V> {
    /// The value. It is not evicted while anybody holds it.
    Hit(Arc<V>),
    /// Nobody has it and nobody else makes it: make it.
    Make(MakeGuard<K, V>),
    /// Another thread is making it.
    Wait(Waiter<K, V>),
}

/// The duty to make one value. Dropped without `fill`, it passes to the next who waits or asks.
#[must_use]
#[derive(Debug)]
pub struct MakeGuard<K: Hash + Eq + Clone, V> {
    shared: Arc<Shared<K, V>>,
    key: K,
    entry: Arc<Entry<V>>,
    filled: bool,
}

impl<K: Hash + Eq + Clone, V> MakeGuard<K, V> {
    pub(crate) fn new(shared: Arc<Shared<K, V>>, key: K, entry: Arc<Entry<V>>) -> Self {
        MakeGuard { shared, key, entry, filled: false }
    }

    /// The key whose value is to be made.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Hands over the value to all who wait for it, and keeps it if room can be made for
    /// `size_bytes`, which should count all the memory that it needs, `Cache::OVERHEAD_BYTES` included.
    pub fn fill(mut self, value: V, size_bytes: u64) -> Arc<V> {
        self.filled = true;
        let value = Arc::new(value);
        self.shared.fill(&self.key, &self.entry, value.clone(), size_bytes);
        value
    }
}

impl<K: Hash + Eq + Clone, V> Drop for MakeGuard<K, V> {
    fn drop(&mut self) {
        if !self.filled {
            self.shared.abandon(&self.key, &self.entry);
        }
    }
}

/// A place in the queue for a value that another thread is making.
///
/// Do not wait while you hold a `MakeGuard`: its value may be what the other thread waits for.
#[must_use]
#[derive(Debug)]
pub struct Waiter<K: Hash + Eq + Clone, V> {
    shared: Arc<Shared<K, V>>,
    key: K,
    entry: Arc<Entry<V>>,
    /// The entry no longer counts us.
    done: bool,
}

impl<K: Hash + Eq + Clone, V> Waiter<K, V> {
    pub(crate) fn new(shared: Arc<Shared<K, V>>, key: K, entry: Arc<Entry<V>>) -> Self {
        Waiter { shared, key, entry, done: false }
    }

    /// The key whose value is being made.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Waits until the value is there, or the duty to make it comes to the caller.
    pub fn wait(self) -> Lookup<K, V> {
        match self.wait_until(None) {
            Ok(lookup) => lookup,
            Err(again) => again.wait(),
        }
    }

    /// As `wait`, for at most `timeout`; then the place in the queue is given back.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Lookup<K, V>, Waiter<K, V>> {
        // A moment beyond the end of the clock is never.
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(mut self, deadline: Option<Instant>) -> Result<Lookup<K, V>, Waiter<K, V>> {
        let Some(found) = self.entry.wait(deadline) else { return Err(self) };
        self.done = true;
        Ok(match found {
            Found::Value(value) => Lookup::Hit(value),
            Found::Make => {
                self.shared.count_miss(&self.entry);
                let (key, entry) = (self.key.clone(), self.entry.clone());
                Lookup::Make(MakeGuard::new(self.shared.clone(), key, entry))
            }
            Found::Wait | Found::Dead => Shared::lookup(&self.shared, self.key.clone()),
        })
    }
}

impl<K: Hash + Eq + Clone, V> Drop for Waiter<K, V> {
    fn drop(&mut self) {
        if !self.done && self.entry.stop_waiting() {
            self.shared.forget(&self.key, &self.entry);
        }
    }
}
