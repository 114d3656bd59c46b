//! `Tip`: turns what a record changes into steps for the index, knowing the sizes at the end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::replication_origins::ReplicationOrigins;
use postgres_formats::{ForkNumber, Lsn, SlruKind, TransactionId};

use super::Timeline;
use super::error::TimelineError;
use crate::free_space;
use crate::index::{DbEvent, IndexOp, Version};
use crate::ingest::{Change, SlruTruncation};
use crate::key::PageKey;
use crate::object::{DbTag, ObjectPage, ObjectTag};

/// Sizes kept at most before they are looked up anew.
const SIZES_MAX: usize = 1 << 20;

/// The sizes of objects, and the progress of replication origins, at the end of the WAL: looked up
/// once and then kept in step.
#[derive(Default)]
pub(super) struct Tip {
    sizes: HashMap<ObjectTag, Option<u32>>,
    /// Looked up when the first origin makes progress.
    origins: Option<ReplicationOrigins>,
}

/// Where in the WAL the record stands whose changes are applied, and what was known just before.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub start: Lsn,
    pub end: Lsn,
    pub before: &'a CheckpointState,
}

impl Tip {
    /// The object's size as of the steps in the index and those resolved since.
    fn size(
        &mut self,
        timeline: &Timeline,
        object: ObjectTag,
    ) -> Result<Option<u32>, TimelineError> {
        match self.sizes.entry(object) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(unknown) => Ok(*unknown.insert(timeline.object_size(object, Lsn::MAX)?)),
        }
    }

    /// Bounds the memory used. To be called when all steps resolved so far are in the index.
    pub(super) fn trim(&mut self) {
        if self.sizes.len() >= SIZES_MAX {
            self.sizes.clear();
        }
    }

    fn origins(&mut self, timeline: &Timeline) -> Result<&mut ReplicationOrigins, TimelineError> {
        let known = match self.origins.take() {
            Some(known) => known,
            None => timeline.replication_origins(Lsn::MAX)?,
        };
        Ok(self.origins.insert(known))
    }

    fn set_origin(
        &mut self,
        timeline: &Timeline,
        origin: u16,
        lsn: Lsn,
        remote_lsn: Option<Lsn>,
        ops: &mut Vec<IndexOp>,
    ) -> Result<(), TimelineError> {
        let origins = self.origins(timeline)?;
        match remote_lsn {
            Some(remote_lsn) => origins.insert(origin, remote_lsn),
            None => origins.remove(&origin),
        };
        ops.push(IndexOp::Origin { origin, lsn, remote_lsn });
        Ok(())
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
    ) -> Result<(), TimelineError> {
        let size = self.size(timeline, page.object)?;
        if size.is_none_or(|size| size <= page.block.0) {
            let mut grown = page.block.0.saturating_add(1);
            if free_space::table_of_map(page.object).is_some() {
                // An image may have brought the map, or a longer one, since it was looked up.
                let known = timeline.object_size(page.object, Lsn::MAX)?;
                grown = grown.max(known.unwrap_or(0));
            }
            self.set_size(page.object, version.end(), Some(grown), false, ops);
        }
        ops.push(IndexOp::Version { page, version });
        Ok(())
    }

    /// Whether this change can be resolved only once all steps before it are in the index: sizes
    /// of a whole database change at once, or a whole list of objects is needed.
    pub(super) fn needs_index_in_step(change: &Change) -> bool {
        matches!(
            change,
            Change::DbCreate { .. }
                | Change::DbCopy { .. }
                | Change::DbDrop { .. }
                | Change::TablespaceDrop { .. }
                | Change::SlruTruncate(_)
                | Change::Parameters(_)
        )
    }

    /// Resolves one change into steps.
    ///
    /// # Errors
    /// What is on disk below the WAL cannot be read.
    pub(super) fn resolve(
        &mut self,
        timeline: &Timeline,
        at: At<'_>,
        change: Change,
        ops: &mut Vec<IndexOp>,
    ) -> Result<(), TimelineError> {
        let lsn = at.end;
        match change {
            Change::Page { rel, block, will_init } => {
                let page = ObjectPage { object: ObjectTag::Rel(rel), block };
                let version = Version::new(at.start, at.end, will_init, false);
                self.add_version(timeline, page, version, ops)?;
            }
            Change::NativePage { key, will_init, must_exist } => {
                let page = ObjectPage::from(key);
                let size = self.size(timeline, page.object)?;
                if !must_exist || size.is_some_and(|size| size > page.block.0) {
                    let version = Version::new(at.start, at.end, will_init, true);
                    self.add_version(timeline, page, version, ops)?;
                }
            }
            Change::CommitTimestamps { page } => {
                if at.before.parameters.track_commit_timestamp {
                    let key = PageKey::Slru { kind: SlruKind::CommitTs, page };
                    let version = Version::new(at.start, at.end, false, true);
                    self.add_version(timeline, ObjectPage::from(key), version, ops)?;
                }
            }
            Change::Parameters(parameters) => {
                let tracked = at.before.parameters.track_commit_timestamp;
                match (tracked, parameters.track_commit_timestamp) {
                    (false, true) => self.begin_commit_ts(timeline, at, ops)?,
                    (true, false) => {
                        self.drop_segments(timeline, lsn, SlruKind::CommitTs, |_| true, ops)?;
                    }
                    _ => {}
                }
            }
            Change::RelCreate { rel } => {
                let object = ObjectTag::Rel(rel);
                if self.size(timeline, object)?.is_none() {
                    self.set_size(object, lsn, Some(0), true, ops);
                }
            }
            Change::RelTruncate { rel, nblocks } => {
                let object = ObjectTag::Rel(rel);
                if self.size(timeline, object)?.is_some_and(|size| size > nblocks.0) {
                    self.set_size(object, lsn, Some(nblocks.0), true, ops);
                }
            }
            Change::RelDrop { rel } => {
                for object in ForkNumber::ALL.map(|fork| ObjectTag::Rel(rel.fork(fork))) {
                    if self.size(timeline, object)?.is_some() {
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
            Change::TablespaceCreate { spc, location } => {
                ops.push(IndexOp::Tablespace { spc, lsn, location: Some(detached(&location)) });
            }
            Change::TablespaceDrop { spc } => {
                ops.push(IndexOp::Tablespace { spc, lsn, location: None });
                // Nothing but empty folders, and those have no records of their own.
                for tag in timeline.databases_in(spc, Lsn::MAX)? {
                    self.change_database(tag, lsn, DbEvent::Dropped, ops);
                }
            }
            Change::RelMap { spc, db, map } => {
                let tag = DbTag { spc, db };
                ops.push(IndexOp::RelMap { tag, lsn, map: detached(&map) });
            }
            Change::SlruTruncate(truncation) => {
                self.truncate_slru(timeline, at, truncation, ops)?;
            }
            Change::TwoPhasePrepare { xid: TransactionId(xid), data } => {
                ops.push(IndexOp::TwoPhase { xid, lsn, state: Some(detached(&data)) });
            }
            Change::TwoPhaseFinish { xid: TransactionId(xid) } => {
                ops.push(IndexOp::TwoPhase { xid, lsn, state: None });
            }
            Change::OriginProgress { origin, remote_lsn, force } => {
                let known = self.origins(timeline)?.get(&origin);
                if known.is_none_or(|known| force || *known < remote_lsn) {
                    self.set_origin(timeline, origin, lsn, Some(remote_lsn), ops)?;
                }
            }
            Change::OriginDrop { origin } => {
                if self.origins(timeline)?.contains_key(&origin) {
                    self.set_origin(timeline, origin, lsn, None, ops)?;
                }
            }
            Change::XactEnd { time, .. } => ops.push(IndexOp::XactEnd { lsn, time }),
        }
        Ok(())
    }

    fn change_database(&mut self, tag: DbTag, lsn: Lsn, event: DbEvent, ops: &mut Vec<IndexOp>) {
        self.sizes.retain(|object, _| object.database() != Some(tag));
        ops.push(IndexOp::Database { tag, lsn, event });
    }

    fn truncate_slru(
        &mut self,
        timeline: &Timeline,
        at: At<'_>,
        truncation: SlruTruncation,
        ops: &mut Vec<IndexOp>,
    ) -> Result<(), TimelineError> {
        // PostgreSQL's own guard against a wraparound that has already happened; its redo has it
        // for the commit log only.
        let newest_xid = at.before.checkpoint.next_xid.xid().0.wrapping_sub(1);
        let newest_page = truncation.kind.page_of(newest_xid);
        let newest = (truncation.kind == SlruKind::Clog).then_some(newest_page);
        let goes = |segment| truncation.removes(segment, newest);
        self.drop_segments(timeline, at.end, truncation.kind, goes, ops)?;
        Ok(())
    }

    fn drop_segments(
        &mut self,
        timeline: &Timeline,
        lsn: Lsn,
        kind: SlruKind,
        goes: impl Fn(u32) -> bool,
        ops: &mut Vec<IndexOp>,
    ) -> Result<(), TimelineError> {
        for (segment, _) in timeline.slru_segments(kind, Lsn::MAX)? {
            if goes(segment) {
                let object = ObjectTag::Slru { kind, segment };
                self.set_size(object, lsn, None, true, ops);
            }
        }
        Ok(())
    }

    /// `ActivateCommitTs`: from now on the page of the next transaction exists. Records begin pages
    /// only with their first transaction.
    fn begin_commit_ts(
        &mut self,
        timeline: &Timeline,
        at: At<'_>,
        ops: &mut Vec<IndexOp>,
    ) -> Result<(), TimelineError> {
        let kind = SlruKind::CommitTs;
        let number = kind.page_of(at.before.checkpoint.next_xid.xid().0);
        let page = ObjectPage::from(PageKey::Slru { kind, page: number });
        if self.size(timeline, page.object)?.is_none_or(|size| size <= page.block.0) {
            let version = Version::new(at.start, at.end, true, true);
            self.add_version(timeline, page, version, ops)?;
        }
        Ok(())
    }
}

/// A copy that does not keep the received block of WAL in memory.
fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
