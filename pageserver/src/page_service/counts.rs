//! How much page streams have been asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted since the server started, over all page streams.
#[derive(Debug, Default)]
pub(super) struct StreamCounts {
    batches: AtomicU64,
    requests: AtomicU64,
    pages: AtomicU64,
}

impl StreamCounts {
    /// So many requests, which ask for so many pages, have come together.
    pub(super) fn add_batch(&self, requests: usize, pages: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(requests as u64, Ordering::Relaxed);
        self.pages.fetch_add(pages as u64, Ordering::Relaxed);
    }

    /// Batches of requests that were answered together, hardly ever more than round trips.
    pub(super) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Requests.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Pages that they asked for.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}
