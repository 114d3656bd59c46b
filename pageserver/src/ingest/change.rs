//! `Change`, what one WAL record does to storage.

use bytes::Bytes;
use postgres_formats::{
    BlockNumber, Lsn, Oid, RelFileLocator, RelTag, ServerParameters, TransactionId,
};
use smallvec::SmallVec;

use super::slru_truncation::SlruTruncation;
use crate::key::PageKey;

/// One effect of a WAL record. All effects of a record take place at its end LSN, in list order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The page gets a new version, made by PostgreSQL's own redo of this record. A page at or
    /// beyond the end of its fork extends it, and a fork that does not exist is created; pages
    /// between the old end and this one are zeros.
    Page {
        /// The fork.
        rel: RelTag,
        /// The page.
        block: BlockNumber,
        /// The record alone makes the page: older versions are not needed.
        will_init: bool,
    },
    /// The page gets a new version, made by [`super::native::apply`] from this record. A page that
    /// does not exist counts as zeros and is created like one of `Page`, unless `must_exist`.
    NativePage {
        /// The page.
        key: PageKey,
        /// The record alone makes the page: older versions are not needed.
        will_init: bool,
        /// Ignore this change if the page is not there (absent fork, or block beyond its end).
        must_exist: bool,
    },
    /// A page of commit timestamps gets a new version like one of `NativePage`; nothing happens
    /// unless they are tracked at the time.
    CommitTimestamps {
        /// Number of the page.
        page: u32,
    },
    /// The server runs with these parameters from now on. When it begins to track commit
    /// timestamps, the page of the next transaction is created, as zeros, unless it is there; when
    /// it stops, all of their segments vanish.
    Parameters(ServerParameters),
    /// The fork exists from now on, with size 0 unless it existed before.
    RelCreate {
        /// The fork.
        rel: RelTag,
    },
    /// The fork ends at `nblocks`; nothing happens if it is absent or not larger. If it grows
    /// again, the new pages are zeros, not the old ones.
    RelTruncate {
        /// The fork.
        rel: RelTag,
        /// Its new size in pages.
        nblocks: BlockNumber,
    },
    /// All forks of the relation vanish; nothing happens for those that do not exist.
    RelDrop {
        /// The relation.
        rel: RelFileLocator,
    },
    /// The database directory exists from now on.
    DbCreate {
        /// Tablespace.
        spc: Oid,
        /// Database.
        db: Oid,
    },
    /// The database is a copy of another as it is just before this record: every relation with all
    /// forks and pages, and the relation map.
    DbCopy {
        /// Tablespace and database of the original.
        from: (Oid, Oid),
        /// Tablespace and database of the copy.
        to: (Oid, Oid),
    },
    /// The database directory vanishes with all in it.
    DbDrop {
        /// Tablespace.
        spc: Oid,
        /// Database.
        db: Oid,
    },
    /// The tablespace exists from now on.
    TablespaceCreate {
        /// The tablespace.
        spc: Oid,
        /// The folder that the server which wrote the WAL keeps it in; empty for one in its own
        /// data directory.
        location: Bytes,
    },
    /// The tablespace vanishes, and with it the folders of all databases in it.
    TablespaceDrop {
        /// The tablespace.
        spc: Oid,
    },
    /// `pg_filenode.map` of the database (database 0: the shared one in `global/`) is replaced.
    RelMap {
        /// Tablespace.
        spc: Oid,
        /// Database, or `Oid::INVALID`.
        db: Oid,
        /// The file's content with its checksum: 512 bytes in PostgreSQL 15.
        map: Bytes,
    },
    /// Old segments of the commit log, of the multitransactions or of commit timestamps vanish.
    SlruTruncate(SlruTruncation),
    /// A transaction was prepared; its state must survive a restart.
    TwoPhasePrepare {
        /// The transaction.
        xid: TransactionId,
        /// Content of its file in `pg_twophase`, without the CRC-32C that ends the file.
        data: Bytes,
    },
    /// A prepared transaction ended, its file in `pg_twophase` vanishes.
    TwoPhaseFinish {
        /// The transaction.
        xid: TransactionId,
    },
    /// The log of a replication origin has been applied up to `remote_lsn`, unless it was further
    /// already and `force` does not say that this counts nevertheless.
    OriginProgress {
        /// Number of the origin.
        origin: u16,
        /// LSN in the log of the origin.
        remote_lsn: Lsn,
        /// Whether to go backwards.
        force: bool,
    },
    /// A replication origin was dropped, and with it its progress.
    OriginDrop {
        /// Number of the origin.
        origin: u16,
    },
    /// A transaction ended: what relates LSNs to wall-clock time.
    XactEnd {
        /// The top-level transaction.
        xid: TransactionId,
        /// Whether it committed.
        commit: bool,
        /// When, in microseconds since 2000-01-01 00:00:00 UTC (`TimestampTz`).
        time: i64,
    },
}

/// What a record does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The effects, in order. Several may name the same page.
    pub list: SmallVec<[Change; 4]>,
}
