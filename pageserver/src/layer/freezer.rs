//! `LayerShared`: what all timelines of a repository have in common about layers, and the threads that
//! write them, merge them and make images.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;
use slog::Logger;

use super::source::LayerFiles;
use crate::error_text::with_causes;
use crate::memory::SharedMemory;
use crate::repository::Retention;
use crate::timeline::{FreezeError, Timeline, look_after};
use crate::wal::open_segments::OpenSegments;
use crate::work::Works;

/// What could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often the debt of all timelines is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The timelines that are loaded.
type Loaded = Arc<Mutex<Vec<Weak<Timeline>>>>;

/// How layers are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerOptions {
    /// A stretch of history is written as a layer when it has this many bytes of WAL.
    pub stretch_bytes: u64,
    /// Bound of the memory for blocks of layers that were read.
    pub cache_bytes: u64,
    /// How many bytes of WAL are kept that are in layers; `None`: all.
    pub keep_wal_bytes: Option<u64>,
    /// But so many at least: what is compared with a server before its WAL is taken.
    pub keep_wal_bytes_min: u64,
    /// Bound of the memory for indexes of WAL that is not in layers, over all timelines.
    pub memory_bytes: u64,
    /// A stretch is written as a layer after this time at the latest.
    pub age_max: Duration,
    /// An image is made when the deltas above the last one have this many percent of its bytes. 0: never.
    pub image_percent: u32,
    /// An image is written in pieces that stand for so many bytes of pages each.
    pub image_piece_bytes: u64,
    /// Where more than so many records of a page follow each other when layers are merged, the page stands in
    /// the place of one. PostgreSQL's redo does some 400 of the smallest in a millisecond, and so many take as
    /// much space as two or three pages.
    pub chain_max: u32,
    /// No WAL is taken in when the disk has less free than this, so that what is left is there for
    /// whatever helps: layers, branches, and what an administrator does.
    pub reserve_bytes: u64,
    /// So many WAL segments, and so many layers, are kept open for reading, over all timelines.
    pub open_files_max: usize,
    /// Whether threads write layers, merge them and make images when that is due. Without, all of it is done by
    /// those who ask for it, so that operations on files have one order.
    pub in_background: bool,
    /// How much history is kept when layers are collected.
    pub retention: Retention,
}

impl Default for LayerOptions {
    fn default() -> LayerOptions {
        LayerOptions {
            stretch_bytes: 64 << 20,
            cache_bytes: 192 << 20,
            keep_wal_bytes: Some(0),
            keep_wal_bytes_min: 1 << 20,
            memory_bytes: 256 << 20,
            age_max: Duration::from_secs(300),
            image_percent: 100,
            image_piece_bytes: 1 << 30,
            chain_max: 256,
            reserve_bytes: 16 << 20,
            open_files_max: 512,
            in_background: true,
            retention: Retention::default(),
        }
    }
}

/// What the timelines of a repository have in common about their files.
pub struct LayerShared {
    /// The options.
    pub options: LayerOptions,
    /// Layers that are open, and blocks of them that were read.
    pub files: LayerFiles,
    /// What is being done about layers just now.
    pub works: Works,
    /// What closed stretches take that wait to be written, of all timelines.
    pub(crate) waiting_memory: Arc<SharedMemory>,
    /// WAL segments that are open.
    pub segments: Arc<OpenSegments>,
    /// Timelines with a stretch to be written go here; `None`: nothing is written any more.
    // LOCK ORDER: a leaf, held for a moment.
    to_write: Mutex<Option<Sender<Weak<Timeline>>>>,
    /// Those whose debt is looked at.
    // LOCK ORDER: a leaf, held for a moment.
    loaded: Loaded,
}

/// How nice the thread is that merges layers and makes images: it gets a tenth of what others get
/// who want a processor as well.
const TIDY_NICENESS: i32 = 10;

/// A thread that takes in timelines.
fn start_thread(
    name: &str,
    log: &Logger,
    work: impl FnOnce(&Receiver<Weak<Timeline>>, &Logger) + Send + 'static,
) -> Option<Sender<Weak<Timeline>>> {
    let (sender, receiver) = unbounded();
    let of_thread = log.clone();
    let thread = thread::Builder::new().name(name.to_owned());
    match thread.spawn(move || work(&receiver, &of_thread)) {
        Ok(_) => Some(sender),
        Err(error) => {
            slog::error!(log, "cannot start a thread; nothing is done about layers";
                "thread" => name, "error" => %error);
            None
        }
    }
}

impl LayerShared {
    /// Starts the thread that writes layers, and one that merges them and makes images: one thing at a
    /// time, over all timelines. They end with `stop`, or when nobody has this any more.
    pub fn start(options: LayerOptions, log: &Logger) -> Arc<LayerShared> {
        let loaded = Loaded::default();
        let to_write = options.in_background.then(|| {
            let to_tidy = start_thread("tidy", log, tidy_layers);
            let looked_after = loaded.clone();
            let write = move |timelines: &_, log: &_| {
                write_layers(timelines, to_tidy.as_ref(), &looked_after, options, log);
            };
            start_thread("layers", log, write)
        });
        Arc::new(LayerShared {
            options,
            files: LayerFiles::new(options.open_files_max, options.cache_bytes),
            works: Works::default(),
            waiting_memory: Arc::default(),
            segments: OpenSegments::new(options.open_files_max),
            to_write: Mutex::new(to_write.flatten()),
            loaded,
        })
    }

    /// Looks after the debt of `timeline` from now on.
    pub(crate) fn look_after(&self, timeline: &Arc<Timeline>) {
        self.loaded.lock().push(Arc::downgrade(timeline));
    }

    /// Whether of any timeline more WAL comes than is written as layers.
    pub(crate) fn is_ingest_behind(&self) -> bool {
        let loaded: Vec<_> = self.loaded.lock().iter().filter_map(Weak::upgrade).collect();
        loaded.iter().any(|timeline| timeline.is_behind())
    }

    /// Has the closed stretches of `timeline` written soon.
    pub(crate) fn write_soon(&self, timeline: Weak<Timeline>) {
        if let Some(sender) = &*self.to_write.lock() {
            // Nobody is there to receive it only at the very end.
            let _ = sender.send(timeline);
        }
    }

    /// Ends the threads, once they have done what they are about.
    pub fn stop(&self) {
        self.to_write.lock().take();
    }
}

/// Merges layers and makes images where layers were written. What fails is tried again when another layer
/// of that timeline has been written; what was put off, when nothing has been written for a while.
///
/// Whoever works on this machine, a compute above all, goes first: nobody waits for merged layers.
fn tidy_layers(timelines: &Receiver<Weak<Timeline>>, log: &Logger) {
    // Of this thread only, as Linux has it (setpriority(2)).
    if let Err(error) = rustix::process::setpriority_process(None, TIDY_NICENESS) {
        slog::debug!(log, "layers are merged at normal priority"; "error" => %error);
    }
    let mut put_off = Vec::new();
    loop {
        // A timeline that got several layers meanwhile is seen to once.
        let mut due = match timelines.recv_timeout(RETRY_AFTER) {
            Ok(next) => vec![next],
            Err(RecvTimeoutError::Timeout) => std::mem::take(&mut put_off),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        due.extend(timelines.try_iter());
        due.dedup_by(|a, b| a.ptr_eq(b));
        for weak in due {
            let Some(timeline) = weak.upgrade() else { continue };
            match timeline.tidy() {
                Ok(()) => {}
                Err(FreezeError::GaveWay) => {
                    slog::info!(log, "layers are merged and images made later, for WAL comes first";
                        "timeline" => %timeline.id());
                    if !put_off.iter().any(|known: &Weak<Timeline>| known.ptr_eq(&weak)) {
                        put_off.push(weak);
                    }
                }
                Err(error) => {
                    slog::error!(log, "layers cannot be merged, nor an image made, for now: {}",
                        with_causes(&error); "timeline" => %timeline.id());
                }
            }
        }
    }
}

fn write_layers(
    timelines: &Receiver<Weak<Timeline>>,
    to_tidy: Option<&Sender<Weak<Timeline>>>,
    loaded: &Loaded,
    options: LayerOptions,
    log: &Logger,
) {
    let mut failed: Vec<Weak<Timeline>> = Vec::new();
    let (mut looked, mut tried) = (Instant::now(), Instant::now());
    loop {
        if looked.elapsed() >= LOOK_EVERY {
            look_after(loaded, options.age_max, options.memory_bytes);
            looked = Instant::now();
        }
        let next = match timelines.recv_timeout(LOOK_EVERY) {
            Ok(next) => vec![next],
            Err(RecvTimeoutError::Timeout) if tried.elapsed() < RETRY_AFTER => continue,
            Err(RecvTimeoutError::Timeout) => {
                tried = Instant::now();
                std::mem::take(&mut failed)
            }
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
            } else if let Some(to_tidy) = to_tidy {
                // That thread ends after this one.
                let _ = to_tidy.send(timeline);
            }
        }
    }
}
