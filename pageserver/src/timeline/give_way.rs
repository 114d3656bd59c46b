//! Giving way: who merges layers or makes images in the background lets those go first whose WAL is taken in
//! slowly, for the threads and the disk are the same.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Timeline;
use super::freeze::FreezeError;

/// How often somebody who waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Who has waited for so long gives up what he is about: others may want the layers meanwhile, and what
/// slows may be a full disk, where only removing something helps.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

impl Timeline {
    /// Returns when no WAL is taken in slowly, of whichever timeline. To be called between pieces of work,
    /// with no lock but `reshaping`.
    ///
    /// # Errors
    /// `ShutDown`; `GaveWay` if that has lasted too long.
    pub(super) fn give_way(&self) -> Result<(), FreezeError> {
        let mut since = None;
        loop {
            if self.is_shut_down.load(Ordering::Relaxed) {
                return Err(FreezeError::ShutDown);
            }
            if !self.layers.is_ingest_slowed() {
                return Ok(());
            }
            if since.get_or_insert_with(Instant::now).elapsed() >= GIVE_UP_AFTER {
                return Err(FreezeError::GaveWay);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
