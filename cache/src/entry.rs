//! `Entry`: the place of one value, made, being made or given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

/// The place of one value. Its reference count is that of the `Arc` around it.
pub(crate) struct Entry<V> {
    /// LOCK ORDER: 2, behind a shard of the map; nothing else is taken while it is held, nor a
    /// value made.
    state: Mutex<State<V>>,
    changed: Condvar,
    /// Used since the clock's hand last came by.
    mark: AtomicBool,
}

struct State<V> {
    content: Content<V>,
    /// Threads waiting on `changed`.
    waiters: usize,
}

enum Content<V> {
    /// Somebody holds the guard.
    InTheMaking,
    /// The guard was dropped, and a waiter is about to take the duty over.
    Abandoned,
    Value(Arc<V>, u64),
    /// No longer in the map.
    Removed,
}

/// What an entry was seen to hold.
pub(crate) enum Seen<V> {
    Value(Arc<V>),
    InTheMaking,
    Removed,
}

impl<V> Entry<V> {
    pub(crate) fn in_the_making() -> Entry<V> {
        Entry {
            state: Mutex::new(State { content: Content::InTheMaking, waiters: 0 }),
            changed: Condvar::new(),
            mark: AtomicBool::new(false),
        }
    }

    pub(crate) fn look(&self) -> Seen<V> {
        match &self.state.lock().content {
            Content::Value(value, _) => {
                self.mark.store(true, Ordering::Relaxed);
                Seen::Value(value.clone())
            }
            Content::InTheMaking | Content::Abandoned => Seen::InTheMaking,
            Content::Removed => Seen::Removed,
        }
    }

    /// Waits for the value. `InTheMaking` means that the caller now has the duty to make it.
    pub(crate) fn wait(&self) -> Seen<V> {
        let mut state = self.state.lock();
        loop {
            match &state.content {
                Content::Value(value, _) => {
                    self.mark.store(true, Ordering::Relaxed);
                    return Seen::Value(value.clone());
                }
                Content::Removed => return Seen::Removed,
                Content::Abandoned => {
                    state.content = Content::InTheMaking;
                    return Seen::InTheMaking;
                }
                Content::InTheMaking => {
                    state.waiters += 1;
                    self.changed.wait(&mut state);
                    state.waiters -= 1;
                }
            }
        }
    }

    pub(crate) fn fill(&self, value: Arc<V>, size: u64) {
        self.state.lock().content = Content::Value(value, size);
        self.changed.notify_all();
    }

    /// Gives the duty to make the value up; whether somebody waits to take it over.
    pub(crate) fn pass_on(&self) -> bool {
        let mut state = self.state.lock();
        state.content = Content::Abandoned;
        self.changed.notify_one();
        state.waiters > 0
    }

    /// Takes the mark of use away; whether it was there.
    pub(crate) fn take_mark(&self) -> bool {
        self.mark.swap(false, Ordering::Relaxed)
    }

    /// Takes the value out unless somebody uses it; its size.
    pub(crate) fn evict_value(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let Content::Value(value, size) = &state.content else { return None };
        if Arc::strong_count(value) > 1 {
            return None;
        }
        let size = *size;
        state.content = Content::Removed;
        Some(size)
    }

    /// Takes the value out, used or not; its size.
    pub(crate) fn remove_value(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let Content::Value(_, size) = &state.content else { return None };
        let size = *size;
        state.content = Content::Removed;
        // Those who still wait have missed the value and look again.
        self.changed.notify_all();
        Some(size)
    }

    /// Ends an entry whose value nobody makes or waits for; its size, which is 0.
    pub(crate) fn remove_abandoned(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let Content::Abandoned = state.content else { return None };
        state.content = Content::Removed;
        self.changed.notify_all();
        Some(0)
    }
}
