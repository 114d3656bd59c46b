//! `Works`: what is being done about the layers of which timeline just now, and how far it is.
//!
//! Only told, nothing is decided by it. A work is on the list for as long as its [`Work`] lives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use postgres_formats::{Lsn, TimelineId};

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkKind {
    /// Several delta layers become one that ends at the LSN; counted in entries.
    Merging,
    /// All there is at the LSN is written; counted in pages.
    Imaging,
    /// The same where a branch begins, so that it needs its ancestor no more.
    Detaching,
}

impl WorkKind {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            WorkKind::Merging => "merging",
            WorkKind::Imaging => "imaging",
            WorkKind::Detaching => "detaching",
        }
    }
}

impl fmt::Display for WorkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WorkKind::Merging => "merging layers up to",
            WorkKind::Imaging => "making an image at",
            WorkKind::Detaching => "detaching it at",
        })
    }
}

/// Something that is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkState {
    /// Of whose layers.
    pub timeline: TimelineId,
    /// What.
    pub kind: WorkKind,
    /// See `kind`.
    pub lsn: Lsn,
    /// How much of it is done; see `kind`.
    pub done: u64,
    /// How much there is to be done.
    pub total: u64,
}

impl WorkState {
    /// How far it is.
    pub fn percent(&self) -> u64 {
        self.done.min(self.total).saturating_mul(100).checked_div(self.total).unwrap_or(0)
    }
}

struct Entry {
    begun: WorkState,
    done: AtomicU64,
}

/// What is being done.
#[derive(Default)]
pub struct Works {
    // LOCK ORDER: a leaf, held for a moment.
    all: Arc<Mutex<Vec<Arc<Entry>>>>,
}

/// Something that is being done, by the one who does it.
pub struct Work {
    entry: Arc<Entry>,
    all: Arc<Mutex<Vec<Arc<Entry>>>>,
}

impl Works {
    /// Puts a work on the list of which nothing is done yet.
    pub fn begin(&self, timeline: TimelineId, kind: WorkKind, lsn: Lsn, total: u64) -> Work {
        let begun = WorkState { timeline, kind, lsn, done: 0, total };
        let entry = Arc::new(Entry { begun, done: AtomicU64::new(0) });
        self.all.lock().push(entry.clone());
        Work { entry, all: self.all.clone() }
    }

    /// All that is being done, the one first that was begun first.
    pub fn list(&self) -> Vec<WorkState> {
        let state = |entry: &Arc<Entry>| WorkState {
            done: entry.done.load(Ordering::Relaxed),
            ..entry.begun
        };
        self.all.lock().iter().map(state).collect()
    }
}

impl Work {
    /// So much of it is done.
    pub fn advance_to(&self, done: u64) {
        self.entry.done.store(done, Ordering::Relaxed);
    }

    /// So much more of it is done.
    pub fn advance(&self, by: u64) {
        self.entry.done.fetch_add(by, Ordering::Relaxed);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.all.lock().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_is_listed_while_it_lasts() {
        let works = Works::default();
        let timeline = TimelineId::from_bytes([7; 16]);
        let image = works.begin(timeline, WorkKind::Imaging, Lsn::new(8), 200);
        let merge = works.begin(timeline, WorkKind::Merging, Lsn::new(16), 0);
        image.advance(50);
        let percents: Vec<u64> = works.list().iter().map(WorkState::percent).collect();
        assert_eq!(percents, [25, 0]);
        drop(image);
        assert_eq!(works.list().first().map(|work| work.kind), Some(WorkKind::Merging));
        drop(merge);
        assert_eq!(works.list(), []);
    }
}
