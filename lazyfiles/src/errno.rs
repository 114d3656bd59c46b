//! The error numbers of system calls.

/// A value of C's `errno`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub libc::c_int);

impl Errno {
    /// What the last system call of this thread left.
    pub fn last() -> Errno {
        // SAFETY: the location belongs to this thread and is always valid.
        Errno(unsafe { *libc::__errno_location() })
    }

    /// Makes this the value that callers of C functions see.
    pub fn set(self) {
        // SAFETY: as in `last`.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(errno.0)
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}
