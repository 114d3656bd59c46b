//! SIGTERM and SIGINT end the daemon cleanly; a second one ends it at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Exit code after a second signal during shutdown.
const EXIT_IMPATIENT: i32 = 1;

/// The signals that end the daemon, caught from now on.
pub struct StopSignals {
    signals: Signals,
}

impl StopSignals {
    /// Starts to catch them. Called before any thread is started, so that none is lost.
    pub fn install() -> io::Result<StopSignals> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the second signal finds the flag that the first one has set.
            flag::register_conditional_shutdown(signal, EXIT_IMPATIENT, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&stopping))?;
        }
        Ok(StopSignals { signals: Signals::new([SIGTERM, SIGINT])? })
    }

    /// Blocks until one comes and returns its name.
    pub fn wait(&mut self) -> &'static str {
        match self.signals.forever().next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        }
    }
}
