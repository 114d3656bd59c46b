//! What a verification has found.

use std::collections::{BTreeMap, BTreeSet};

use postgres_formats::{BlockNumber, Lsn, RelTag, TimelineId};
use serde::{Serialize, Serializer};

use super::deep::DeepCounts;
use super::masked::Masked;
use super::undecided::{self, Undecided};
use crate::branch::Branch;

/// Differences that are told in detail; of more there is only the number.
const DETAILS_MAX: usize = 20;

/// How many were compared, and how many of them differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Count {
    /// All.
    pub compared: u64,
    /// Those that differ.
    pub different: u64,
}

/// Why a difference is none of the page server's: each reason is a matter of what PostgreSQL logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Permitted {
    /// Redo makes a visibility map when it looks at it to clear a bit, and logs nothing of that. A map
    /// without a bit means the same as no map.
    EmptyVisibilityMap,
    /// Replay of a shutdown checkpoint takes over which database holds the oldest multixact only
    /// together with a newer oldest multixact (`MultiXactAdvanceOldest`); the page server has what the
    /// checkpoint says, as the server had that wrote it.
    OldestMultixactDatabase,
    /// A bit of a visibility map is cleared before the record that says so is written, and another
    /// backend may write the page's image in between. The record comes soon after.
    VisibilityBitClearedEarly,
    /// Pages of free space maps, which are hints, and in records images of them that are not what the page
    /// server gives out.
    FreeSpaceMap,
    /// On a compute: pages of zeros by which it made a relation longer without a record, for use
    /// later (`RelationAddExtraBlocks`, `access/heap/hio.c`), or before it crashed.
    ZeroPagesAtEnd,
    /// On a compute: a sequence's page says how many of the values logged ahead are left; a record
    /// has the last of them (`nextval_internal`, `commands/sequence.c`).
    SequenceValuesAhead,
    /// On a compute: where an SP-GiST index has room is remembered in its first page and not logged
    /// (`SpGistUpdateMetaPage`, `access/spgist/spgutils.c`).
    SpgistRoom,
    /// On a running server: `CREATE DATABASE` with strategy `WAL_LOG` logs the pages of visibility maps as if
    /// nothing stood between their header and their end (`RelationCopyStorageUsingBuffer`,
    /// `commands/dbcommands.c`), so that everybody else has maps without a bit.
    VisibilityOfCopiedDatabase,
    /// On a compute: place and time of the last checkpoint, in `pg_control`; a base backup brings one
    /// of its own. The counter of unlogged changes.
    OwnCheckpoint,
    /// On a compute: its settings as `pg_control` has them, for servers that replay its WAL. A server
    /// that starts puts its own in their place (`XLogReportParameters`).
    ServerParameters,
    /// On a compute: settings, its own and those that Zenith writes.
    Settings,
    /// On a compute: what a server keeps for itself and makes anew when it is not there: caches of
    /// catalogs, statistics, its command line, subtransactions' parents.
    ServersOwnFile,
    /// On a compute: its replication slots, which stand for servers that follow it.
    ReplicationSlot,
    /// Recovery that is told that commit timestamps are no longer tracked removes their files, but
    /// writes the pages that it still has in buffers again. Nobody may ask for what is on them.
    ForgottenCommitTimestamps,
    /// On a compute: what one side alone has of a relation, a database or a tablespace that no catalog
    /// names, since a crash has cut off the transaction that made or removed it.
    OrphanedFile,
    /// On a compute: size and pages of an index that is marked as not ready, since a crash has cut off
    /// the building of it (`CREATE INDEX CONCURRENTLY`, `commands/indexcmds.c`). Nobody uses it.
    UnfinishedIndex,
}

impl Permitted {
    /// A short name, stable.
    pub fn name(self) -> &'static str {
        match self {
            Permitted::EmptyVisibilityMap => "empty_visibility_map",
            Permitted::OldestMultixactDatabase => "oldest_multixact_database",
            Permitted::VisibilityBitClearedEarly => "visibility_bit_cleared_early",
            Permitted::FreeSpaceMap => "free_space_map",
            Permitted::ZeroPagesAtEnd => "zero_pages_at_end",
            Permitted::SequenceValuesAhead => "sequence_values_ahead",
            Permitted::SpgistRoom => "spgist_room",
            Permitted::VisibilityOfCopiedDatabase => "visibility_of_copied_database",
            Permitted::OwnCheckpoint => "own_checkpoint",
            Permitted::ServerParameters => "server_parameters",
            Permitted::Settings => "settings",
            Permitted::ServersOwnFile => "servers_own_file",
            Permitted::ReplicationSlot => "replication_slot",
            Permitted::ForgottenCommitTimestamps => "forgotten_commit_timestamps",
            Permitted::OrphanedFile => "orphaned_file",
            Permitted::UnfinishedIndex => "unfinished_index",
        }
    }
}

/// Pages by what the comparison gave.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PageCounts {
    /// All.
    pub compared: u64,
    /// Equal in every byte.
    pub equal: u64,
    /// Equal in all that WAL promises, as PostgreSQL's masks have it, and different elsewhere for
    /// reasons that are known.
    pub masked_equal: u64,
    /// How many of these there are for each of the reasons; a page may have several.
    pub masked: BTreeMap<Masked, u64>,
    /// Different for a reason that is known; a file, or `pg_control`, counts as one page.
    pub permitted: BTreeMap<Permitted, u64>,
    /// Different.
    pub different: u64,
    /// Not compared, since a compute does not have them on its disk.
    pub absent: u64,
}

impl PageCounts {
    pub(super) fn add_masked(&mut self, reasons: &BTreeSet<Masked>) {
        self.masked_equal += 1;
        for reason in reasons {
            *self.masked.entry(*reason).or_default() += 1;
        }
    }
}

/// A difference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Difference {
    /// What differs: `page`, `size`, `relation`, `file`, `wal`, `image`, `checksum`, `amcheck` or
    /// `dump`.
    pub kind: &'static str,
    /// The relation fork, if it is about one.
    pub relation: Option<RelTag>,
    /// The relation's name, or the file's path.
    pub name: Option<String>,
    /// The page, if it is about one.
    pub block: Option<BlockNumber>,
    /// LSN on the page server's page.
    pub our_lsn: Option<Lsn>,
    /// LSN on the stock server's page.
    pub their_lsn: Option<Lsn>,
    /// Start of the WAL record whose image the page was compared with.
    pub record: Option<Lsn>,
    /// That record's resource manager.
    pub manager: Option<String>,
    /// In words.
    pub detail: String,
}

impl Serialize for Difference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let lsn = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
        let mut fields = serializer.serialize_struct("Difference", 10)?;
        fields.serialize_field("kind", self.kind)?;
        let relation = self.relation.map(|rel| rel.locator().to_string());
        fields.serialize_field("relation", &relation)?;
        fields.serialize_field("fork", &self.relation.map(|rel| rel.fork.name()))?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("block", &self.block.map(|block| block.0))?;
        fields.serialize_field("our_lsn", &lsn(self.our_lsn))?;
        fields.serialize_field("their_lsn", &lsn(self.their_lsn))?;
        fields.serialize_field("record", &lsn(self.record))?;
        fields.serialize_field("resource_manager", &self.manager)?;
        fields.serialize_field("detail", &self.detail)?;
        fields.end()
    }
}

impl Difference {
    pub(super) fn of_relation(kind: &'static str, relation: RelTag, detail: String) -> Difference {
        Difference { kind, relation: Some(relation), detail, ..Difference::default() }
    }

    pub(super) fn of_file(path: &str, detail: String) -> Difference {
        Difference { kind: "file", name: Some(path.to_owned()), detail, ..Difference::default() }
    }
}

/// How long the parts took.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Seconds {
    /// Reading the files of the branch.
    pub reading: f64,
    /// Copying the base image and the WAL.
    pub copying: f64,
    /// Recovery by the stock server.
    pub recovering: f64,
    /// Comparing.
    pub comparing: f64,
    /// Looking at what is not equal.
    pub judging: f64,
}

/// The result.
#[derive(Clone, PartialEq, Debug)]
pub struct Verification {
    /// The branch.
    pub branch: String,
    /// Its timeline.
    pub timeline: TimelineId,
    /// At which LSN.
    pub lsn: Lsn,
    /// From where on a stock server recovered, on what the page server had there; `None`: from the
    /// beginning of history, or it was no stock server.
    pub since: Option<Lsn>,
    /// The compute it was compared with; `None`: a stock server that recovered.
    pub compute: Option<String>,
    /// Bytes of the compute's WAL that were compared.
    pub wal_bytes: u64,
    /// Files that the page server keeps of the branch and its ancestors; those that differ are damaged.
    pub stored_files: Count,
    /// Relation forks: whether they are there, and their sizes.
    pub relations: Count,
    /// Pages of relations.
    pub pages: PageCounts,
    /// Segments of the commit log, of multixacts and of commit timestamps.
    pub slru_segments: Count,
    /// Other files: relation maps, prepared transactions, databases' version files, the counters in
    /// `pg_control`.
    pub files: Count,
    /// What servers say that run on the pages, if they were asked.
    pub deep: Option<DeepCounts>,
    /// The first differences in detail.
    pub differences: Vec<Difference>,
    /// Those that are permitted if no catalog names what they are about; none once it is over.
    pub(super) undecided: Undecided,
    /// How long it took.
    pub seconds: Seconds,
}

/// Adds a difference unless there are many already.
pub(super) fn keep(differences: &mut Vec<Difference>, difference: Difference) {
    if differences.len() < DETAILS_MAX {
        differences.push(difference);
    }
}

impl Serialize for Verification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let mut fields = serializer.serialize_struct("Verification", 15)?;
        fields.serialize_field("branch", &self.branch)?;
        fields.serialize_field("timeline", &self.timeline.to_string())?;
        fields.serialize_field("lsn", &self.lsn.to_string())?;
        fields.serialize_field("since", &self.since.map(|lsn| lsn.to_string()))?;
        fields.serialize_field("compute", &self.compute)?;
        fields.serialize_field("wal_bytes", &self.wal_bytes)?;
        fields.serialize_field("different", &self.different())?;
        fields.serialize_field("stored_files", &self.stored_files)?;
        fields.serialize_field("relations", &self.relations)?;
        fields.serialize_field("pages", &self.pages)?;
        fields.serialize_field("slru_segments", &self.slru_segments)?;
        fields.serialize_field("files", &self.files)?;
        fields.serialize_field("deep", &self.deep)?;
        fields.serialize_field("differences", &self.differences)?;
        fields.serialize_field("seconds", &self.seconds)?;
        fields.end()
    }
}

impl Verification {
    pub(super) fn new(branch: &Branch, lsn: Lsn) -> Verification {
        Verification {
            branch: branch.name.to_string(),
            timeline: branch.timeline,
            lsn,
            since: None,
            compute: None,
            wal_bytes: 0,
            stored_files: Count::default(),
            relations: Count::default(),
            pages: PageCounts::default(),
            slru_segments: Count::default(),
            files: Count::default(),
            deep: None,
            differences: Vec::new(),
            undecided: Undecided::new(),
            seconds: Seconds::default(),
        }
    }

    /// How many differences there are.
    pub fn different(&self) -> u64 {
        let counts = [self.stored_files, self.relations, self.slru_segments, self.files];
        counts.iter().map(|count| count.different).sum::<u64>()
            + self.pages.different
            + self.deep.map_or(0, |deep| deep.different())
            + undecided::total(&self.undecided)
    }

    pub(super) fn describe(&mut self, difference: Difference) {
        keep(&mut self.differences, difference);
    }

    pub(super) fn permit(&mut self, reason: Permitted, pages: u64) {
        *self.pages.permitted.entry(reason).or_default() += pages;
    }
}
