//! Having the disk begin to write before somebody waits for it.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Has the system begin to write to disk what was written to `length` bytes at `offset`, without waiting for it: for
/// those who have other work before they sync. That it cannot, or fails, is told by the sync.
///
/// Nothing is durable by that: what the disk or the file system keeps to itself is not asked for
/// (`sync_file_range(2)`).
pub(crate) fn begin(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: it takes no memory of ours, and the descriptor is open as long as `file` is borrowed.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
