//! `Shared`: what the drivers of a pool have in common.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::config::WalRedoConfig;
use crate::managers::CustomManagers;
use crate::process::StartError;
use crate::queues::Queues;
use crate::stats::Counters;

/// What all drivers of a pool share.
pub struct Shared {
    /// The pool's configuration.
    pub config: WalRedoConfig,
    /// Readable when the pool is being dropped.
    pub stop: UnixStream,
    /// Drivers that have a process.
    pub ready: AtomicUsize,
    /// Drivers that have a process or are to have one; the others wait until they are needed.
    running: AtomicUsize,
    /// Jobs that no process has.
    pub queues: Queues,
    /// What the first process had to say of resource managers; all load the same libraries.
    pub custom: OnceLock<CustomManagers>,
    /// Why no process starts, since the last that did.
    // LOCK ORDER: leaf; held only to replace or copy it.
    pub failure: Mutex<Option<String>>,
    /// What happened so far.
    pub counters: Counters,
}

impl Shared {
    /// Of a pool in which all drivers are to have a process at first. `stop` becomes readable when it is
    /// being dropped.
    pub fn new(config: WalRedoConfig, stop: UnixStream, queues: Queues) -> Shared {
        Shared {
            stop,
            ready: AtomicUsize::new(0),
            running: AtomicUsize::new(config.processes),
            queues,
            custom: OnceLock::new(),
            failure: Mutex::default(),
            counters: Counters::default(),
            config,
        }
    }

    /// How many drivers have a process or are to have one.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Whether one more driver may have a process; it counts from now on.
    pub fn enlist(&self) -> bool {
        let max = self.config.processes;
        let more = |running: usize| (running < max).then_some(running + 1);
        self.running.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Whether an idle driver may end its process; it does not count any more.
    pub fn retire(&self) -> bool {
        let min = self.config.processes_min.max(1);
        let fewer = |running: usize| (running > min).then(|| running - 1);
        self.running.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
    }

    /// Why no process runs; `None` if one does or may do so soon.
    pub fn start_failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // A driver may be alone with its failure.
        failure.clone().filter(|_| self.ready.load(Ordering::SeqCst) == 0)
    }

    /// Replaces the reason.
    pub fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// An error with the libraries that may be its cause.
    pub fn explain(&self, error: &StartError) -> String {
        match self.config.libraries.join(", ") {
            libraries if libraries.is_empty() => error.to_string(),
            libraries => format!("{error}; it has to load {libraries}"),
        }
    }
}
