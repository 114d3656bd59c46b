//! Threads that look from time to time whether there is something to do, until they are to end.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What such a thread listens to while it waits.
#[derive(Default)]
pub(crate) struct Bell {
    // LOCK ORDER: a leaf; held for a moment.
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    changed: bool,
}

impl Bell {
    /// Ends the next wait at once, or the one that is under way.
    pub fn look_again(&self) {
        self.state.lock().changed = true;
        self.rung.notify_one();
    }

    /// Waits so long, or until somebody rings. `false`: it is over.
    pub fn wait(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.stopped && !state.changed {
            self.rung.wait_for(&mut state, pause);
        }
        state.changed = false;
        !state.stopped
    }

    /// Waits so long, whoever rings. `false`: it is over.
    pub fn rest(&self, pause: Duration) -> bool {
        let began = Instant::now();
        let mut state = self.state.lock();
        loop {
            let left = pause.saturating_sub(began.elapsed());
            if state.stopped || left.is_zero() {
                return !state.stopped;
            }
            self.rung.wait_for(&mut state, left);
        }
    }

    /// Whether it is over.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.rung.notify_one();
    }
}

/// The thread; none if there is nothing for it to do.
#[derive(Default)]
pub(crate) struct Background(Mutex<Option<JoinHandle<()>>>);

impl Background {
    /// Starts it. `work` is to end when its bell says that it is over.
    pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Background> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Background(Mutex::new(Some(thread))))
    }

    /// Rings its bell for the last time and waits for it. `false`: it has panicked.
    pub fn stop(&self, bell: &Bell) -> bool {
        bell.stop();
        let thread = self.0.lock().take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_thread_looks_when_the_bell_rings_and_ends_when_it_is_stopped() {
        let bell = Arc::new(Bell::default());
        let (sender, looked) = channel();
        let own = bell.clone();
        let thread = Background::start("test", move || {
            while own.wait(LONG) {
                sender.send(()).unwrap();
            }
            assert!(!own.rest(LONG));
        });
        let thread = thread.unwrap();
        for _ in 0..3 {
            bell.look_again();
            looked.recv().unwrap();
        }
        assert!(!bell.is_stopped() && bell.rest(Duration::ZERO));
        assert!(thread.stop(&bell) && thread.stop(&bell));
        assert!(bell.is_stopped() && looked.recv().is_err());
    }
}
