//! `OpenSegments`: how many segment files the WAL stores of all timelines keep open together.
//!
//! Each store has a table of its own open files and finds a file there without asking anybody. Only
//! when a file has been opened, one too many is looked for over all stores: the one that was opened
//! first, unless it has been read since it was last looked at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use durable_files::File;
use parking_lot::Mutex;
use postgres_formats::lsn::SegmentNumber;

/// A file, and whether it has been read since somebody looked for one to close.
pub(super) struct Opened {
    pub(super) file: Arc<File>,
    pub(super) used: bool,
}

/// The open files of one store.
// LOCK ORDER: after the queue of `OpenSegments`, before the state of its store. A segment not yet open is opened under it: that is
// short and rare, and so nobody keeps a file that is being put aside.
pub(super) type Table = Mutex<BTreeMap<SegmentNumber, Opened>>;

/// Bounds the open files of all stores.
pub struct OpenSegments {
    max: usize,
    /// Every open file, in the order in which they are looked at; some may have been closed since.
    // LOCK ORDER: before the tables; no file is opened under it, and none closed for good.
    queue: Mutex<VecDeque<(Weak<Table>, SegmentNumber)>>,
}

impl OpenSegments {
    /// At most `max` files, and at least one.
    pub fn new(max: usize) -> Arc<OpenSegments> {
        Arc::new(OpenSegments { max: max.max(1), queue: Mutex::default() })
    }

    /// How many are open, or have been a moment ago.
    pub fn count(&self) -> usize {
        self.queue.lock().len()
    }

    /// A segment has been put into a table. Takes others out of theirs if that is one too many.
    pub(super) fn opened(&self, table: &Arc<Table>, segment: SegmentNumber) {
        let mut closed = Vec::new();
        let mut queue = self.queue.lock();
        queue.push_back((Arc::downgrade(table), segment));
        // Each gets one more chance; by then all have been looked at.
        let mut chances = queue.len();
        while queue.len() > self.max {
            let Some((weak, segment)) = queue.pop_front() else { break };
            let Some(table) = weak.upgrade() else { continue };
            let mut files = table.lock();
            match files.get_mut(&segment) {
                Some(opened) if opened.used && chances > 0 => {
                    chances -= 1;
                    opened.used = false;
                    drop(files);
                    queue.push_back((weak, segment));
                }
                Some(_) => closed.extend(files.remove(&segment)),
                None => {}
            }
        }
        drop(queue);
        // Closing is for whoever reads it last, perhaps us, and no lock is held for that.
        drop(closed);
    }
}
