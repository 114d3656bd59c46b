//! The client amid signals, as in a PostgreSQL backend. Alone in its program, for signals concern
//! the whole process.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::ptr;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use postgres_wire::client::Connection;
use support::{TestServer, timeouts};

extern "C" fn do_nothing(_: libc::c_int) {}

/// A timer that interrupts system calls every few hundred microseconds.
fn set_timer(microseconds: i64) {
    let step = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: step, it_value: step };
    // SAFETY: `timer` is valid for the call, and the old value is not asked for.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) }, 0);
}

#[test]
fn interrupted_calls_go_on_and_broken_pipes_do_not_kill() {
    let no_restart =
        SigAction::new(SigHandler::Handler(do_nothing), SaFlags::empty(), SigSet::empty());
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing; the default action of SIGPIPE is what C programs have.
    unsafe {
        sigaction(Signal::SIGALRM, &no_restart).unwrap();
        sigaction(Signal::SIGPIPE, &default).unwrap();
    }
    let server = TestServer::start();
    set_timer(300);
    for params in [server.unix_params(), server.tcp_params()] {
        let mut connection = Connection::connect(&params, timeouts()).unwrap();
        for _ in 0..200 {
            assert_eq!(connection.simple_query("rows 50").unwrap().len(), 50);
        }
        let mut copy = connection.copy_both("reflect").unwrap();
        let page = [3u8; 8192];
        for _ in 0..1000 {
            copy.send(&[&page]).unwrap();
        }
        for _ in 0..1000 {
            assert_eq!(copy.recv().unwrap().unwrap().len(), 8194);
        }
    }
    set_timer(0);

    // The server goes; writing to it is an error, not a signal.
    let mut copy = server.connect().copy_both("reflect").unwrap();
    server.stop();
    let page = [3u8; 1 << 20];
    let failed = (0..3).any(|_| copy.send(&[&page]).and_then(|()| copy.flush()).is_err());
    assert!(failed);
}
