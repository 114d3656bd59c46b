//! Counters.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) evictions: AtomicU64,
}

/// What has happened in a cache since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Lookups that found the value.
    pub hits: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Lookups that found the value being made.
    pub waits: u64,
    /// Values taken out to make room.
    pub evictions: u64,
    /// Size of all values now, in bytes.
    pub bytes: u64,
}

impl Counters {
    pub(crate) fn stats(&self, bytes: u64) -> Stats {
        Stats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            bytes,
        }
    }
}
