//! The waits of the WAL sender that serves the page server; why they are lengthened:
//! `lazyfiles_core::wal_sender`.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use lazyfiles_core::errno::Errno;
use lazyfiles_core::wal_sender::Rest;
use libc::{c_int, epoll_event};

use crate::postgres;

thread_local! {
    static REST: RefCell<Rest> = const { RefCell::new(Rest::new()) };
}

/// Does what `epoll_wait` does, by `real`. `events` gives those it has found, so many as it has returned.
pub(crate) fn epoll_wait<'e>(
    timeout: c_int,
    real: impl FnOnce() -> c_int,
    events: impl FnOnce(usize) -> &'e [epoll_event],
) -> c_int {
    if timeout == 0 || !postgres::sends_wal_that_nobody_waits_for() {
        return real();
    }
    // A thread that is ending has no memory of its own any more; it sends nothing either.
    let _ = REST.try_with(|rest| {
        if let Some(pause) = rest.borrow().before_wait(Instant::now()) {
            sleep(pause);
        }
    });
    let found = real();
    let by_latch = usize::try_from(found)
        .is_ok_and(|count| count > 0 && events(count).iter().all(postgres::is_latch_set));
    let _ = REST.try_with(|rest| rest.borrow_mut().woken(by_latch, Instant::now()));
    found
}

/// Sleeps, unless a signal comes that is handled: such as one to stop.
fn sleep(pause: Duration) {
    let errno = Errno::last();
    let nanoseconds = libc::c_long::from(pause.subsec_nanos());
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    // SAFETY: `time` is read only, and what is left of it is not asked for.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
    errno.set();
}
