//! `Room`: whether the disk has room for more WAL, before it is full.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

/// How long, and for how many bytes, an answer holds: to ask each time costs about as much as to write
/// what a commit has. Little beside the reserve, whose purpose bears it.
const HOLDS_FOR: Duration = Duration::from_millis(100);
const HOLDS_BYTES: usize = 1 << 20;

/// What was found last.
#[derive(Default)]
pub(super) struct Room {
    until: Option<Instant>,
    bytes: usize,
}

impl Room {
    /// Whether `len` bytes of WAL leave a reserve free on the disk of `dir`.
    ///
    /// # Errors
    /// `ENOSPC` if not; the WAL can be asked for again until there is room.
    pub(super) fn check(&mut self, dir: &Path, reserve: u64, len: usize) -> io::Result<()> {
        let now = Instant::now();
        if let Some(left) = self.bytes.checked_sub(len)
            && self.until.is_some_and(|until| now < until)
        {
            self.bytes = left;
            return Ok(());
        }
        *self = Room::default();
        let needed = reserve.saturating_add(len as u64);
        // Where nothing can be told, writing will.
        let Ok(disk) = statvfs(dir) else { return Ok(()) };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < needed {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        *self = Room { until: now.checked_add(HOLDS_FOR), bytes: HOLDS_BYTES };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_some_bytes_and_some_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut room = Room::default();
        assert!(room.check(dir.path(), u64::MAX, 1).is_err());
        assert!(room.check(dir.path(), 0, 1).is_ok());
        assert!(room.check(dir.path(), u64::MAX, HOLDS_BYTES).is_ok(), "as found before");
        assert!(room.check(dir.path(), u64::MAX, 1).is_err(), "that was all");
        assert!(room.check(dir.path(), u64::MAX, 1).is_err(), "and stays so");
        assert!(room.check(dir.path(), 0, 1).is_ok());
        room.until = Some(Instant::now());
        assert!(room.check(dir.path(), u64::MAX, 1).is_err(), "it is too old");
    }
}
