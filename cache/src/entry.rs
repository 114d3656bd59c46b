//! `Entry`: the place of one key, from the moment somebody asks for it until it is dropped.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::sync::{Arc, AtomicBool, Condvar, Mutex};

/// The place of one key. Its own `Arc` is its reference count: the map, the clock, the maker and the
/// waiters each hold one.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    /// LOCK ORDER: rank 2, below a clock's. Held for a few instructions, never while a value is
    /// made or dropped, never together with a lock of the map.
    slot: Mutex<Slot<V>>,
    changed: Condvar,
    /// Asked for since the clock hand last came by.
    referenced: AtomicBool,
    /// Index of the clock and the counters that this entry belongs to.
    pub(crate) ring: usize,
}

#[derive(Debug)]
struct Slot<V> {
    state: State<V>,
    /// How many `Waiter`s there are.
    waiters: usize,
    /// No longer in the map, so that a value may go to the waiters but must not be kept.
    doomed: bool,
}

#[derive(Debug)]
enum State<V> {
    /// Somebody holds the `MakeGuard`.
    Making,
    /// The maker gave up while others waited; whoever comes first makes it.
    Abandoned,
    /// There. `size_bytes` is zero if it does not count, for it is not kept.
    Ready { value: Arc<V>, size_bytes: u64 },
    /// Evicted, removed or given up. The map may hold this entry a little longer; whoever meets it
    /// there takes it out.
    Dead,
}

/// What somebody who asks finds.
pub(crate) enum Found<V> {
    Value(Arc<V>),
    /// Make it: the caller is the maker now.
    Make,
    /// Wait: the caller counts as a waiter now.
    Wait,
    /// Ask the map again.
    Dead,
}

/// What became of a value that the clock looked at.
pub(crate) enum Swept<V> {
    /// Dropped; the caller has to give back the bytes, and to drop the value outside of all locks.
    Evicted { value: Arc<V>, size_bytes: u64 },
    /// Somebody uses it, or used it not long ago.
    Kept,
    /// It was dropped before.
    Gone,
}

impl<V> Entry<V> {
    /// An entry whose creator is its maker.
    pub(crate) fn new(ring: usize) -> Entry<V> {
        Entry {
            slot: Mutex::new(Slot { state: State::Making, waiters: 0, doomed: false }),
            changed: Condvar::new(),
            referenced: AtomicBool::new(false),
            ring,
        }
    }

    /// Looks, and takes the part that is free: user, maker or waiter.
    pub(crate) fn ask(&self) -> Found<V> {
        let mut slot = self.slot.lock();
        let found = Self::look(&mut slot);
        match found {
            Found::Wait => slot.waiters += 1,
            Found::Value(_) => self.touch(),
            Found::Make | Found::Dead => {}
        }
        found
    }

    fn look(slot: &mut Slot<V>) -> Found<V> {
        match &slot.state {
            State::Ready { value, .. } => Found::Value(value.clone()),
            State::Making => Found::Wait,
            State::Dead => Found::Dead,
            State::Abandoned => {
                slot.state = State::Making;
                Found::Make
            }
        }
    }

    fn touch(&self) {
        // A load first: a line that is only read stays in every core's cache.
        if !self.referenced.load(Relaxed) {
            self.referenced.store(true, Relaxed);
        }
    }

    /// The value, if it is there; takes no part.
    pub(crate) fn peek(&self) -> Option<Arc<V>> {
        match &self.slot.lock().state {
            State::Ready { value, .. } => {
                self.touch();
                Some(value.clone())
            }
            State::Making | State::Abandoned | State::Dead => None,
        }
    }

    /// Waits as one who is counted. `None` if `deadline` came first: the caller still waits then.
    /// Anything else ends the caller's waiting.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<Found<V>> {
        let mut slot = self.slot.lock();
        loop {
            let found = Self::look(&mut slot);
            if !matches!(found, Found::Wait) {
                slot.waiters -= 1;
                return Some(found);
            }
            match deadline {
                None => self.changed.wait(&mut slot),
                Some(deadline) => {
                    let late = self.changed.wait_until(&mut slot, deadline).timed_out();
                    // What changed at the last moment is not lost.
                    if late && matches!(slot.state, State::Making) {
                        return None;
                    }
                }
            }
        }
    }

    /// One waiter less. `true` if the entry is now nobody's and has to leave the map.
    pub(crate) fn stop_waiting(&self) -> bool {
        let mut slot = self.slot.lock();
        slot.waiters -= 1;
        let orphaned = slot.waiters == 0 && matches!(slot.state, State::Abandoned);
        if orphaned {
            slot.state = State::Dead;
        }
        orphaned
    }

    /// The maker gives up. `true` if nobody waits, so that the entry has to leave the map.
    pub(crate) fn abandon(&self) -> bool {
        let mut slot = self.slot.lock();
        let orphaned = slot.waiters == 0;
        slot.state = if orphaned { State::Dead } else { State::Abandoned };
        drop(slot);
        // All of them, for the one that is woken may be about to time out. It is a rare event.
        self.changed.notify_all();
        orphaned
    }

    /// The maker hands over the value, for which `size_bytes` were reserved, or none if it is not to
    /// be kept. `false` if the reservation has to be given back: the entry was removed meanwhile.
    pub(crate) fn fill(&self, value: Arc<V>, size_bytes: u64) -> bool {
        let mut slot = self.slot.lock();
        let keep = !slot.doomed;
        let size_bytes = if keep { size_bytes } else { 0 };
        slot.state = State::Ready { value, size_bytes };
        drop(slot);
        self.changed.notify_all();
        keep
    }

    /// The clock hand comes by.
    pub(crate) fn sweep(&self) -> Swept<V> {
        let mut slot = self.slot.lock();
        match &slot.state {
            State::Ready { value, .. } => {
                // Under the lock nobody gets a new reference from us, so one is only ours.
                let in_use = Arc::strong_count(value) > 1;
                if self.referenced.swap(false, Relaxed) || in_use {
                    return Swept::Kept;
                }
            }
            State::Making | State::Abandoned | State::Dead => return Swept::Gone,
        }
        Self::kill(&mut slot)
    }

    /// Takes the value away, or sees to it that it is not kept once it is made.
    pub(crate) fn remove(&self) -> Swept<V> {
        let mut slot = self.slot.lock();
        match slot.state {
            State::Ready { .. } => Self::kill(&mut slot),
            State::Making | State::Abandoned => {
                slot.doomed = true;
                Swept::Kept
            }
            State::Dead => Swept::Gone,
        }
    }

    fn kill(slot: &mut Slot<V>) -> Swept<V> {
        match std::mem::replace(&mut slot.state, State::Dead) {
            State::Ready { value, size_bytes } => Swept::Evicted { value, size_bytes },
            State::Making | State::Abandoned | State::Dead => Swept::Gone,
        }
    }

    /// Whether the clock can forget this entry.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.slot.lock().state, State::Dead)
    }
}
