//! Signals that would end the program where something has to be cleaned up first.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Makes signals that would end us set a flag instead. Handlers, unlike ignored signals, are not
/// inherited by programs that we start.
pub fn catch_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let caught = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&caught)).context("catch signals")?;
    }
    Ok(caught)
}
