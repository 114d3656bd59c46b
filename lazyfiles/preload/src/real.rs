//! The functions behind ours: the next ones of these names, normally the C library's.
//!
//! They are looked up on first use, because the constructors of other libraries may call our
//! functions before our own constructor has run.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use crate::active;

/// The address of the next function called `name`, remembered in `cache`.
fn resolve(cache: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = cache.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: `name` ends with a zero byte, and RTLD_NEXT is a handle that needs no opening.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        active::die(&format!("the C library has no function {}", name.to_string_lossy()));
    }
    cache.store(found, Ordering::Relaxed);
    found
}

/// Declares real functions. Each has the contract of the C function of the same name.
macro_rules! real_functions {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
            static ADDRESS: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            const NAME: &CStr =
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("not a C name"),
                };
            type Function = unsafe extern "C" fn($($type),*) -> $result;
            let address = resolve(&ADDRESS, NAME);
            // SAFETY: the C library documents this type for the function of this name. Passing an
            // optional argument that the callee does not look at is harmless in the calling
            // conventions of Linux.
            let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
            // SAFETY: what the function asks for is what our caller was asked for.
            unsafe { function($($argument),*) }
        }
    )*};
}

real_functions! {
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn __open_2(path: *const c_char, flags: c_int) -> c_int;
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int;
    fn __openat_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn __openat64_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn read(fd: c_int, to: *mut c_void, length: size_t) -> ssize_t;
    fn __read_chk(fd: c_int, to: *mut c_void, length: size_t, room: size_t) -> ssize_t;
    fn pread(fd: c_int, to: *mut c_void, length: size_t, offset: off_t) -> ssize_t;
    fn pread64(fd: c_int, to: *mut c_void, length: size_t, offset: off_t) -> ssize_t;
    fn __pread_chk(fd: c_int, to: *mut c_void, length: size_t, offset: off_t, room: size_t) -> ssize_t;
    fn __pread64_chk(fd: c_int, to: *mut c_void, length: size_t, offset: off_t, room: size_t) -> ssize_t;
    fn readv(fd: c_int, to: *const iovec, count: c_int) -> ssize_t;
    fn preadv(fd: c_int, to: *const iovec, count: c_int, offset: off_t) -> ssize_t;
    fn preadv64(fd: c_int, to: *const iovec, count: c_int, offset: off_t) -> ssize_t;
    fn write(fd: c_int, from: *const c_void, length: size_t) -> ssize_t;
    fn pwrite(fd: c_int, from: *const c_void, length: size_t, offset: off_t) -> ssize_t;
    fn pwrite64(fd: c_int, from: *const c_void, length: size_t, offset: off_t) -> ssize_t;
    fn writev(fd: c_int, from: *const iovec, count: c_int) -> ssize_t;
    fn pwritev(fd: c_int, from: *const iovec, count: c_int, offset: off_t) -> ssize_t;
    fn pwritev64(fd: c_int, from: *const iovec, count: c_int, offset: off_t) -> ssize_t;
    fn copy_file_range(from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, length: size_t, flags: libc::c_uint) -> ssize_t;
    fn ftruncate(fd: c_int, length: off_t) -> c_int;
    fn ftruncate64(fd: c_int, length: off_t) -> c_int;
    fn truncate(path: *const c_char, length: off_t) -> c_int;
    fn truncate64(path: *const c_char, length: off_t) -> c_int;
    fn epoll_wait(queue: c_int, events: *mut libc::epoll_event, room: c_int, timeout: c_int) -> c_int;
    fn unlink(path: *const c_char) -> c_int;
    fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn posix_fadvise(fd: c_int, offset: off_t, length: off_t, advice: c_int) -> c_int;
    fn posix_fadvise64(fd: c_int, offset: off_t, length: off_t, advice: c_int) -> c_int;
    fn fsync(fd: c_int) -> c_int;
    fn fdatasync(fd: c_int) -> c_int;
    fn syncfs(fd: c_int) -> c_int;
}
