//! Giving way: who merges layers or makes images in the background lets those go first of whose WAL more comes
//! than is written as layers, for the processors and the disk are the same.

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
    /// Returns when layers are not behind, of whichever timeline. To be called between pieces of work,
    /// with no lock but `reshaping`.
    ///
    /// # Errors
    /// `ShutDown`; `GaveWay` if that has lasted too long.
    pub(super) fn give_way(&self) -> Result<(), FreezeError> {
        let is_shut_down = || self.is_shut_down.load(Ordering::Relaxed);
        wait_while(|| self.layers.is_ingest_behind(), is_shut_down, GIVE_UP_AFTER)
    }
}

fn wait_while(
    is_slowed: impl Fn() -> bool,
    is_shut_down: impl Fn() -> bool,
    at_most: Duration,
) -> Result<(), FreezeError> {
    let mut since = None;
    loop {
        if is_shut_down() {
            return Err(FreezeError::ShutDown);
        }
        if !is_slowed() {
            return Ok(());
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= at_most {
            return Err(FreezeError::GaveWay);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn goes_on_when_wal_is_taken_in_as_ever_and_gives_up_in_the_end() {
        let slowed = Cell::new(3);
        let is_slowed = || slowed.replace(slowed.get().max(1) - 1) > 0;
        assert!(wait_while(is_slowed, || false, GIVE_UP_AFTER).is_ok());
        assert_eq!(slowed.get(), 0);
        let gave_way = wait_while(|| true, || false, LOOK_EVERY);
        assert!(matches!(gave_way, Err(FreezeError::GaveWay)));
        let shut_down = wait_while(|| true, || true, GIVE_UP_AFTER);
        assert!(matches!(shut_down, Err(FreezeError::ShutDown)));
    }
}
