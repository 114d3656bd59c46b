//! Counters, spread over the rings so that threads seldom write to the same cache line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a cache has done since it was made, and what it holds now.
///
/// Taken while others go on, so the numbers need not add up to the last unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lookups that found the value.
    pub hits: u64,
    /// Lookups that were told to make the value.
    pub misses: u64,
    /// Lookups that found the value being made by another.
    pub waits: u64,
    /// Makers that gave up.
    pub abandoned: u64,
    /// Values dropped to make room.
    pub evictions: u64,
    /// Values given to their askers but not kept, as there was no room.
    pub rejections: u64,
    /// Values held.
    pub entries: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The most that `bytes` may be.
    pub bytes_max: u64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    waits: AtomicU64,
    abandoned: AtomicU64,
    evictions: AtomicU64,
    rejections: AtomicU64,
}

impl Counters {
    pub(crate) fn hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }

    pub(crate) fn miss(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    pub(crate) fn wait(&self) {
        self.waits.fetch_add(1, Relaxed);
    }

    pub(crate) fn abandon(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    pub(crate) fn evict(&self, count: u64) {
        self.evictions.fetch_add(count, Relaxed);
    }

    pub(crate) fn reject(&self) {
        self.rejections.fetch_add(1, Relaxed);
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.hits += self.hits.load(Relaxed);
        stats.misses += self.misses.load(Relaxed);
        stats.waits += self.waits.load(Relaxed);
        stats.abandoned += self.abandoned.load(Relaxed);
        stats.evictions += self.evictions.load(Relaxed);
        stats.rejections += self.rejections.load(Relaxed);
    }
}
