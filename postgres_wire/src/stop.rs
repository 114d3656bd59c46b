//! `StopSignal`: asks every thread that waits on a socket to come back.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::socket::{Deadline, poll_readable};

/// A flag that can be waited for together with sockets. It fires once and stays fired; clones are
/// the same signal.
///
/// Behind the flag is a socket pair whose one end is shut down by `fire`. The other end is then
/// readable for ever, hence every `poll` that includes it returns, in however many threads.
#[derive(Clone, Debug)]
pub struct StopSignal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fired: AtomicBool,
    watched: UnixStream,
    trigger: UnixStream,
}

impl StopSignal {
    /// A signal that has not fired. Fails only if the process is out of file descriptors.
    pub fn new() -> io::Result<StopSignal> {
        let (watched, trigger) = UnixStream::pair()?;
        let inner = Inner { fired: AtomicBool::new(false), watched, trigger };
        Ok(StopSignal { inner: Arc::new(inner) })
    }

    /// Fires the signal; again is harmless.
    pub fn fire(&self) {
        if !self.inner.fired.swap(true, Ordering::SeqCst) {
            // The pair is ours and connected, so this cannot fail in a way that matters: were the
            // other end gone, it would be readable already.
            let _ = self.inner.trigger.shutdown(Shutdown::Both);
        }
    }

    /// Whether `fire` was called.
    pub fn is_fired(&self) -> bool {
        self.inner.fired.load(Ordering::SeqCst)
    }

    /// Waits until the signal fires or `timeout` is over; says whether it has fired.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        while !self.is_fired() {
            match poll_readable(self.as_fd(), deadline) {
                Ok(true) => {
                    // Nobody ever writes into the pair; readable means shut down. Reading keeps
                    // that claim honest instead of spinning should it be broken.
                    let _ = (&self.inner.watched).read(&mut [0]);
                }
                Ok(false) | Err(_) => break,
            }
        }
        self.is_fired()
    }
}

impl AsFd for StopSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.watched.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Instant;

    #[test]
    fn wakes_every_waiter_at_once() {
        let stop = StopSignal::new().unwrap();
        assert!(!stop.wait(Duration::from_millis(1)));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let waiters: Vec<_> =
                (0..4).map(|_| scope.spawn(|| stop.wait(Duration::from_secs(60)))).collect();
            stop.fire();
            stop.fire();
            assert!(waiters.into_iter().all(|w| w.join().unwrap()));
        });
        assert!(began.elapsed() < Duration::from_secs(30));
        assert!(stop.wait(Duration::ZERO));
    }
}
