//! Locks on parts of a file that exclude everybody else and end with the process that holds them.
//!
//! These are Linux's open file description locks (`fcntl(2)`): they belong to an opening of the file. So
//! two threads exclude each other, as two processes do, if each has opened the file for itself, and
//! closing another descriptor of the file lets go of nothing. What is left to watch for is in SAFETY.md.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;

/// A lock that is held until this value is dropped.
#[derive(Debug)]
#[must_use]
pub struct RangeLock {
    fd: RawFd,
    range: Range<i64>,
}

/// Waits for an exclusive lock on the bytes of `range`, which need not exist in the file; an `end`
/// of `i64::MAX` means all that follows. `fd` must be open for writing and stay open meanwhile.
pub fn lock(fd: RawFd, range: Range<i64>) -> io::Result<RangeLock> {
    set(fd, libc::F_WRLCK, &range)?;
    Ok(RangeLock { fd, range })
}

impl Drop for RangeLock {
    fn drop(&mut self) {
        // Unlocking what we hold can only fail for want of kernel memory when a range is split,
        // which never happens: only one range is held at a time.
        let _ = set(self.fd, libc::F_UNLCK, &self.range);
    }
}

fn set(fd: RawFd, kind: libc::c_int, range: &Range<i64>) -> io::Result<()> {
    let length = if range.end == i64::MAX { 0 } else { range.end - range.start };
    // SAFETY: all fields of this C struct are integers, for which zero is a value; of these locks
    // `l_pid` has to be zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = range.start;
    lock.l_len = length;
    loop {
        // SAFETY: F_OFD_SETLKW reads one flock through the pointer, which is valid for the call.
        if unsafe { libc::fcntl(fd, libc::F_OFD_SETLKW, &lock) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn threads_exclude_each_other_where_they_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        File::create(&path).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (own, other) = (open(), open());
        let held = lock(own.as_raw_fd(), 5..10).unwrap();
        // Closing another descriptor of the file takes nothing away.
        drop(open());
        drop(lock(other.as_raw_fd(), 0..5).unwrap());
        let released = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let _lock = lock(other.as_raw_fd(), 9..i64::MAX).unwrap();
                assert!(released.load(Ordering::SeqCst));
            });
            // It may only be too late to notice, never too early to fail.
            std::thread::yield_now();
            released.store(true, Ordering::SeqCst);
            drop(held);
            waiting.join().unwrap();
        });
    }
}
