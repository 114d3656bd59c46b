//! Which descriptors of this process belong to files with a presence map.
//!
//! A table of pointers, so that asking costs one load for each of the many system calls that do not
//! concern us. A forked child has a copy of it, as it has copies of the descriptors.

use std::ffi::c_int;
use std::sync::atomic::{AtomicPtr, Ordering};

use lazyfiles_core::lazy_file::LazyFile;

/// Descriptors from this number on cannot have a presence map; the kernel gives the lowest that is
/// free, and PostgreSQL keeps some thousand files open at most.
const DESCRIPTORS_MAX: usize = 1 << 16;

static FILES: [AtomicPtr<LazyFile>; DESCRIPTORS_MAX] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; DESCRIPTORS_MAX];

fn slot(fd: c_int) -> Option<&'static AtomicPtr<LazyFile>> {
    FILES.get(usize::try_from(fd).ok()?)
}

/// The file behind `fd` if it has a presence map.
pub(crate) fn get(fd: c_int) -> Option<&'static LazyFile> {
    let file = slot(fd)?.load(Ordering::Acquire);
    // SAFETY: a pointer in the table comes from `put` and is freed by `remove`, that is, when the
    // descriptor is closed. Using a descriptor while another thread closes it is a mistake of the
    // caller that C does not forgive either.
    unsafe { file.as_ref() }
}

/// Remembers `file` as the one behind `fd`; gives it back if the number is too high.
pub(crate) fn put(fd: c_int, file: LazyFile) -> Result<(), LazyFile> {
    let Some(slot) = slot(fd) else { return Err(file) };
    free(slot.swap(Box::into_raw(Box::new(file)), Ordering::AcqRel));
    Ok(())
}

/// Forgets what is behind `fd`.
pub(crate) fn remove(fd: c_int) {
    if let Some(slot) = slot(fd)
        && !slot.load(Ordering::Relaxed).is_null()
    {
        free(slot.swap(std::ptr::null_mut(), Ordering::AcqRel));
    }
}

fn free(file: *mut LazyFile) {
    if !file.is_null() {
        // SAFETY: it comes from `Box::into_raw` in `put`, and the swap made this the only copy.
        drop(unsafe { Box::from_raw(file) });
    }
}
