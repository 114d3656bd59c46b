//! `SyncAside`: much WAL is made durable by a thread of its own, while more is received.
//!
//! The disk needs as long for 16 MiB as it takes to receive and index them. There is one such sync of a
//! stream at a time, so that no more than two groups of WAL are not durable.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::timeline::{IngestError, Timeline};

/// The sync of one stream that is under way, if there is one.
pub(super) struct SyncAside {
    timeline: Arc<Timeline>,
    under_way: Option<JoinHandle<Result<(), IngestError>>>,
}

impl SyncAside {
    /// None is under way.
    pub(super) fn new(timeline: Arc<Timeline>) -> SyncAside {
        SyncAside { timeline, under_way: None }
    }

    /// Whether one is under way, or has not been taken note of.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins one, of everything received so far. `false`: there is no thread to be had.
    pub(super) fn begin(&mut self) -> bool {
        let timeline = self.timeline.clone();
        let thread = thread::Builder::new().name("wal-sync".to_owned());
        self.under_way = thread.spawn(move || timeline.sync_wal().map(drop)).ok();
        self.under_way.is_some()
    }

    /// How the one has ended that was under way; `None`: there was none, or it has not.
    pub(super) fn take_finished(&mut self) -> Option<Result<(), IngestError>> {
        self.under_way.as_ref()?.is_finished().then(|| self.wait())
    }

    /// Waits for the one that is under way.
    ///
    /// # Errors
    /// Those of `Timeline::sync_wal`.
    pub(super) fn wait(&mut self) -> Result<(), IngestError> {
        let Some(thread) = self.under_way.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for SyncAside {
    fn drop(&mut self) {
        // Whoever receives next finds no sync of this stream under way. How it ended, the timeline knows.
        let _ = self.wait();
    }
}
