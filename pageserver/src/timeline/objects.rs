//! What exists at an LSN and how large it is: relations, SLRU segments, databases, small files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use postgres_formats::replication_origins::ReplicationOrigins;
use postgres_formats::slru::SlruKind;
use postgres_formats::{BlockNumber, Lsn, Oid, RelTag};

use super::error::TimelineError;
use super::{Below, Timeline};
use crate::damage;
use crate::free_space;
use crate::index::{DbEvent, Known};
use crate::layer::image::SmallFile;
use crate::object::{DbTag, ObjectTag};

impl Timeline {
    /// The object's size in pages at `lsn`, `None` if there is no such object then.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn object_size(&self, object: ObjectTag, lsn: Lsn) -> Result<Option<u32>, TimelineError> {
        let size = self.unchecked_size(object, lsn)?;
        // What was needed may have been removed meanwhile.
        self.check_lsn(lsn)?;
        Ok(size)
    }

    /// The same for one who calls `check_lsn` later, before it counts.
    pub(super) fn unchecked_size(
        &self,
        object: ObjectTag,
        lsn: Lsn,
    ) -> Result<Option<u32>, TimelineError> {
        let size = self.size_at(object, lsn)?;
        let is_orphan = match free_space::table_of_map(object) {
            Some(table) if size.is_some() => self.size_at(table, lsn)?.is_none(),
            _ => false,
        };
        Ok(size.filter(|_| !is_orphan))
    }

    fn size_at(&self, object: ObjectTag, lsn: Lsn) -> Result<Option<u32>, TimelineError> {
        let known = self.newest(|stretch| stretch.size(object, lsn))?;
        match known.found {
            Some(Known::Is(size)) => Ok(size),
            Some(Known::CopyOf(from, at)) => self.size_at(object.in_database(from), at),
            None => match &*known.below {
                Below::Ancestor(ancestor, at) => ancestor.size_at(object, lsn.min(*at)),
                Below::Image(layer) => Ok(layer.size(object)),
                Below::Nothing => Ok(None),
            },
        }
    }

    /// The fork's size in pages at `lsn`, `None` if it does not exist then.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn rel_size(&self, rel: RelTag, lsn: Lsn) -> Result<Option<BlockNumber>, TimelineError> {
        Ok(self.object_size(ObjectTag::Rel(rel), lsn)?.map(BlockNumber))
    }

    /// Everything that exists at `lsn`, with its size in pages.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn list_objects(&self, lsn: Lsn) -> Result<BTreeMap<ObjectTag, u32>, TimelineError> {
        let mut objects = self.list_matching(lsn, None)?;
        free_space::remove_orphans(&mut objects);
        // What was needed may have been removed meanwhile.
        self.check_lsn(lsn)?;
        let objects = objects.into_iter().filter(|(object, _)| !damage::is_forgotten(*object, lsn));
        Ok(objects.map(|(object, size)| (object, damage::size(object, lsn, size))).collect())
    }

    /// What exists at `lsn`, with its size in pages: everything, or what is in one database.
    pub(super) fn list_matching(
        &self,
        lsn: Lsn,
        only: Option<DbTag>,
    ) -> Result<BTreeMap<ObjectTag, u32>, TimelineError> {
        let wanted = |tag: Option<DbTag>| only.is_none() || tag == only;
        let changes = self.changes(lsn, |stretch| {
            Ok((stretch.database_events(lsn)?, stretch.sizes(only, lsn)?))
        })?;
        let mut objects = match changes.below.as_deref() {
            None | Some(Below::Nothing) => BTreeMap::new(),
            Some(Below::Ancestor(ancestor, at)) => ancestor.list_matching(lsn.min(*at), only)?,
            Some(Below::Image(layer)) => {
                layer.objects().filter(|(o, _)| wanted(o.database())).collect()
            }
        };
        for (events, sizes) in changes.oldest_first {
            for (tag, at, event) in events.into_iter().filter(|(tag, ..)| wanted(Some(*tag))) {
                objects.retain(|object, _| object.database() != Some(tag));
                if let DbEvent::CopyOf(from) = event {
                    // Only the original is asked about: this event, which is there at `at`
                    // already, must not be met again.
                    let originals = self.list_matching(at, Some(from))?.into_iter();
                    objects.extend(originals.map(|(o, size)| (o.in_database(tag), size)));
                }
            }
            for (object, size) in sizes {
                match size {
                    Some(size) => objects.insert(object, size),
                    None => objects.remove(&object),
                };
            }
        }
        Ok(objects)
    }

    /// Every fork of every relation that exists at `lsn`, with its size in pages.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn list_rels(&self, lsn: Lsn) -> Result<Vec<(RelTag, BlockNumber)>, TimelineError> {
        let rel = |(object, size)| match object {
            ObjectTag::Rel(rel) => Some((rel, BlockNumber(size))),
            ObjectTag::Slru { .. } => None,
        };
        Ok(self.list_objects(lsn)?.into_iter().filter_map(rel).collect())
    }

    /// The segments of an SLRU that exist at `lsn`, as (number, size in pages).
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn slru_segments(
        &self,
        kind: SlruKind,
        lsn: Lsn,
    ) -> Result<Vec<(u32, u32)>, TimelineError> {
        let segment = |(object, size)| match object {
            ObjectTag::Slru { kind: of, segment } if of == kind => Some((segment, size)),
            _ => None,
        };
        Ok(self.list_objects(lsn)?.into_iter().filter_map(segment).collect())
    }

    /// The folders of databases that exist at `lsn`, that of the shared relations not among them.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn databases(&self, lsn: Lsn) -> Result<BTreeSet<DbTag>, TimelineError> {
        let changes = self.changes(lsn, |stretch| stretch.database_events(lsn))?;
        let mut databases: BTreeSet<DbTag> = match changes.below.as_deref() {
            None | Some(Below::Nothing) => BTreeSet::new(),
            Some(Below::Ancestor(ancestor, at)) => ancestor.databases(lsn.min(*at))?,
            Some(Below::Image(layer)) => {
                let database = |name| match name {
                    SmallFile::Database(tag) => Some(tag),
                    _ => None,
                };
                layer.small_files().filter_map(|(name, _)| database(name)).collect()
            }
        };
        for (tag, _, event) in changes.oldest_first.into_iter().flatten() {
            match event {
                DbEvent::Created | DbEvent::CopyOf(_) => databases.insert(tag),
                DbEvent::Dropped => databases.remove(&tag),
            };
        }
        Ok(databases)
    }

    /// The tablespaces of the users' own that exist at `lsn`, each with the folder that the server
    /// which made it keeps it in; that is empty for one in the server's data directory.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn tablespaces(&self, lsn: Lsn) -> Result<BTreeMap<Oid, Bytes>, TimelineError> {
        let changes = self.changes(lsn, |stretch| stretch.tablespaces(lsn))?;
        let mut tablespaces: BTreeMap<Oid, Bytes> = match changes.below.as_deref() {
            None | Some(Below::Nothing) => BTreeMap::new(),
            Some(Below::Ancestor(ancestor, at)) => ancestor.tablespaces(lsn.min(*at))?,
            Some(Below::Image(layer)) => {
                let location = |(name, bytes): (SmallFile, &Bytes)| match name {
                    SmallFile::Tablespace(spc) => Some((spc, bytes.clone())),
                    _ => None,
                };
                layer.small_files().filter_map(location).collect()
            }
        };
        for (spc, location) in changes.oldest_first.into_iter().flatten() {
            match location {
                Some(location) => tablespaces.insert(spc, location),
                None => tablespaces.remove(&spc),
            };
        }
        Ok(tablespaces)
    }

    /// The folders of databases in one tablespace at `lsn`, those among them that PostgreSQL makes
    /// without a record, for the first relation of a database there.
    pub(super) fn databases_in(
        &self,
        spc: Oid,
        lsn: Lsn,
    ) -> Result<BTreeSet<DbTag>, TimelineError> {
        let objects = self.list_objects(lsn)?;
        let implied = objects.keys().filter_map(|object| object.database());
        let mut databases = self.databases(lsn)?;
        databases.extend(implied);
        databases.retain(|tag| tag.spc == spc);
        Ok(databases)
    }

    /// A database's `pg_filenode.map` at `lsn`, `None` if it has none then.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn rel_map(&self, tag: DbTag, lsn: Lsn) -> Result<Option<Bytes>, TimelineError> {
        let known = self.newest(|stretch| stretch.rel_map(tag, lsn))?;
        match known.found {
            Some(Known::Is(map)) => Ok(map),
            Some(Known::CopyOf(from, at)) => self.rel_map(from, at),
            None => match &*known.below {
                Below::Ancestor(ancestor, at) => ancestor.rel_map(tag, lsn.min(*at)),
                Below::Image(layer) => Ok(layer.small_file(SmallFile::RelMap(tag)).cloned()),
                Below::Nothing => Ok(None),
            },
        }
    }

    /// The transactions that are prepared and not finished at `lsn`, with their state: the file
    /// in `pg_twophase` without its checksum.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn two_phase(&self, lsn: Lsn) -> Result<BTreeMap<u32, Bytes>, TimelineError> {
        let changes = self.changes(lsn, |stretch| stretch.two_phase(lsn))?;
        let mut prepared: BTreeMap<u32, Bytes> = match changes.below.as_deref() {
            None | Some(Below::Nothing) => BTreeMap::new(),
            Some(Below::Ancestor(ancestor, at)) => ancestor.two_phase(lsn.min(*at))?,
            Some(Below::Image(layer)) => {
                let state = |(name, bytes): (SmallFile, &Bytes)| match name {
                    SmallFile::TwoPhase(xid) => Some((xid, bytes.clone())),
                    _ => None,
                };
                layer.small_files().filter_map(state).collect()
            }
        };
        for (xid, state) in changes.oldest_first.into_iter().flatten() {
            match state {
                Some(state) => prepared.insert(xid, state),
                None => prepared.remove(&xid),
            };
        }
        Ok(prepared)
    }

    /// How far the logs of replication origins have been applied at `lsn`.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn replication_origins(&self, lsn: Lsn) -> Result<ReplicationOrigins, TimelineError> {
        let changes = self.changes(lsn, |stretch| stretch.origins(lsn))?;
        let mut origins = match changes.below.as_deref() {
            None | Some(Below::Nothing) => BTreeMap::new(),
            Some(Below::Ancestor(ancestor, at)) => ancestor.replication_origins(lsn.min(*at))?,
            Some(Below::Image(layer)) => layer.replication_origins().clone(),
        };
        for (origin, remote_lsn) in changes.oldest_first.into_iter().flatten() {
            match remote_lsn {
                Some(remote_lsn) => origins.insert(origin, remote_lsn),
                None => origins.remove(&origin),
            };
        }
        Ok(origins)
    }

    /// Size in bytes of all relations of a database at `lsn`, over all tablespaces.
    ///
    /// # Errors
    /// What is on disk cannot be read; see `TimelineError`.
    pub fn database_size(&self, db: Oid, lsn: Lsn) -> Result<u64, TimelineError> {
        let of_db =
            |(rel, size): (RelTag, BlockNumber)| (rel.db == db).then_some(u64::from(size.0));
        let pages: u64 = self.list_rels(lsn)?.into_iter().filter_map(of_db).sum();
        Ok(pages * postgres_formats::BLCKSZ as u64)
    }

    /// Refuses an LSN before the beginning of all history, and one of which the history was removed.
    ///
    /// # Errors
    /// `BeforeBeginning`.
    pub fn check_lsn(&self, lsn: Lsn) -> Result<(), TimelineError> {
        let mut descended: Option<Arc<Timeline>> = None;
        loop {
            let timeline = descended.as_deref().unwrap_or(self);
            let is_there = match &*timeline.below() {
                Below::Ancestor(ancestor, at) if lsn < *at => {
                    descended = Some(ancestor.clone());
                    continue;
                }
                Below::Ancestor(..) => true,
                Below::Image(_) | Below::Nothing => lsn >= timeline.start_lsn(),
            };
            return match is_there && timeline.is_retained(lsn) {
                true => Ok(()),
                false => {
                    Err(TimelineError::BeforeBeginning { wanted: lsn, oldest: self.oldest_lsn() })
                }
            };
        }
    }
}
