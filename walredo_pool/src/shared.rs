//! `Shared`: what the drivers of a pool have in common.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::config::WalRedoConfig;
use crate::managers::CustomManagers;
use crate::process::StartError;
use crate::stats::Counters;

/// What all drivers of a pool share.
pub struct Shared {
    /// The pool's configuration.
    pub config: WalRedoConfig,
    /// Readable when the pool is being dropped.
    pub stop: UnixStream,
    /// Drivers that have a process.
    pub ready: AtomicUsize,
    /// Drivers that wait for a job.
    pub idle: AtomicUsize,
    /// What the first process had to say of resource managers; all load the same libraries.
    pub custom: OnceLock<CustomManagers>,
    /// Why no process starts, since the last that did.
    // LOCK ORDER: leaf; held only to replace or copy it.
    pub failure: Mutex<Option<String>>,
    /// What happened so far.
    pub counters: Counters,
}

impl Shared {
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
