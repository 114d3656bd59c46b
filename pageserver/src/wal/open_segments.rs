//! `OpenSegments`: how many segment files the WAL stores of all timelines keep open together.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use durable_files::File;
use parking_lot::Mutex;
use postgres_formats::lsn::SegmentNumber;

use crate::open_files::{OpenFiles, Place, Taken};

/// A file, and whether it has been read since somebody looked for one to close.
pub(super) struct Opened {
    pub(super) file: Arc<File>,
    pub(super) used: bool,
}

/// The open files of one store.
// LOCK ORDER: after the queue of `OpenFiles`, before the state of its store. A segment not yet open is opened under it: that is
// short and rare, and so nobody keeps a file that is being put aside.
pub(super) type Table = Mutex<BTreeMap<SegmentNumber, Opened>>;

/// One file of a store.
pub(super) struct InTable(Weak<Table>, SegmentNumber);

impl Place for InTable {
    type File = Opened;

    fn take(&self, unless_used: bool) -> Taken<Opened> {
        let InTable(table, segment) = self;
        let Some(table) = table.upgrade() else { return Taken::Nothing };
        let mut files = table.lock();
        match files.get_mut(segment) {
            Some(opened) if opened.used && unless_used => {
                opened.used = false;
                Taken::Used
            }
            Some(_) => files.remove(segment).map_or(Taken::Nothing, Taken::File),
            None => Taken::Nothing,
        }
    }
}

/// Bounds the open files of all stores.
pub struct OpenSegments(OpenFiles<InTable>);

impl OpenSegments {
    /// At most `max` files, and at least one.
    pub fn new(max: usize) -> Arc<OpenSegments> {
        Arc::new(OpenSegments(OpenFiles::new(max)))
    }

    /// How many are open, or have been a moment ago.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// A segment has been put into a table. Takes others out of theirs if that is one too many.
    pub(super) fn opened(&self, table: &Arc<Table>, segment: SegmentNumber) {
        self.0.opened(InTable(Arc::downgrade(table), segment));
    }
}
