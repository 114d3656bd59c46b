//! Unloading: a timeline that nobody has used for a while, or that is one too many, leaves memory.
//!
//! Unloading a timeline is what the end of the process is for all of them: what was received is durable
//! before, and whoever wants the timeline again loads it from its files. Two objects for one timeline
//! are never there: the last reference is given up under the slot's lock, and only if it is the last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use postgres_formats::TimelineId;

use super::Repository;
use crate::timeline::Timeline;
use crate::work::Works;

/// How often is looked for timelines to unload, at least and at most.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(30);

/// Which timelines stay in memory that nobody uses at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnloadOptions {
    /// Those that somebody has used within this time.
    pub idle: Duration,
    /// And no more than make so many with those in use: the longest unused go first.
    pub loaded_max: usize,
}

impl Default for UnloadOptions {
    fn default() -> UnloadOptions {
        UnloadOptions { idle: Duration::from_secs(300), loaded_max: 500 }
    }
}

/// The place of a timeline that is loaded, or being loaded, or not loaded now.
pub(super) struct Slot {
    pub timeline: Mutex<Option<Arc<Timeline>>>,
    /// When it was last seen in use, in milliseconds since the repository was opened.
    used: AtomicU64,
}

/// The thread that unloads.
pub(super) struct Unloader {
    options: UnloadOptions,
    wake: Sender<()>,
}

impl Slot {
    pub fn new() -> Slot {
        Slot { timeline: Mutex::new(None), used: AtomicU64::new(0) }
    }

    fn used_at(&self, milliseconds: u64) {
        self.used.fetch_max(milliseconds, Ordering::Relaxed);
    }

    /// Lets go of the timeline if nobody else has it and loading it again gives the same.
    fn unload(&self) -> bool {
        // Who is loading it or asking for it wants it.
        let Some(mut loaded) = self.timeline.try_lock() else { return false };
        let Some(timeline) = loaded.take() else { return false };
        if Arc::strong_count(&timeline) > 1 || !timeline.can_be_unloaded() {
            *loaded = Some(timeline);
            return false;
        }
        // Those that write layers may have come by a reference without the slot.
        match Arc::try_unwrap(timeline) {
            Ok(timeline) => {
                drop(loaded);
                // Its index may be large, and giving that back takes a while.
                drop(timeline);
                true
            }
            Err(timeline) => {
                *loaded = Some(timeline);
                false
            }
        }
    }
}

impl Repository {
    /// Unloads timelines from now on, on a thread of its own that ends with the repository. To be
    /// called once.
    pub fn unload_in_background(self: &Arc<Repository>, options: UnloadOptions) {
        let (wake, woken) = bounded(1);
        let repository = Arc::downgrade(self);
        let thread = thread::Builder::new().name("unload".to_owned());
        match thread.spawn(move || unload(&repository, options, &woken)) {
            Ok(_) => drop(self.unloader.set(Unloader { options, wake })),
            Err(error) => {
                slog::error!(self.log, "cannot start a thread; all timelines stay in memory";
                    "error" => %error);
            }
        }
    }

    /// Takes note that a timeline is asked for.
    pub(super) fn note_use(&self, slot: &Slot) {
        slot.used_at(self.milliseconds(Instant::now()));
    }

    /// Takes note that a timeline has been loaded.
    pub(super) fn note_load(&self) {
        let loaded = self.loaded.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(unloader) = self.unloader.get()
            && loaded > unloader.options.loaded_max
        {
            // If it has been woken already, that is enough.
            let _ = unloader.wake.try_send(());
        }
    }

    /// Takes note that a timeline is loaded no more.
    pub(super) fn note_unload(&self) {
        self.loaded.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether of any timeline more WAL comes than is written as layers.
    pub fn is_ingest_behind(&self) -> bool {
        self.layers.is_ingest_behind()
    }

    /// How many timelines are loaded.
    pub fn loaded_count(&self) -> usize {
        self.loaded.load(Ordering::Relaxed)
    }

    /// How many WAL segments are kept open, over all timelines.
    pub fn open_segments(&self) -> usize {
        self.layers.segments.count()
    }

    /// What is being done about layers just now, over all timelines.
    pub fn works(&self) -> &Works {
        &self.layers.works
    }

    /// How many layers are kept open, over all timelines.
    pub fn open_layers(&self) -> usize {
        self.layers.files.open_count()
    }

    /// The slots, so that no shard is locked while one of them is.
    pub(super) fn slots(&self) -> Vec<(TimelineId, Arc<Slot>)> {
        self.timelines.iter().map(|entry| (*entry.key(), entry.value().clone())).collect()
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.opened);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Unloads what is to be unloaded at `now`. Gives how many timelines that were.
    pub fn unload_unused(&self, options: UnloadOptions, now: Instant) -> usize {
        let mut all = 0;
        loop {
            let unloaded = self.unload_once(options, now);
            all += unloaded;
            // What the unloaded ones stood on is in use no more.
            if unloaded == 0 || self.loaded_count() <= options.loaded_max {
                return all;
            }
        }
    }

    fn unload_once(&self, options: UnloadOptions, now: Instant) -> usize {
        let now = self.milliseconds(now);
        let mut unused = Vec::new();
        for (id, slot) in self.slots() {
            let Some(loaded) = slot.timeline.try_lock() else { continue };
            match &*loaded {
                Some(timeline) if Arc::strong_count(timeline) > 1 => slot.used_at(now),
                Some(_) => {
                    drop(loaded);
                    unused.push((slot.used.load(Ordering::Relaxed), id, slot));
                }
                None => {
                    drop(loaded);
                    drop(slot);
                    self.forget_slot(id);
                }
            }
        }
        unused.sort_unstable_by_key(|(used, id, _)| (*used, *id));
        let idle = u64::try_from(options.idle.as_millis()).unwrap_or(u64::MAX);
        let mut unloaded = 0;
        for (used, id, slot) in unused {
            let is_due = now.saturating_sub(used) >= idle;
            if (is_due || self.loaded_count() > options.loaded_max) && slot.unload() {
                self.note_unload();
                unloaded += 1;
                slog::info!(self.log, "timeline unloaded"; "timeline" => %id);
                drop(slot);
                self.forget_slot(id);
            }
        }
        unloaded
    }

    /// Removes an empty slot that nobody has at hand: a second one for the same timeline must not be
    /// filled beside it. Slots are handed out under the shard's lock only.
    pub(super) fn forget_slot(&self, id: TimelineId) {
        self.timelines.remove_if(&id, |_, slot| {
            Arc::strong_count(slot) == 1
                && slot.timeline.try_lock().is_some_and(|loaded| loaded.is_none())
        });
    }
}

/// The thread: looks whenever it is woken, and now and then.
fn unload(repository: &Weak<Repository>, options: UnloadOptions, woken: &Receiver<()>) {
    let pause = (options.idle / 4).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
    loop {
        match woken.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(repository) = repository.upgrade() else { return };
        repository.unload_unused(options, Instant::now());
    }
}
