//! What happened in a pool so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that the drivers keep.
#[derive(Default)]
pub struct Counters {
    /// Pages made.
    pub pages: AtomicU64,
    /// Records applied for them.
    pub records: AtomicU64,
    /// Requests that PostgreSQL refused.
    pub refused: AtomicU64,
    /// Requests without an answer in time.
    pub timeouts: AtomicU64,
    /// Processes that ended by themselves.
    pub deaths: AtomicU64,
    /// Processes that were started.
    pub starts: AtomicU64,
}

/// Totals since the pool was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalRedoStats {
    /// Pages made.
    pub pages: u64,
    /// Records applied for them.
    pub records: u64,
    /// Requests that PostgreSQL refused.
    pub refused: u64,
    /// Requests that had no answer in time.
    pub timeouts: u64,
    /// Processes that ended by themselves or were killed by somebody else.
    pub deaths: u64,
    /// Processes that were started.
    pub starts: u64,
}

impl Counters {
    /// The totals now. They are read one after the other, so may not quite fit together.
    pub fn totals(&self) -> WalRedoStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WalRedoStats {
            pages: read(&self.pages),
            records: read(&self.records),
            refused: read(&self.refused),
            timeouts: read(&self.timeouts),
            deaths: read(&self.deaths),
            starts: read(&self.starts),
        }
    }
}
