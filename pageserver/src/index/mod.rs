//! `WalIndex`: where in a timeline's WAL the versions of everything are.
//!
//! The WAL is on disk anyway, so the index holds references and not copies: 16 bytes for a version
//! of a page. It knows only what happened on its own timeline since that began; an answer is
//! therefore often "ask what lies below", the ancestor or the image layer the timeline began with.
//!
//! Everything is pure and in memory. The index changes by `IndexOp`s, which need no lookups, so
//! that a whole batch of them is applied under one short write lock.

mod size_history;
mod xact_ends;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::wal::WalRecord;
use postgres_formats::{Lsn, Oid, PageImage};
use smallvec::SmallVec;

use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::page::KeptPage;
pub use size_history::SizeHistory;
pub use xact_ends::{EndedBy, XactEnds};

/// One version of a page: the WAL record that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    end: Lsn,
    /// A record begins at a multiple of 8, which leaves the low bits for flags.
    start_and_flags: u64,
}

/// An entry of the table of pages, and its share of what is free there.
const PAGE_MEMORY_BYTES: u64 =
    (size_of::<ObjectPage>() + size_of::<SmallVec<[Version; 1]>>()) as u64;
/// An object's sizes, most of which are few.
const OBJECT_MEMORY_BYTES: u64 = 128;

const WILL_INIT: u64 = 1;
const NATIVE: u64 = 2;
const FLAGS: u64 = 7;

impl Version {
    /// The version made by the record from `start` to `end`. `will_init`: it does not depend on
    /// older versions. `native`: made by our own code, not by PostgreSQL's redo.
    pub fn new(start: Lsn, end: Lsn, will_init: bool, native: bool) -> Version {
        let flags = if will_init { WILL_INIT } else { 0 } | if native { NATIVE } else { 0 };
        debug_assert_eq!(start.as_u64() & FLAGS, 0, "records begin at multiples of 8");
        Version { end, start_and_flags: start.as_u64() | flags }
    }

    /// End of the record: the version's own LSN.
    pub fn end(self) -> Lsn {
        self.end
    }

    /// Where the record begins.
    pub fn start(self) -> Lsn {
        Lsn::new(self.start_and_flags & !FLAGS)
    }

    /// Whether older versions do not matter.
    pub fn will_init(self) -> bool {
        self.start_and_flags & WILL_INIT != 0
    }

    /// Whether `ingest::native` makes it.
    pub fn is_native(self) -> bool {
        self.start_and_flags & NATIVE != 0
    }
}

/// What happened to a database's folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DbEvent {
    /// Made empty; its content follows in the WAL.
    Created,
    /// Made as a copy of another as that was at the LSN of this event.
    CopyOf(DbTag),
    /// Removed with all that was in it.
    Dropped,
}

/// One step of change, ready to be applied without any lookup.
#[derive(Debug)]
pub enum IndexOp {
    /// A page has a new version.
    Version {
        /// The page.
        page: ObjectPage,
        /// The version.
        version: Version,
    },
    /// An object has a new size in pages; `None`: it is gone.
    Size {
        /// The object.
        object: ObjectTag,
        /// From this LSN on.
        lsn: Lsn,
        /// The size.
        size: Option<u32>,
        /// Whether blocks from the new size on, if there were any, are no more.
        cut: bool,
    },
    /// Something happened to a database.
    Database {
        /// The database.
        tag: DbTag,
        /// From this LSN on.
        lsn: Lsn,
        /// What.
        event: DbEvent,
    },
    /// A database has a new `pg_filenode.map`.
    RelMap {
        /// The database.
        tag: DbTag,
        /// From this LSN on.
        lsn: Lsn,
        /// The file.
        map: Bytes,
    },
    /// A tablespace was created (where its server keeps it) or dropped (`None`).
    Tablespace {
        /// The tablespace.
        spc: Oid,
        /// From this LSN on.
        lsn: Lsn,
        /// The folder; empty for one inside the data directory.
        location: Option<Bytes>,
    },
    /// A transaction was prepared (its state) or finished (`None`).
    TwoPhase {
        /// The transaction.
        xid: u32,
        /// From this LSN on.
        lsn: Lsn,
        /// Its state.
        state: Option<Bytes>,
    },
    /// The log of a replication origin has been applied up to an LSN of its own (`None`: the origin
    /// was dropped).
    Origin {
        /// Number of the origin.
        origin: u16,
        /// From this LSN on.
        lsn: Lsn,
        /// How far.
        remote_lsn: Option<Lsn>,
    },
    /// A transaction ended.
    XactEnd {
        /// End of its record.
        lsn: Lsn,
        /// When, in microseconds since 2000-01-01 UTC.
        time: i64,
    },
    /// The checkpoint state at an LSN, to start from when a later one is asked for.
    Checkpoint {
        /// End of the last record taken into account.
        lsn: Lsn,
        /// The state.
        state: Box<CheckpointState>,
    },
}

/// What a page is built on, below the versions found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Foundation {
    /// On nothing: the oldest version found initialises the page.
    Version,
    /// On zeros.
    Zero,
    /// On the same page of another database as it was at an LSN.
    CopyOf(DbTag, Lsn),
    /// On a page that a layer has.
    Kept(KeptPage),
    /// On a version that has been made, the one before the oldest found.
    Made(Arc<PageImage>),
    /// On what lies below this timeline.
    Below,
}

impl Foundation {
    /// What a page stands on to whose database something happened last, and whose block was cut off
    /// last; of the two only the later one is given.
    pub fn of(event: Option<(Lsn, DbEvent)>, cut: Option<Lsn>) -> Foundation {
        match (event, cut) {
            (Some((lsn, DbEvent::CopyOf(from))), _) => Foundation::CopyOf(from, lsn),
            (None, None) => Foundation::Below,
            _ => Foundation::Zero,
        }
    }
}

/// A version of a page, and what makes it where that is not in the WAL.
#[derive(Clone, Debug)]
pub struct FoundVersion {
    /// The version.
    pub version: Version,
    /// The record, if a layer has it; `None`: it is read from the WAL.
    pub record: Option<WalRecord>,
}

/// The versions of a page that matter for one LSN.
#[derive(Debug)]
pub struct PageHistory {
    /// Newest first.
    pub versions: Vec<FoundVersion>,
    /// What the oldest of them is built on.
    pub foundation: Foundation,
}

/// What is known of something that may lie in a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known<T> {
    /// It is so; `None`: there is no such thing.
    Is(Option<T>),
    /// As in another database at an LSN.
    CopyOf(DbTag, Lsn),
}

impl<T> Known<T> {
    /// What is known of something that is its own, and of a database to which something happened:
    /// the later one counts.
    pub fn newer(own: Option<(Lsn, Option<T>)>, event: Option<(Lsn, DbEvent)>) -> Option<Known<T>> {
        match (own, event) {
            (Some((lsn, own)), event) if event.is_none_or(|(e, _)| e < lsn) => Some(Known::Is(own)),
            (_, event) => event.map(|(lsn, event)| Known::after(event, lsn)),
        }
    }

    /// What is known of anything in a database to which that happened last, at `lsn`.
    pub fn after(event: DbEvent, lsn: Lsn) -> Known<T> {
        match event {
            DbEvent::CopyOf(from) => Known::CopyOf(from, lsn),
            DbEvent::Created | DbEvent::Dropped => Known::Is(None),
        }
    }
}

/// The index over one timeline's own WAL.
#[derive(Default)]
pub struct WalIndex {
    pub(crate) pages: HashMap<ObjectPage, SmallVec<[Version; 1]>>,
    pub(crate) objects: BTreeMap<ObjectTag, SizeHistory>,
    pub(crate) databases: BTreeMap<DbTag, Vec<(Lsn, DbEvent)>>,
    pub(crate) rel_maps: BTreeMap<DbTag, Vec<(Lsn, Bytes)>>,
    pub(crate) tablespaces: BTreeMap<Oid, Vec<(Lsn, Option<Bytes>)>>,
    pub(crate) two_phase: BTreeMap<u32, Vec<(Lsn, Option<Bytes>)>>,
    pub(crate) origins: BTreeMap<u16, Vec<(Lsn, Option<Lsn>)>>,
    pub(crate) xact_ends: XactEnds,
    checkpoints: Vec<(Lsn, CheckpointState)>,
    versions: u64,
}

/// The last entry at or before `at` of a history in ascending order.
fn last_at<T>(history: &[(Lsn, T)], at: Lsn) -> Option<&(Lsn, T)> {
    let behind = history.partition_point(|(lsn, _)| *lsn <= at);
    history.get(behind.checked_sub(1)?)
}

/// What was last said of each thing up to `at`: its state, or that it is gone (`None`).
fn last_of_each<K: Copy, T: Clone>(
    histories: &BTreeMap<K, Vec<(Lsn, Option<T>)>>,
    at: Lsn,
) -> Vec<(K, Option<T>)> {
    let last = |(key, history): (&K, &Vec<(Lsn, Option<T>)>)| {
        last_at(history, at).map(|(_, state)| (*key, state.clone()))
    };
    histories.iter().filter_map(last).collect()
}

impl WalIndex {
    /// Applies one step. Steps come in the order of their LSNs.
    pub fn apply(&mut self, op: IndexOp) {
        match op {
            IndexOp::Version { page, version } => {
                let versions = self.pages.entry(page).or_default();
                // One record changes a page once; a second mention is the same version.
                if versions.last().is_none_or(|last| last.end < version.end) {
                    versions.push(version);
                    self.versions += 1;
                }
            }
            IndexOp::Size { object, lsn, size, cut } => {
                self.objects.entry(object).or_default().push(lsn, size, cut);
            }
            IndexOp::Database { tag, lsn, event } => {
                self.databases.entry(tag).or_default().push((lsn, event));
            }
            IndexOp::RelMap { tag, lsn, map } => {
                self.rel_maps.entry(tag).or_default().push((lsn, map));
            }
            IndexOp::Tablespace { spc, lsn, location } => {
                self.tablespaces.entry(spc).or_default().push((lsn, location));
            }
            IndexOp::TwoPhase { xid, lsn, state } => {
                self.two_phase.entry(xid).or_default().push((lsn, state));
            }
            IndexOp::Origin { origin, lsn, remote_lsn } => {
                self.origins.entry(origin).or_default().push((lsn, remote_lsn));
            }
            IndexOp::XactEnd { lsn, time } => self.xact_ends.push(lsn, time),
            IndexOp::Checkpoint { lsn, state } => self.checkpoints.push((lsn, *state)),
        }
    }

    /// How much memory it takes, about: that of what there can be many of.
    pub fn memory_bytes(&self) -> u64 {
        let pages = self.pages.capacity() as u64 * PAGE_MEMORY_BYTES;
        let versions = self.versions * size_of::<Version>() as u64;
        let objects = self.objects.len() as u64 * OBJECT_MEMORY_BYTES;
        pages + versions + objects + self.xact_ends.all().len() as u64 * 16
    }

    /// How many versions of pages there are.
    pub fn version_count(&self) -> u64 {
        self.versions
    }

    /// The last thing up to `at` that happened to the object's database as a whole.
    fn database_event(&self, object: ObjectTag, at: Lsn) -> Option<(Lsn, DbEvent)> {
        last_at(self.databases.get(&object.database()?)?, at).copied()
    }

    /// The versions of `page` that matter at `at`.
    pub fn page_history(&self, page: ObjectPage, at: Lsn) -> PageHistory {
        // Whatever is not younger than the floor belongs to a block that was cut off, or to an
        // earlier database of the same name.
        let cut = self.objects.get(&page.object).and_then(|h| h.last_cut(page.block, at));
        let event = self.database_event(page.object, at).filter(|(lsn, _)| Some(*lsn) > cut);
        let floor = event.map(|(lsn, _)| lsn).or(cut);
        let mut foundation = Foundation::of(event, cut);
        let mut found = Vec::new();
        if let Some(versions) = self.pages.get(&page) {
            let behind = versions.partition_point(|version| version.end <= at);
            for version in versions.iter().take(behind).rev() {
                if floor.is_some_and(|floor| version.end <= floor) {
                    break;
                }
                found.push(FoundVersion { version: *version, record: None });
                if version.will_init() {
                    foundation = Foundation::Version;
                    break;
                }
            }
        }
        PageHistory { versions: found, foundation }
    }

    /// The size of `object` in pages at `at`; `None`: as below.
    pub fn size(&self, object: ObjectTag, at: Lsn) -> Option<Known<u32>> {
        let own = self.objects.get(&object).and_then(|history| history.at(at));
        let event = self.database_event(object, at);
        Known::newer(own, event)
    }

    /// Every object whose size changed on this timeline.
    pub fn objects(&self) -> impl Iterator<Item = ObjectTag> + '_ {
        self.objects.keys().copied()
    }

    /// The last thing up to `at` that happened to each database.
    pub fn database_events(&self, at: Lsn) -> Vec<(DbTag, Lsn, DbEvent)> {
        let last = |(tag, history): (&DbTag, &Vec<(Lsn, DbEvent)>)| {
            last_at(history, at).map(|(lsn, event)| (*tag, *lsn, *event))
        };
        self.databases.iter().filter_map(last).collect()
    }

    /// The `pg_filenode.map` of a database at `at`; `None`: as below.
    pub fn rel_map(&self, tag: DbTag, at: Lsn) -> Option<Known<Bytes>> {
        let own = self.rel_maps.get(&tag).and_then(|history| last_at(history, at));
        let event = self.databases.get(&tag).and_then(|history| last_at(history, at));
        match (own, event) {
            (Some((lsn, map)), event) if event.is_none_or(|(e, _)| e <= lsn) => {
                Some(Known::Is(Some(map.clone())))
            }
            (_, event) => event.map(|(lsn, event)| Known::after(*event, *lsn)),
        }
    }

    /// What happened up to `at` to tablespaces: the location of each that changed.
    pub fn tablespaces(&self, at: Lsn) -> Vec<(Oid, Option<Bytes>)> {
        last_of_each(&self.tablespaces, at)
    }

    /// What happened up to `at` to prepared transactions: the last state of each that changed.
    pub fn two_phase(&self, at: Lsn) -> Vec<(u32, Option<Bytes>)> {
        last_of_each(&self.two_phase, at)
    }

    /// The progress up to `at` of each replication origin that has made any on this timeline;
    /// `None` if it was dropped last.
    pub fn origins(&self, at: Lsn) -> Vec<(u16, Option<Lsn>)> {
        let last = |(origin, history): (&u16, &Vec<(Lsn, Option<Lsn>)>)| {
            last_at(history, at).map(|(_, remote_lsn)| (*origin, *remote_lsn))
        };
        self.origins.iter().filter_map(last).collect()
    }

    /// The last kept checkpoint state at or before `at`, and its LSN.
    pub fn checkpoint(&self, at: Lsn) -> Option<(Lsn, CheckpointState)> {
        last_at(&self.checkpoints, at).map(|(lsn, state)| (*lsn, *state))
    }

    /// When the transactions of this timeline ended.
    pub fn xact_ends(&self) -> &XactEnds {
        &self.xact_ends
    }
}

#[cfg(test)]
mod tests;
