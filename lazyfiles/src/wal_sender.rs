//! `Rest`: how often the WAL sender that serves the page server wakes up.
//!
//! Each commit wakes every WAL sender (`WalSndWakeup`), which then reads and sends a few hundred bytes.
//! Where commits do not wait for the page server, nobody needs that so soon, and it costs the server as
//! much as a tenth of a small transaction: a signal, two switches of context, a read, a send. So a WAL
//! sender that has just been woken up sleeps a little before it waits again. Whoever commits meanwhile
//! finds its latch set already and sends no signal either (`SetLatch`).
//!
//! One that was woken up by its socket, which has room again or something to read, sleeps no more: it may have
//! been held up already, or be asked something.

use std::time::{Duration, Instant};

/// How far apart it is woken up, at least.
const EVERY: Duration = Duration::from_millis(10);

/// What a WAL sender's wait for its latch and its socket ended with last.
#[derive(Debug, Default)]
pub struct Rest {
    woken: Option<Instant>,
}

impl Rest {
    /// Of one that has not waited yet.
    pub const fn new() -> Rest {
        Rest { woken: None }
    }

    /// How long to sleep before the next wait.
    pub fn before_wait(&self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.woken?);
        EVERY.checked_sub(since).filter(|left| !left.is_zero())
    }

    /// A wait has ended: `by_latch` if by nothing else, such as the socket or time.
    pub fn woken(&mut self, by_latch: bool, now: Instant) {
        self.woken = by_latch.then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_between_two_wake_ups_by_the_latch_only() {
        let now = Instant::now();
        let mut rest = Rest::default();
        assert_eq!(rest.before_wait(now), None, "it has not been woken up yet");
        rest.woken(true, now);
        assert_eq!(rest.before_wait(now), Some(EVERY));
        assert_eq!(rest.before_wait(now + EVERY / 4), Some(EVERY * 3 / 4));
        assert_eq!(rest.before_wait(now + EVERY), None);
        assert_eq!(rest.before_wait(now + 3 * EVERY), None);
        rest.woken(false, now);
        assert_eq!(rest.before_wait(now), None, "it was held up, or asked something");
    }
}
