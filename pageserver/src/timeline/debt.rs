//! Debt: history that is in memory and not in layers yet. It is bounded.
//!
//! Closed stretches wait for the thread that writes layers. When too many do, whoever takes in WAL has to wait for it or
//! does its work, and so the server that sends the WAL is slowed, or the loading of a timeline with much WAL. How many
//! that is depends on the memory that is left: a burst of WAL is taken in as fast as it comes, and written as layers
//! behind it. Over all timelines the memory of the indexes is bounded: the largest open stretches are closed. And a
//! stretch that has been open for long is closed whatever its length, so that a start finds little WAL to index.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres_formats::Lsn;
use postgres_formats::checkpoint::CheckpointState;

use super::Timeline;
use super::history::History;
use super::manifest::Layered;
use crate::error_text::with_causes;

/// So many closed stretches of a timeline may wait to be written, whatever memory they take.
const WAITING_ALWAYS: usize = 2;
/// So many may as long as all that wait, of all timelines, take at most half of the memory for indexes. More of
/// them would have to be indexed again, after a crash, than one who waits for a timeline likes: at 16 stretches of
/// 64 MiB that takes one to two seconds.
const WAITING_MAX: usize = 16;
/// Who takes in WAL waits at most so long at once for another one who writes layers: a receiver has to answer
/// its server from time to time, and that other one may be waiting for us.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// A stretch that is small is not worth a layer just because it is old.
const AGED_BYTES_MIN: u64 = 64 << 10;

/// How a timeline stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Debt {
    /// Bytes of WAL that are not in layers.
    pub wal_bytes: u64,
    /// Closed stretches that wait to be written.
    pub waiting: usize,
    /// Memory of the indexes, about.
    pub memory_bytes: u64,
    /// Whether taking in WAL is slowed by that.
    pub is_slowed: bool,
}

/// What a timeline knows for that.
#[derive(Default)]
pub(super) struct DebtState {
    is_slowed: AtomicBool,
    /// When the open stretch was last seen without a record, or closed.
    // LOCK ORDER: a leaf, held for a moment.
    open_since: Mutex<Option<Instant>>,
    /// Layers written since the timeline was loaded.
    pub(super) layers_written: AtomicU64,
}

impl Timeline {
    /// How it stands.
    pub fn debt(&self) -> Debt {
        let end = self.last_record_lsn();
        let history = self.history.read();
        Debt {
            wal_bytes: history.unlayered_bytes(end),
            waiting: history.waiting(),
            memory_bytes: history.memory_bytes(),
            is_slowed: self.debt.is_slowed.load(Ordering::Relaxed),
        }
    }

    /// Whether WAL comes faster than it is written as layers, just now at least.
    pub(crate) fn is_behind(&self) -> bool {
        self.history.read().waiting() > 0
    }

    /// Whether so much history waits to be written that no more may come.
    fn is_deep_in_debt(&self) -> bool {
        let waiting = self.history.read().waiting();
        let is_short = || self.layers.waiting_memory.bytes() > self.layers.options.memory_bytes / 2;
        waiting > WAITING_ALWAYS && (waiting > WAITING_MAX || is_short())
    }

    /// How many layers were written since it was loaded.
    pub fn layers_written(&self) -> u64 {
        self.debt.layers_written.load(Ordering::Relaxed)
    }

    /// Returns when not too many closed stretches wait; for whoever takes in WAL.
    pub(super) fn pay_debt(&self) {
        if !self.is_deep_in_debt() {
            if self.debt.is_slowed.swap(false, Ordering::Relaxed) {
                slog::info!(self.log, "WAL is taken in at full speed again");
            }
            return;
        }
        if !self.debt.is_slowed.swap(true, Ordering::Relaxed) {
            slog::info!(self.log, "WAL is taken in slowly until layers have been written";
                "closed_stretches" => self.history.read().waiting());
        }
        let deadline = Instant::now() + WAIT_MAX;
        while self.is_deep_in_debt() && Instant::now() < deadline {
            if self.is_shut_down.load(Ordering::Relaxed) {
                return;
            }
            // With a time limit, for whoever has the lock may want to say that syncing failed, which
            // only the one who writes can be told: us.
            let Some(mut layered) = self.layered.try_lock_until(deadline) else { return };
            if let Err(error) = self.write_oldest_closed(&mut layered) {
                // The thread that writes layers says so, and tries again; what cannot be written must
                // not keep WAL from being received for ever.
                slog::debug!(self.log, "no layer written: {}", with_causes(&error));
                drop(layered);
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()).min(RETRY));
                return;
            }
        }
    }

    /// Closes the open stretch if it is older than `age`. To be called from time to time.
    pub(crate) fn close_if_old(&self, age: Duration) {
        let end = self.last_record_lsn();
        if self.history.read().open_bytes(end) < AGED_BYTES_MIN {
            *self.debt.open_since.lock() = None;
            return;
        }
        let since = *self.debt.open_since.lock().get_or_insert_with(Instant::now);
        if since.elapsed() >= age {
            self.close_now();
        }
    }

    /// Closes the open stretch, unless WAL is just being taken in, and has it written.
    pub(crate) fn close_now(&self) {
        let Some(writer) = self.writer.try_lock() else { return };
        let (end, state) = writer.stretch_end();
        {
            let mut history = self.history.write();
            if history.open_bytes(end) == 0 {
                return;
            }
            self.close_open(&mut history, end, state);
        }
        *self.debt.open_since.lock() = None;
        self.layers.write_soon(self.myself.clone());
    }

    /// Closes the open stretch, which ends at `end`, where the state is `state`.
    pub(super) fn close_open(&self, history: &mut History, end: Lsn, state: &CheckpointState) {
        history.close(self.id(), end, state, &self.layers.waiting_memory);
    }

    fn write_oldest_closed(&self, layered: &mut Layered) -> Result<(), super::FreezeError> {
        self.write_next(layered).map(drop)
    }
}

/// How long to wait where a layer cannot be written.
const RETRY: Duration = Duration::from_secs(1);

/// Sees to the debt of all timelines: age first, then memory.
pub(crate) fn look_after(loaded: &Mutex<Vec<Weak<Timeline>>>, age: Duration, memory_bytes: u64) {
    let timelines: Vec<_> = {
        let mut loaded = loaded.lock();
        loaded.retain(|timeline| timeline.strong_count() > 0);
        loaded.iter().filter_map(Weak::upgrade).collect()
    };
    for timeline in &timelines {
        timeline.close_if_old(age);
    }
    let of_open = |timeline: &Timeline| timeline.history.read().open.memory_bytes();
    let mut open: Vec<_> = timelines.iter().map(|timeline| (of_open(timeline), timeline)).collect();
    open.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    // What is closed already is on its way out.
    let mut sum: u64 = open.iter().map(|(bytes, _)| bytes).sum();
    for (bytes, timeline) in open {
        if sum <= memory_bytes || bytes == 0 {
            break;
        }
        timeline.close_now();
        sum = sum.saturating_sub(bytes);
    }
}
