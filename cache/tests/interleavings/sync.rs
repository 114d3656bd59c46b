//! What `src/sync.rs` is to the cache, made of loom's parts: every lock, wait, atomic operation and count of
//! references is a place where loom lets another thread go on.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::ops::{Deref, DerefMut};
use std::time::Instant;

pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};

/// Enough for one clock to look for room in another; each more would multiply the orders.
pub(crate) const RINGS: usize = 2;

#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

/// Holds the lock but while it waits.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    held: Option<loom::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, held: Some(self.0.lock().unwrap()) }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(loom::sync::Condvar);

pub(crate) struct WaitTimeoutResult;

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        true
    }
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(loom::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.held = Some(self.0.wait(guard.held.take().unwrap()).unwrap());
    }

    /// The deadline has always passed; but while the lock is free, anything may happen.
    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _deadline: Instant,
    ) -> WaitTimeoutResult {
        guard.held = None;
        guard.held = Some(guard.lock.0.lock().unwrap());
        WaitTimeoutResult
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// One shard, which is the hardest case.
#[derive(Debug)]
pub(crate) struct Map<K: Hash + Eq, E>(Mutex<HashMap<K, Arc<E>, Hasher>>);

/// The same in every run, as loom wants it.
type Hasher = BuildHasherDefault<DefaultHasher>;

impl<K: Hash + Eq, E> Map<K, E> {
    pub(crate) fn new() -> Map<K, E> {
        Map(Mutex::new(HashMap::default()))
    }

    pub(crate) fn get(&self, key: &K) -> Option<Arc<E>> {
        self.0.lock().get(key).cloned()
    }

    pub(crate) fn get_or_insert(&self, key: K, fresh: &Arc<E>) -> Arc<E> {
        self.0.lock().entry(key).or_insert_with(|| fresh.clone()).clone()
    }

    pub(crate) fn remove(&self, key: &K, value: &Arc<E>) {
        let mut map = self.0.lock();
        let is_this = map.get(key).is_some_and(|there| Arc::ptr_eq(there, value));
        let removed = if is_this { map.remove(key) } else { None };
        drop(map);
        drop(removed);
    }

    pub(crate) fn retain(&self, mut keep: impl FnMut(&K, &Arc<E>) -> bool) {
        self.0.lock().retain(|key, value| keep(key, value));
    }

    pub(crate) fn hash_low(&self, key: &K) -> usize {
        Hasher::default().hash_one(key) as usize
    }
}
