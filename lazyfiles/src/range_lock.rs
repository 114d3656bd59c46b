//! Locks on parts of a file that exclude other processes and end with the process that holds them.
//!
//! These are POSIX record locks, owned by a process. Two of their traits are traps:
//! threads of one process do not exclude each other, and closing *any* descriptor of the file
//! drops all the process's locks on it. SAFETY.md says why neither can happen here.

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
    // SAFETY: all fields of this C struct are integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = range.start;
    lock.l_len = length;
    loop {
        // SAFETY: F_SETLKW reads one flock through the pointer, which is valid for the call.
        if unsafe { libc::fcntl(fd, libc::F_SETLKW, &lock) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
