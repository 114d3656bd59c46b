//! `LayerShared`: what all timelines of a repository have in common about layers, and the thread that
//! writes them.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use layers::BlockCache;
use parking_lot::Mutex;
use slog::Logger;

use crate::error_text::with_causes;
use crate::timeline::Timeline;

/// What could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How layers are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerOptions {
    /// A stretch of history is written as a layer when it has this many bytes of WAL.
    pub stretch_bytes: u64,
    /// Bound of the memory for blocks of layers that were read.
    pub cache_bytes: u64,
}

impl Default for LayerOptions {
    fn default() -> LayerOptions {
        LayerOptions { stretch_bytes: 64 << 20, cache_bytes: 64 << 20 }
    }
}

/// What the timelines of a repository have in common about layers.
pub struct LayerShared {
    /// The options.
    pub options: LayerOptions,
    /// Blocks of layers that were read.
    pub blocks: BlockCache,
    /// Timelines with a stretch to be written go here; `None`: nothing is written any more.
    // LOCK ORDER: a leaf, held for a moment.
    to_write: Mutex<Option<Sender<Weak<Timeline>>>>,
}

impl LayerShared {
    /// Starts the thread that writes layers. It ends with `stop`, or when nobody has this any more.
    pub fn start(options: LayerOptions, log: &Logger) -> Arc<LayerShared> {
        let (sender, receiver) = unbounded();
        let log = log.clone();
        let started = thread::Builder::new().name("layers".to_owned()).spawn({
            let log = log.clone();
            move || write_layers(&receiver, &log)
        });
        if let Err(error) = &started {
            slog::error!(log, "cannot start a thread; no layers are written"; "error" => %error);
        }
        Arc::new(LayerShared {
            options,
            blocks: BlockCache::new(options.cache_bytes),
            to_write: Mutex::new(started.is_ok().then_some(sender)),
        })
    }

    /// Has the closed stretches of `timeline` written soon.
    pub(crate) fn write_soon(&self, timeline: Weak<Timeline>) {
        if let Some(sender) = &*self.to_write.lock() {
            // Nobody is there to receive it only at the very end.
            let _ = sender.send(timeline);
        }
    }

    /// Ends the thread, once it has done what it is about.
    pub fn stop(&self) {
        self.to_write.lock().take();
    }
}

fn write_layers(timelines: &Receiver<Weak<Timeline>>, log: &Logger) {
    let mut failed: Vec<Weak<Timeline>> = Vec::new();
    loop {
        let next = match timelines.recv_timeout(RETRY_AFTER) {
            Ok(next) => vec![next],
            Err(RecvTimeoutError::Timeout) => std::mem::take(&mut failed),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for timeline in next {
            let Some(writing) = timeline.upgrade() else { continue };
            if let Err(error) = writing.write_layers() {
                slog::error!(log, "a layer cannot be written, tried again soon: {}",
                    with_causes(&error); "timeline" => %writing.id());
                if !failed.iter().any(|known| known.ptr_eq(&timeline)) {
                    failed.push(timeline);
                }
            }
        }
    }
}
