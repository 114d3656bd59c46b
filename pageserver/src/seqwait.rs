//! `SeqWait`: threads wait until a position that only moves forward has reached theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use postgres_formats::Lsn;

use crate::stop::{Place, Stop};

/// How long a wait goes on when what a server sent could not be taken in: most often it is asked
/// for again at once, and then is good.
const RECEIVED_STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Why a wait for an LSN ended without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The time was up.
    #[error(
        "timed out after {} s waiting for LSN {wanted}: received up to {have} so far",
        waited.as_secs_f32()
    )]
    Timeout {
        /// What was waited for.
        wanted: Lsn,
        /// How far the position had come.
        have: Lsn,
        /// How long was waited.
        waited: Duration,
    },
    /// No more WAL is taken in.
    #[error("LSN {wanted} cannot be had: WAL {stop}")]
    Stopped {
        /// What was waited for.
        wanted: Lsn,
        /// Where and why.
        stop: Arc<Stop>,
    },
    /// The page server or the timeline is being shut down.
    #[error("shutting down while waiting for LSN {wanted}")]
    ShuttingDown {
        /// What was waited for.
        wanted: Lsn,
    },
}

/// A position that only moves forward, and those who wait for it.
///
/// Each waiter sleeps on its own condition variable, so that a step forward wakes only those
/// whose position it has reached.
pub struct SeqWait {
    // LOCK ORDER: leaf. Nothing else is taken, and nothing waited for, while it is held.
    state: Mutex<State>,
    /// Somebody begins to wait.
    wanted: Condvar,
}

struct State {
    current: Lsn,
    shut_down: bool,
    stopped: Option<Stopped>,
    /// Waiters by the position they want; the number keeps equal positions apart.
    waiters: BTreeMap<(Lsn, u64), Arc<Condvar>>,
    next_waiter: u64,
}

/// A stop, and until when waits go on nevertheless.
struct Stopped {
    stop: Arc<Stop>,
    waits_end: Instant,
}

impl SeqWait {
    /// Begins at `start`.
    pub fn new(start: Lsn) -> SeqWait {
        SeqWait {
            state: Mutex::new(State {
                current: start,
                shut_down: false,
                stopped: None,
                waiters: BTreeMap::new(),
                next_waiter: 0,
            }),
            wanted: Condvar::new(),
        }
    }

    /// How far the position has come.
    pub fn current(&self) -> Lsn {
        self.state.lock().current
    }

    /// Why the position moves no further for now.
    pub fn stop(&self) -> Option<Arc<Stop>> {
        self.state.lock().stopped.as_ref().map(|stopped| stopped.stop.clone())
    }

    /// The position moves no further for now: waits end with an error that says so, until it has
    /// moved beyond the stop after all. Tells whether this is news: another place or cause. What is
    /// wrong with the WAL on disk counts more than what comes from a server.
    pub fn stop_at(&self, stop: Stop) -> bool {
        let mut state = self.state.lock();
        let counts_more = |old: &Stop| old.place == Place::OnDisk && stop.place == Place::Received;
        if state.stopped.as_ref().is_some_and(|old| *old.stop == stop || counts_more(&old.stop)) {
            return false;
        }
        let patience = match stop.place {
            Place::Received => RECEIVED_STOP_PATIENCE,
            Place::OnDisk => Duration::ZERO,
        };
        let now = Instant::now();
        let waits_end = match &state.stopped {
            // Whatever else is found at the same place: those who wait have waited for it already.
            Some(old) if old.stop.lsn == stop.lsn && old.stop.place == stop.place => old.waits_end,
            _ => now.checked_add(patience).unwrap_or(now),
        };
        state.stopped = Some(Stopped { stop: Arc::new(stop), waits_end });
        for condvar in state.waiters.values() {
            condvar.notify_one();
        }
        true
    }

    /// Forgets a stop in WAL received from a server, or any stop if `any`. Gives it back.
    pub fn resume(&self, any: bool) -> Option<Arc<Stop>> {
        let mut state = self.state.lock();
        state
            .stopped
            .take_if(|stopped| any || stopped.stop.place == Place::Received)
            .map(|stopped| stopped.stop)
    }

    /// Moves the position forward to `to` and wakes those who wait for it or less. A position
    /// already passed changes nothing. A stop that is passed is none any more, and is given back.
    pub fn advance(&self, to: Lsn) -> Option<Arc<Stop>> {
        let mut state = self.state.lock();
        let passed = state.stopped.take_if(|stopped| stopped.stop.lsn < to);
        let passed = passed.map(|stopped| stopped.stop);
        if to <= state.current {
            return passed;
        }
        state.current = to;
        while let Some(first) = state.waiters.first_entry() {
            if first.key().0 > to {
                break;
            }
            first.remove().notify_one();
        }
        passed
    }

    /// Waits until the position is at least `wanted`.
    ///
    /// # Errors
    /// `Timeout` after `timeout`; `Stopped` where more will not come for now; `ShuttingDown` once `shut_down` was called, also for a wait that
    /// begins later, unless the position has been reached anyway.
    pub fn wait_for(&self, wanted: Lsn, timeout: Duration) -> Result<(), WaitError> {
        let mut state = self.state.lock();
        if state.current >= wanted {
            return Ok(());
        }
        let began = Instant::now();
        let deadline = began.checked_add(timeout);
        let key = (wanted, state.next_waiter);
        state.next_waiter += 1;
        let condvar = Arc::new(Condvar::new());
        self.wanted.notify_all();
        loop {
            if state.shut_down {
                state.waiters.remove(&key);
                return Err(WaitError::ShuttingDown { wanted });
            }
            let waits_end = state.stopped.as_ref().map(|stopped| stopped.waits_end);
            if let Some(stopped) = &state.stopped
                && stopped.waits_end <= Instant::now()
            {
                let stop = stopped.stop.clone();
                state.waiters.remove(&key);
                return Err(WaitError::Stopped { wanted, stop });
            }
            state.waiters.entry(key).or_insert_with(|| condvar.clone());
            let wake_at = deadline.into_iter().chain(waits_end).min();
            let timed_out = match wake_at {
                Some(wake_at) => condvar.wait_until(&mut state, wake_at).timed_out(),
                None => {
                    condvar.wait(&mut state);
                    false
                }
            };
            let timed_out = timed_out && wake_at == deadline;
            if state.current >= wanted {
                return Ok(());
            }
            if timed_out {
                state.waiters.remove(&key);
                let have = state.current;
                return Err(WaitError::Timeout { wanted, have, waited: began.elapsed() });
            }
        }
    }

    /// Returns when somebody waits for a position that has not been reached, at `deadline` at the
    /// latest: for whoever moves it, and need not hurry otherwise.
    pub fn rest_until(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while state.waiters.is_empty() && !state.shut_down {
            if self.wanted.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Ends every wait, those to come included.
    pub fn shut_down(&self) {
        let mut state = self.state.lock();
        state.shut_down = true;
        self.wanted.notify_all();
        for condvar in state.waiters.values() {
            condvar.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::StopKind;
    use std::thread;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn wakes_each_waiter_at_its_position() {
        let seq = Arc::new(SeqWait::new(Lsn::new(10)));
        let waiters: Vec<_> = [10, 20, 20, 30, 1000]
            .map(|n| {
                let seq = seq.clone();
                thread::spawn(move || (n, seq.wait_for(Lsn::new(n), LONG)))
            })
            .into_iter()
            .collect();
        seq.advance(Lsn::new(25));
        seq.advance(Lsn::new(5));
        seq.advance(Lsn::new(30));
        assert_eq!(seq.current(), Lsn::new(30));
        seq.shut_down();
        for waiter in waiters {
            let (n, result) = waiter.join().expect("waiter");
            assert_eq!(result.is_ok(), n <= 30, "{n}: {result:?}");
        }
        // Later waits: passed positions are still answered, others refused at once.
        assert!(seq.wait_for(Lsn::new(30), LONG).is_ok());
        assert_eq!(
            seq.wait_for(Lsn::new(31), LONG),
            Err(WaitError::ShuttingDown { wanted: Lsn::new(31) })
        );
        assert!(seq.state.lock().waiters.is_empty());
    }

    #[test]
    fn whoever_moves_it_rests_only_while_nobody_waits() {
        let seq = Arc::new(SeqWait::new(Lsn::new(10)));
        let far = Instant::now() + LONG;
        let mover = {
            let seq = seq.clone();
            thread::spawn(move || {
                seq.rest_until(far);
                seq.advance(Lsn::new(20));
            })
        };
        assert_eq!(seq.wait_for(Lsn::new(20), LONG), Ok(()));
        mover.join().expect("mover");
        assert!(Instant::now() < far);
        let soon = Instant::now() + Duration::from_millis(1);
        seq.rest_until(soon);
        assert!(Instant::now() >= soon, "nobody waits any more");
    }

    fn stop(lsn: u64, place: Place) -> Stop {
        Stop { lsn: Lsn::new(lsn), kind: StopKind::Damaged, place, cause: "bits".to_owned() }
    }

    #[test]
    fn a_stop_ends_waits_until_it_is_passed() {
        let seq = Arc::new(SeqWait::new(Lsn::new(10)));
        let waiter = {
            let seq = seq.clone();
            thread::spawn(move || seq.wait_for(Lsn::new(20), LONG))
        };
        assert!(seq.stop_at(stop(10, Place::OnDisk)));
        let error = waiter.join().expect("waiter").expect_err("it stopped");
        assert!(error.to_string().contains("0/14 cannot be had: WAL stopped at 0/A: bits"));
        assert!(!seq.stop_at(stop(10, Place::OnDisk)), "the same again is no news");
        // What is there is there, and what was there already passes no stop.
        assert!(seq.wait_for(Lsn::new(10), LONG).is_ok());
        assert_eq!(seq.advance(Lsn::new(10)), None);
        assert!(seq.advance(Lsn::new(20)).is_some());
        assert!(seq.wait_for(Lsn::new(20), LONG).is_ok() && seq.stop().is_none());
        assert!(seq.state.lock().waiters.is_empty());
    }

    #[test]
    fn what_was_received_badly_gets_another_chance() {
        let seq = Arc::new(SeqWait::new(Lsn::new(10)));
        seq.stop_at(stop(10, Place::Received));
        let waiter = {
            let seq = seq.clone();
            thread::spawn(move || seq.wait_for(Lsn::new(20), LONG))
        };
        seq.advance(Lsn::new(30));
        assert!(waiter.join().expect("waiter").is_ok());
        seq.stop_at(stop(30, Place::Received));
        let began = Instant::now();
        let result = seq.wait_for(Lsn::new(40), LONG);
        assert!(matches!(result, Err(WaitError::Stopped { .. })), "{result:?}");
        assert!(began.elapsed() < LONG / 2);
        // A client's own patience counts, too.
        seq.stop_at(stop(31, Place::Received));
        let result = seq.wait_for(Lsn::new(40), Duration::from_millis(1));
        assert!(matches!(result, Err(WaitError::Timeout { .. })), "{result:?}");
        assert!(seq.resume(false).is_some() && seq.stop().is_none());
    }

    #[test]
    fn a_timeout_names_both_positions() {
        let seq = SeqWait::new(Lsn::new(0x10));
        let error = seq
            .wait_for(Lsn::new(0x20), Duration::from_millis(1))
            .expect_err("nothing advances it");
        let text = error.to_string();
        assert!(text.contains("0/20") && text.contains("0/10"), "{text}");
        assert!(seq.state.lock().waiters.is_empty());
    }
}
