//! A file mapped into memory and shared between processes, read and written as atomic numbers.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// The mapped bytes of one file. The file's descriptor may be closed meanwhile.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<libc::c_void>,
    size: usize,
}

// SAFETY: the memory belongs to no thread, and is touched through atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `size` bytes of `file`, which must be that long, now and later: touching a
    /// page beyond the end of the file would kill the process.
    pub(crate) fn new(file: &File, size: usize) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Mapping { start, size }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn checked(&self, at: usize, size: usize) -> *mut u8 {
        assert!(
            at.is_multiple_of(size) && at + size <= self.size,
            "offset outside the mapped file"
        );
        self.start.as_ptr().cast::<u8>().wrapping_add(at)
    }

    /// The number at byte `at`, a multiple of 4 within the file.
    pub(crate) fn u32(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `checked` has made sure of bounds and alignment (mappings begin on a page); the
        // memory stays mapped as long as `self`, and everybody uses atomics on it.
        unsafe { AtomicU32::from_ptr(self.checked(at, 4).cast()) }
    }

    /// The number at byte `at`, a multiple of 8 within the file.
    pub(crate) fn u64(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as for `u32`.
        unsafe { AtomicU64::from_ptr(self.checked(at, 8).cast()) }
    }

    /// Waits until what the file holds now is on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        // SAFETY: exactly the range that this value has mapped.
        if unsafe { libc::msync(self.start.as_ptr(), self.size, libc::MS_SYNC) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that this value has mapped, and no reference outlives it.
        unsafe { libc::munmap(self.start.as_ptr(), self.size) };
    }
}
