//! The functions that programs find instead of the C library's. All of them have the contract of
//! the C function of the same name: that is what `# Safety` would say at each, and why each may call
//! the real one with the arguments it was given.
//!
//! `open` and its kin take an optional argument in C. Here it is always taken, and passed on: in
//! the calling conventions of Linux that reads a register that the callee then does not look at.

#![allow(clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks, reason = "see above")]
#![allow(missing_docs, reason = "documented by the C library")]

use std::ffi::{c_char, c_int, c_uint, c_void};

use libc::{AT_FDCWD, epoll_event, iovec, mode_t, off_t, size_t, ssize_t};

use crate::calls;
use crate::real;
use crate::wal_sender;

macro_rules! open_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            let real = |flags| unsafe { real::$name(path, flags, mode) };
            unsafe { calls::open(AT_FDCWD, path, flags, real) }
        }
    )*};
}
open_functions! { open open64 }

macro_rules! openat_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            folder: c_int, path: *const c_char, flags: c_int, mode: mode_t,
        ) -> c_int {
            let real = |flags| unsafe { real::$name(folder, path, flags, mode) };
            unsafe { calls::open(folder, path, flags, real) }
        }
    )*};
}
openat_functions! { openat openat64 }

/// What the compiler puts for an `open` without mode when it fortifies.
macro_rules! checked_open_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, flags: c_int) -> c_int {
            let real = |flags| unsafe { real::$name(path, flags) };
            unsafe { calls::open(AT_FDCWD, path, flags, real) }
        }
    )*};
}
checked_open_functions! { __open_2 __open64_2 }

macro_rules! checked_openat_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(folder: c_int, path: *const c_char, flags: c_int) -> c_int {
            let real = |flags| unsafe { real::$name(folder, path, flags) };
            unsafe { calls::open(folder, path, flags, real) }
        }
    )*};
}
checked_openat_functions! { __openat_2 __openat64_2 }

const CREATE: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

macro_rules! creat_functions {
    ($($name:ident = $open:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, mode: mode_t) -> c_int {
            let real = |flags| unsafe { real::$open(path, flags, mode) };
            unsafe { calls::open(AT_FDCWD, path, CREATE, real) }
        }
    )*};
}
creat_functions! { creat = open creat64 = open64 }

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    calls::close(fd, || unsafe { real::close(fd) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, to: *mut c_void, length: size_t) -> ssize_t {
    calls::read(fd, None, length, || unsafe { real::read(fd, to, length) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __read_chk(
    fd: c_int,
    to: *mut c_void,
    length: size_t,
    room: size_t,
) -> ssize_t {
    calls::read(fd, None, length, || unsafe { real::__read_chk(fd, to, length, room) })
}

macro_rules! pread_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            fd: c_int, to: *mut c_void, length: size_t, offset: off_t,
        ) -> ssize_t {
            let real = || unsafe { real::$name(fd, to, length, offset) };
            calls::read(fd, Some(offset), length, real)
        }
    )*};
}
pread_functions! { pread pread64 }

macro_rules! checked_pread_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            fd: c_int, to: *mut c_void, length: size_t, offset: off_t, room: size_t,
        ) -> ssize_t {
            let real = || unsafe { real::$name(fd, to, length, offset, room) };
            calls::read(fd, Some(offset), length, real)
        }
    )*};
}
checked_pread_functions! { __pread_chk __pread64_chk }

#[unsafe(no_mangle)]
pub unsafe extern "C" fn readv(fd: c_int, to: *const iovec, count: c_int) -> ssize_t {
    let length = unsafe { calls::total_length(to, count) };
    calls::read(fd, None, length, || unsafe { real::readv(fd, to, count) })
}

macro_rules! preadv_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            fd: c_int, to: *const iovec, count: c_int, offset: off_t,
        ) -> ssize_t {
            let length = unsafe { calls::total_length(to, count) };
            let real = || unsafe { real::$name(fd, to, count, offset) };
            calls::read(fd, Some(offset), length, real)
        }
    )*};
}
preadv_functions! { preadv preadv64 }

#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, from: *const c_void, length: size_t) -> ssize_t {
    calls::write(fd, None, length, || unsafe { real::write(fd, from, length) })
}

macro_rules! pwrite_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            fd: c_int, from: *const c_void, length: size_t, offset: off_t,
        ) -> ssize_t {
            let real = || unsafe { real::$name(fd, from, length, offset) };
            calls::write(fd, Some(offset), length, real)
        }
    )*};
}
pwrite_functions! { pwrite pwrite64 }

#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, from: *const iovec, count: c_int) -> ssize_t {
    let length = unsafe { calls::total_length(from, count) };
    calls::write(fd, None, length, || unsafe { real::writev(fd, from, count) })
}

macro_rules! pwritev_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            fd: c_int, from: *const iovec, count: c_int, offset: off_t,
        ) -> ssize_t {
            let length = unsafe { calls::total_length(from, count) };
            let real = || unsafe { real::$name(fd, from, count, offset) };
            calls::write(fd, Some(offset), length, real)
        }
    )*};
}
pwritev_functions! { pwritev pwritev64 }

#[unsafe(no_mangle)]
pub unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    let real = || unsafe { real::copy_file_range(from, from_at, to, to_at, length, flags) };
    calls::copy_file_range(from, to, real)
}

macro_rules! ftruncate_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(fd: c_int, length: off_t) -> c_int {
            calls::ftruncate(fd, length, || unsafe { real::$name(fd, length) })
        }
    )*};
}
ftruncate_functions! { ftruncate ftruncate64 }

macro_rules! truncate_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, length: off_t) -> c_int {
            unsafe { calls::truncate(path, length, || real::$name(path, length)) }
        }
    )*};
}
truncate_functions! { truncate truncate64 }

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    unsafe { calls::unlink(AT_FDCWD, path, || real::unlink(path)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    unsafe { calls::unlink(folder, path, || real::unlinkat(folder, path, flags)) }
}

macro_rules! fadvise_functions {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            fd: c_int, offset: off_t, length: off_t, advice: c_int,
        ) -> c_int {
            let real = || unsafe { real::$name(fd, offset, length, advice) };
            calls::fadvise(fd, offset, length, advice, real)
        }
    )*};
}
fadvise_functions! { posix_fadvise posix_fadvise64 }

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    calls::fsync(fd, || unsafe { real::fsync(fd) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    calls::fsync(fd, || unsafe { real::fdatasync(fd) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncfs(fd: c_int) -> c_int {
    calls::syncfs(fd, || unsafe { real::syncfs(fd) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    queue: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
) -> c_int {
    let real = || unsafe { real::epoll_wait(queue, events, room, timeout) };
    // As many as it has returned have been filled in.
    let found = |count| unsafe { std::slice::from_raw_parts(events.cast_const(), count) };
    wal_sender::epoll_wait(timeout, real, found)
}
