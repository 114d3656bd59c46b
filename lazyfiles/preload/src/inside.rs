//! Our own work inside a wrapped call: marked, so that the system calls it makes pass through, and
//! fenced, so that no panic reaches C and `errno` is not changed by the way.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lazyfiles_core::errno::Errno;
use lazyfiles_core::report;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Proof that this thread is inside, once.
pub(crate) struct Inside(());

impl Inside {
    /// `None` if this thread is inside already: then the call is one of our own.
    pub(crate) fn enter() -> Option<Inside> {
        // A thread that is ending has no marks any more, and nothing of ours to do.
        let was_inside = INSIDE.try_with(|inside| inside.replace(true)).unwrap_or(true);
        // Made only if it is to be given away: dropping one takes the mark off.
        if was_inside { None } else { Some(Inside(())) }
    }

    /// Does `work`. Whatever system calls it makes, `errno` is as before if it succeeds.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        let errno = Errno::last();
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            report::line("internal error in liblazyfiles.so, see the line above");
            Err(Errno(libc::EIO))
        });
        if result.is_ok() {
            errno.set();
        }
        result
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(false));
    }
}
