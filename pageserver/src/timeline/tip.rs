//! `Tip`: turns what a record changes into steps for the index, knowing the sizes at the end.

use std::collections::HashMap;

use bytes::Bytes;
use postgres_formats::{ForkNumber, Lsn, TransactionId};

use super::Timeline;
use crate::index::{DbEvent, IndexOp, Version};
use crate::ingest::{Change, SlruTruncation};
use crate::object::{DbTag, ObjectPage, ObjectTag};

/// Sizes kept at most before they are looked up anew.
const SIZES_MAX: usize = 1 << 20;

/// The sizes of objects at the end of the WAL, looked up once and then kept in step.
#[derive(Default)]
pub(super) struct Tip {
    sizes: HashMap<ObjectTag, Option<u32>>,
}

/// Where in the WAL the record stands whose changes are applied.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub start: Lsn,
    pub end: Lsn,
}

impl Tip {
    /// The object's size as of the steps in the index and those resolved since.
    fn size(&mut self, timeline: &Timeline, object: ObjectTag) -> Option<u32> {
        *self.sizes.entry(object).or_insert_with(|| timeline.object_size(object, Lsn::MAX))
    }

    /// Bounds the memory used. To be called when all steps resolved so far are in the index.
    pub(super) fn trim(&mut self) {
        if self.sizes.len() >= SIZES_MAX {
            self.sizes.clear();
        }
    }

    fn set_size(
        &mut self,
        object: ObjectTag,
        lsn: Lsn,
        size: Option<u32>,
        cut: bool,
        ops: &mut Vec<IndexOp>,
    ) {
        self.sizes.insert(object, size);
        ops.push(IndexOp::Size { object, lsn, size, cut });
    }

    fn add_version(
        &mut self,
        timeline: &Timeline,
        page: ObjectPage,
        version: Version,
        ops: &mut Vec<IndexOp>,
    ) {
        let size = self.size(timeline, page.object);
        if size.is_none_or(|size| size <= page.block.0) {
            let grown = Some(page.block.0.saturating_add(1));
            self.set_size(page.object, version.end(), grown, false, ops);
        }
        ops.push(IndexOp::Version { page, version });
    }

    /// Whether this change can be resolved only once all steps before it are in the index: sizes
    /// of a whole database change at once, or a whole list of objects is needed.
    pub(super) fn needs_index_in_step(change: &Change) -> bool {
        matches!(
            change,
            Change::DbCreate { .. }
                | Change::DbCopy { .. }
                | Change::DbDrop { .. }
                | Change::SlruTruncate(_)
        )
    }

    /// Resolves one change into steps. `newest_clog_page`: of the last transaction id in use.
    pub(super) fn resolve(
        &mut self,
        timeline: &Timeline,
        at: At,
        change: Change,
        newest_clog_page: u32,
        ops: &mut Vec<IndexOp>,
    ) {
        let lsn = at.end;
        match change {
            Change::Page { rel, block, will_init } => {
                let page = ObjectPage { object: ObjectTag::Rel(rel), block };
                let version = Version::new(at.start, at.end, will_init, false);
                self.add_version(timeline, page, version, ops);
            }
            Change::NativePage { key, will_init, must_exist } => {
                let page = ObjectPage::from(key);
                let size = self.size(timeline, page.object);
                if !must_exist || size.is_some_and(|size| size > page.block.0) {
                    let version = Version::new(at.start, at.end, will_init, true);
                    self.add_version(timeline, page, version, ops);
                }
            }
            Change::RelCreate { rel } => {
                let object = ObjectTag::Rel(rel);
                if self.size(timeline, object).is_none() {
                    self.set_size(object, lsn, Some(0), true, ops);
                }
            }
            Change::RelTruncate { rel, nblocks } => {
                let object = ObjectTag::Rel(rel);
                if self.size(timeline, object).is_some_and(|size| size > nblocks.0) {
                    self.set_size(object, lsn, Some(nblocks.0), true, ops);
                }
            }
            Change::RelDrop { rel } => {
                for object in ForkNumber::ALL.map(|fork| ObjectTag::Rel(rel.fork(fork))) {
                    if self.size(timeline, object).is_some() {
                        self.set_size(object, lsn, None, true, ops);
                    }
                }
            }
            Change::DbCreate { spc, db } => {
                self.change_database(DbTag { spc, db }, lsn, DbEvent::Created, ops);
            }
            Change::DbCopy { from: (from_spc, from_db), to: (spc, db) } => {
                let from = DbTag { spc: from_spc, db: from_db };
                self.change_database(DbTag { spc, db }, lsn, DbEvent::CopyOf(from), ops);
            }
            Change::DbDrop { spc, db } => {
                self.change_database(DbTag { spc, db }, lsn, DbEvent::Dropped, ops);
            }
            Change::RelMap { spc, db, map } => {
                let tag = DbTag { spc, db };
                ops.push(IndexOp::RelMap { tag, lsn, map: detached(&map) });
            }
            Change::SlruTruncate(truncation) => {
                self.truncate_slru(timeline, lsn, truncation, newest_clog_page, ops);
            }
            Change::TwoPhasePrepare { xid: TransactionId(xid), data } => {
                ops.push(IndexOp::TwoPhase { xid, lsn, state: Some(detached(&data)) });
            }
            Change::TwoPhaseFinish { xid: TransactionId(xid) } => {
                ops.push(IndexOp::TwoPhase { xid, lsn, state: None });
            }
            Change::XactEnd { time, .. } => ops.push(IndexOp::XactEnd { lsn, time }),
        }
    }

    fn change_database(&mut self, tag: DbTag, lsn: Lsn, event: DbEvent, ops: &mut Vec<IndexOp>) {
        self.sizes.retain(|object, _| object.database() != Some(tag));
        ops.push(IndexOp::Database { tag, lsn, event });
    }

    fn truncate_slru(
        &mut self,
        timeline: &Timeline,
        lsn: Lsn,
        truncation: SlruTruncation,
        newest_clog_page: u32,
        ops: &mut Vec<IndexOp>,
    ) {
        use postgres_formats::slru::SlruKind;
        // PostgreSQL's own guard against a wraparound that has already happened; its redo has it
        // for the commit log only.
        let newest = (truncation.kind == SlruKind::Clog).then_some(newest_clog_page);
        for (segment, _) in timeline.slru_segments(truncation.kind, Lsn::MAX) {
            if truncation.removes(segment, newest) {
                let object = ObjectTag::Slru { kind: truncation.kind, segment };
                self.set_size(object, lsn, None, true, ops);
            }
        }
    }
}

/// A copy that does not keep the received block of WAL in memory.
fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
