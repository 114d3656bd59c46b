//! Resource managers and their record kinds (the high four bits of a record's `info`).
//!
//! Source: PostgreSQL 15 `access/rmgrlist.h` and the header named at each module.

/// Bits of `info` that belong to the resource manager; the low four are the WAL machinery's.
pub const RMGR_INFO_MASK: u8 = 0xF0;

/// `RM_XLOG_ID`: checkpoints, page images, log switches.
pub const XLOG: u8 = 0;
/// `RM_XACT_ID`: ends of transactions.
pub const XACT: u8 = 1;
/// `RM_SMGR_ID`: creation and truncation of relation files.
pub const SMGR: u8 = 2;
/// `RM_CLOG_ID`: commit log pages.
pub const CLOG: u8 = 3;
/// `RM_DBASE_ID`: databases.
pub const DBASE: u8 = 4;
/// `RM_TBLSPC_ID`: tablespaces.
pub const TBLSPC: u8 = 5;
/// `RM_MULTIXACT_ID`: multitransactions.
pub const MULTIXACT: u8 = 6;
/// `RM_RELMAP_ID`: the map from catalogs to files.
pub const RELMAP: u8 = 7;
/// `RM_STANDBY_ID`: locks and running transactions, for hot standby.
pub const STANDBY: u8 = 8;
/// `RM_HEAP2_ID`: tables, the record kinds that did not fit into `HEAP`.
pub const HEAP2: u8 = 9;
/// `RM_HEAP_ID`: tables.
pub const HEAP: u8 = 10;
/// `RM_BTREE_ID`
pub const BTREE: u8 = 11;
/// `RM_HASH_ID`
pub const HASH: u8 = 12;
/// `RM_GIN_ID`
pub const GIN: u8 = 13;
/// `RM_GIST_ID`
pub const GIST: u8 = 14;
/// `RM_SEQ_ID`: sequences.
pub const SEQ: u8 = 15;
/// `RM_SPGIST_ID`
pub const SPGIST: u8 = 16;
/// `RM_BRIN_ID`
pub const BRIN: u8 = 17;
/// `RM_COMMIT_TS_ID`: commit timestamps.
pub const COMMIT_TS: u8 = 18;
/// `RM_REPLORIGIN_ID`: progress of logical replication from other servers.
pub const REPLORIGIN: u8 = 19;
/// `RM_GENERIC_ID`: page differences logged by extensions.
pub const GENERIC: u8 = 20;
/// `RM_LOGICALMSG_ID`: messages for logical decoding.
pub const LOGICALMSG: u8 = 21;
/// The first of the ids that extensions can register for themselves (`RM_MIN_CUSTOM_ID`); all above
/// it are such as well.
pub const CUSTOM_MIN: u8 = 128;

const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// PostgreSQL's name of a resource manager, as `pg_waldump` prints it; `None` for those of
/// extensions (128 and above) and for numbers that mean nothing.
pub fn name(rmid: u8) -> Option<&'static str> {
    NAMES.get(usize::from(rmid)).copied()
}

/// Record kinds of [`XLOG`] (`catalog/pg_control.h`).
pub mod xlog {
    /// Checkpoint taken while nothing else ran.
    pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    /// Checkpoint taken in operation.
    pub const CHECKPOINT_ONLINE: u8 = 0x10;
    /// Nothing.
    pub const NOOP: u8 = 0x20;
    /// Object ids up to the given one may be used without a further record.
    pub const NEXTOID: u8 = 0x30;
    /// The rest of the segment is unused.
    pub const SWITCH: u8 = 0x40;
    /// End of a base backup.
    pub const BACKUP_END: u8 = 0x50;
    /// Server settings that a standby must match.
    pub const PARAMETER_CHANGE: u8 = 0x60;
    /// `pg_create_restore_point`.
    pub const RESTORE_POINT: u8 = 0x70;
    /// `full_page_writes` was switched.
    pub const FPW_CHANGE: u8 = 0x80;
    /// Recovery ended, on a new PostgreSQL timeline.
    pub const END_OF_RECOVERY: u8 = 0x90;
    /// Page images taken because of hint bits.
    pub const FPI_FOR_HINT: u8 = 0xA0;
    /// Page images.
    pub const FPI: u8 = 0xB0;
    /// A record that a crash left unfinished before this one is void.
    pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
}

/// Record kinds of [`XACT`] (`access/xact.h`).
pub mod xact {
    /// Bits of `info` that tell the kind.
    pub const OPMASK: u8 = 0x70;
    /// The record has an `xinfo` word.
    pub const HAS_INFO: u8 = 0x80;
    /// Commit.
    pub const COMMIT: u8 = 0x00;
    /// First phase of two-phase commit.
    pub const PREPARE: u8 = 0x10;
    /// Abort of a transaction or of a subtransaction.
    pub const ABORT: u8 = 0x20;
    /// Commit of a prepared transaction.
    pub const COMMIT_PREPARED: u8 = 0x30;
    /// Abort of a prepared transaction.
    pub const ABORT_PREPARED: u8 = 0x40;
    /// Which top-level transaction subtransactions belong to, for hot standby.
    pub const ASSIGNMENT: u8 = 0x50;
    /// Cache invalidations, for logical decoding.
    pub const INVALIDATIONS: u8 = 0x60;
}

/// Record kinds of [`SMGR`] (`catalog/storage_xlog.h`).
pub mod smgr {
    /// A fork was created.
    pub const CREATE: u8 = 0x10;
    /// A relation was truncated.
    pub const TRUNCATE: u8 = 0x20;
}

/// Record kinds of [`CLOG`] (`access/clog.h`).
pub mod clog {
    /// A page begins, as zeros.
    pub const ZEROPAGE: u8 = 0x00;
    /// Old segments go.
    pub const TRUNCATE: u8 = 0x10;
}

/// Record kinds of [`DBASE`] (`commands/dbcommands_xlog.h`).
pub mod dbase {
    /// `CREATE DATABASE` by copying files.
    pub const CREATE_FILE_COPY: u8 = 0x00;
    /// `CREATE DATABASE` whose pages are logged one by one afterwards.
    pub const CREATE_WAL_LOG: u8 = 0x10;
    /// `DROP DATABASE`.
    pub const DROP: u8 = 0x20;
}

/// Record kinds of [`TBLSPC`] (`commands/tablespace.h`).
pub mod tblspc {
    /// `CREATE TABLESPACE`.
    pub const CREATE: u8 = 0x00;
    /// `DROP TABLESPACE`.
    pub const DROP: u8 = 0x10;
}

/// Record kinds of [`MULTIXACT`] (`access/multixact.h`).
pub mod multixact {
    /// A page of offsets begins, as zeros.
    pub const ZERO_OFF_PAGE: u8 = 0x00;
    /// A page of members begins, as zeros.
    pub const ZERO_MEM_PAGE: u8 = 0x10;
    /// A multitransaction came into being.
    pub const CREATE_ID: u8 = 0x20;
    /// Old segments go.
    pub const TRUNCATE_ID: u8 = 0x30;
}

/// Record kinds of [`RELMAP`] (`utils/relmapper.h`).
pub mod relmap {
    /// The map file is replaced.
    pub const UPDATE: u8 = 0x00;
}

/// Record kinds of [`STANDBY`] (`storage/standbydefs.h`).
pub mod standby {
    /// Access-exclusive locks.
    pub const LOCK: u8 = 0x00;
    /// Snapshot of the running transactions.
    pub const RUNNING_XACTS: u8 = 0x10;
    /// Cache invalidations of transactions without an id.
    pub const INVALIDATIONS: u8 = 0x20;
}

/// Record kinds of [`HEAP`] (`access/heapam_xlog.h`).
pub mod heap {
    /// Bits of `info` that tell the kind.
    pub const OPMASK: u8 = 0x70;
    /// The page is initialised by the record.
    pub const INIT_PAGE: u8 = 0x80;
    /// Insert.
    pub const INSERT: u8 = 0x00;
    /// Delete.
    pub const DELETE: u8 = 0x10;
    /// Update that needs new index entries.
    pub const UPDATE: u8 = 0x20;
    /// `TRUNCATE`, for logical decoding only.
    pub const TRUNCATE: u8 = 0x30;
    /// Update within the page without new index entries.
    pub const HOT_UPDATE: u8 = 0x40;
    /// A speculative insert became real.
    pub const CONFIRM: u8 = 0x50;
    /// Row lock.
    pub const LOCK: u8 = 0x60;
    /// Overwrite of a tuple in its place.
    pub const INPLACE: u8 = 0x70;
}

/// Record kinds of [`HEAP2`] (`access/heapam_xlog.h`).
pub mod heap2 {
    /// A table rewrite's row mappings, for logical decoding only.
    pub const REWRITE: u8 = 0x00;
    /// Pruning.
    pub const PRUNE: u8 = 0x10;
    /// Second heap pass of `VACUUM`.
    pub const VACUUM: u8 = 0x20;
    /// Freezing.
    pub const FREEZE_PAGE: u8 = 0x30;
    /// A bit of the visibility map is set.
    pub const VISIBLE: u8 = 0x40;
    /// Insert of several rows.
    pub const MULTI_INSERT: u8 = 0x50;
    /// Lock of a newer version of a locked row.
    pub const LOCK_UPDATED: u8 = 0x60;
    /// Command ids of a catalog row, for logical decoding only.
    pub const NEW_CID: u8 = 0x70;
}

/// Record kinds of [`COMMIT_TS`] (`access/commit_ts.h`).
pub mod commit_ts {
    /// A page begins, as zeros.
    pub const ZEROPAGE: u8 = 0x00;
    /// Old segments go.
    pub const TRUNCATE: u8 = 0x10;
}

/// Record kinds of [`REPLORIGIN`] (`replication/origin.h`).
pub mod replorigin {
    /// Progress of an origin.
    pub const SET: u8 = 0x00;
    /// An origin was dropped.
    pub const DROP: u8 = 0x10;
}

/// Record kinds of [`LOGICALMSG`] (`replication/message.h`).
pub mod logicalmsg {
    /// A message.
    pub const MESSAGE: u8 = 0x00;
}
