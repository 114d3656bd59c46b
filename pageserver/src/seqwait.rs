//! `SeqWait`: threads wait until a position that only moves forward has reached theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use postgres_formats::Lsn;

/// Why a wait for an LSN ended without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
}

struct State {
    current: Lsn,
    shut_down: bool,
    /// Waiters by the position they want; the number keeps equal positions apart.
    waiters: BTreeMap<(Lsn, u64), Arc<Condvar>>,
    next_waiter: u64,
}

impl SeqWait {
    /// Begins at `start`.
    pub fn new(start: Lsn) -> SeqWait {
        SeqWait {
            state: Mutex::new(State {
                current: start,
                shut_down: false,
                waiters: BTreeMap::new(),
                next_waiter: 0,
            }),
        }
    }

    /// How far the position has come.
    pub fn current(&self) -> Lsn {
        self.state.lock().current
    }

    /// Moves the position forward to `to` and wakes those who wait for it or less. A position
    /// already passed changes nothing.
    pub fn advance(&self, to: Lsn) {
        let mut state = self.state.lock();
        if to <= state.current {
            return;
        }
        state.current = to;
        while let Some(first) = state.waiters.first_entry() {
            if first.key().0 > to {
                break;
            }
            first.remove().notify_one();
        }
    }

    /// Waits until the position is at least `wanted`.
    ///
    /// # Errors
    /// `Timeout` after `timeout`; `ShuttingDown` once `shut_down` was called, also for a wait that
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
        loop {
            if state.shut_down {
                state.waiters.remove(&key);
                return Err(WaitError::ShuttingDown { wanted });
            }
            state.waiters.entry(key).or_insert_with(|| condvar.clone());
            let timed_out = match deadline {
                Some(deadline) => condvar.wait_until(&mut state, deadline).timed_out(),
                None => {
                    condvar.wait(&mut state);
                    false
                }
            };
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

    /// Ends every wait, those to come included.
    pub fn shut_down(&self) {
        let mut state = self.state.lock();
        state.shut_down = true;
        for condvar in state.waiters.values() {
            condvar.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
