//! Ends and preparations of transactions.
//!
//! Source: PostgreSQL `access/xact.h`, `backend/access/rmgrdesc/xactdesc.c`.

use super::RecordContentError;
use super::reader::Reader;
use crate::wal::rmgr;
use crate::{Lsn, Oid, RelFileLocator, TransactionId};

const XINFO_HAS_DBINFO: u32 = 1 << 0;
const XINFO_HAS_SUBXACTS: u32 = 1 << 1;
const XINFO_HAS_RELFILENODES: u32 = 1 << 2;
const XINFO_HAS_INVALS: u32 = 1 << 3;
const XINFO_HAS_TWOPHASE: u32 = 1 << 4;
const XINFO_HAS_ORIGIN: u32 = 1 << 5;
const XINFO_HAS_GID: u32 = 1 << 7;
const XINFO_HAS_DROPPED_STATS: u32 = 1 << 8;

/// Size in bytes of `xl_xact_stats_item`.
const STATS_ITEM_SIZE: usize = 12;
/// Size in bytes of `SharedInvalidationMessage`.
const INVALIDATION_SIZE: usize = 16;
/// Size in bytes of `RelFileNode`.
const LOCATOR_SIZE: usize = 12;

/// Content of `COMMIT`, `ABORT`, `COMMIT_PREPARED` and `ABORT_PREPARED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XactEnd {
    /// Whether the transaction committed.
    pub commit: bool,
    /// When, in microseconds since 2000-01-01 00:00:00 UTC.
    pub time: i64,
    /// Subtransactions that end the same way.
    pub subxacts: Vec<TransactionId>,
    /// Relations whose files go, all forks.
    pub dropped_rels: Vec<RelFileLocator>,
    /// For the end of a prepared transaction its id; the record's header then names none or
    /// another. Always there for the two `_PREPARED` kinds, never for the others.
    pub prepared_xid: Option<TransactionId>,
    /// How far the origin of a replicated transaction has been applied.
    pub origin: Option<XactOrigin>,
}

/// Where a replicated transaction comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XactOrigin {
    /// End of its commit in the origin's log.
    pub lsn: Lsn,
    /// Time of its commit there, in microseconds since 2000-01-01 00:00:00 UTC.
    pub time: i64,
}

impl XactEnd {
    /// Reads `xl_xact_commit` or `xl_xact_abort` with all that follows it; `info` is the record's.
    pub fn parse(info: u8, data: &[u8]) -> Result<XactEnd, RecordContentError> {
        let (commit, prepared) = match info & rmgr::xact::OPMASK {
            rmgr::xact::COMMIT => (true, false),
            rmgr::xact::COMMIT_PREPARED => (true, true),
            rmgr::xact::ABORT => (false, false),
            rmgr::xact::ABORT_PREPARED => (false, true),
            _ => return Err(RecordContentError::WrongKind { what: "end of a transaction", info }),
        };
        let mut reader = Reader::new(data);
        let time = reader.i64("time")?;
        let has_info = info & rmgr::xact::HAS_INFO != 0;
        let xinfo = if has_info { reader.u32("xinfo")? } else { 0 };
        let has = |bit: u32| xinfo & bit != 0;

        if has(XINFO_HAS_DBINFO) {
            reader.bytes("database and tablespace", 8)?;
        }
        let mut subxacts = Vec::new();
        if has(XINFO_HAS_SUBXACTS) {
            let count = reader.count("number of subtransactions")?;
            subxacts = reader.xids("subtransactions", count)?;
        }
        let mut dropped_rels = Vec::new();
        if has(XINFO_HAS_RELFILENODES) {
            let count = reader.count("number of dropped relations")?;
            dropped_rels = reader
                .items("dropped relations", count, LOCATOR_SIZE)?
                .map(|item| Reader::new(item).locator("dropped relation"))
                .collect::<Result<_, _>>()?;
        }
        if has(XINFO_HAS_DROPPED_STATS) {
            let count = reader.count("number of dropped statistics")?;
            reader.skip_items("dropped statistics", count, STATS_ITEM_SIZE)?;
        }
        if has(XINFO_HAS_INVALS) {
            let count = reader.count("number of invalidations")?;
            reader.skip_items("invalidations", count, INVALIDATION_SIZE)?;
        }
        let mut prepared_xid = None;
        if has(XINFO_HAS_TWOPHASE) {
            prepared_xid = Some(reader.xid("prepared transaction")?);
            if has(XINFO_HAS_GID) {
                reader.c_string("global transaction id")?;
            }
        }
        if prepared != prepared_xid.is_some() {
            let value = i64::from(xinfo);
            return Err(RecordContentError::BadValue { what: "xinfo", value });
        }
        let mut origin = None;
        if has(XINFO_HAS_ORIGIN) {
            origin = Some(XactOrigin {
                lsn: reader.lsn("origin LSN")?,
                time: reader.i64("origin time")?,
            });
        }
        Ok(XactEnd { commit, time, subxacts, dropped_rels, prepared_xid, origin })
    }
}

/// What storage needs of `PREPARE`; the whole main data is the content of the file in `pg_twophase`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XactPrepare {
    /// The prepared transaction.
    pub xid: TransactionId,
    /// The database it ran in.
    pub db: Oid,
    /// When, in microseconds since 2000-01-01 00:00:00 UTC.
    pub time: i64,
    /// Its subtransactions.
    pub subxacts: Vec<TransactionId>,
    /// Where it comes from, if it is replicated; without meaning if it is not.
    pub origin: XactOrigin,
}

/// `TWOPHASE_MAGIC` of PostgreSQL 15 (`backend/access/transam/twophase.c`).
const TWOPHASE_MAGIC: u32 = 0x57F9_4534;

impl XactPrepare {
    /// Reads the head of `xl_xact_prepare` and the subtransactions.
    pub fn parse(data: &[u8]) -> Result<XactPrepare, RecordContentError> {
        let mut reader = Reader::new(data);
        let magic = reader.u32("magic number")?;
        if magic != TWOPHASE_MAGIC {
            let value = i64::from(magic);
            return Err(RecordContentError::BadValue { what: "magic number", value });
        }
        reader.u32("length")?;
        let xid = reader.xid("transaction")?;
        let db = reader.oid("database")?;
        let time = reader.i64("time")?;
        reader.oid("owner")?;
        let subxact_count = reader.count("number of subtransactions")?;
        // Counts of relations and statistics dropped at commit and abort, and of invalidations.
        reader.bytes("counts", 5 * 4)?;
        reader.bytes("relcache flag", 2)?;
        let gid_length = usize::from(reader.u16("GID length")?);
        let origin =
            XactOrigin { lsn: reader.lsn("origin LSN")?, time: reader.i64("origin time")? };
        // The parts that follow the header begin at multiples of 8 (MAXALIGN).
        reader.align8("padding")?;
        reader.bytes("GID", gid_length)?;
        reader.align8("padding")?;
        let subxacts = reader.xids("subtransactions", subxact_count)?;
        Ok(XactPrepare { xid, db, time, subxacts, origin })
    }
}

/// Content of [`ASSIGNMENT`](rmgr::xact::ASSIGNMENT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XactAssignment {
    /// The top-level transaction.
    pub top: TransactionId,
    /// Subtransactions of it.
    pub subxacts: Vec<TransactionId>,
}

impl XactAssignment {
    /// Reads `xl_xact_assignment`.
    pub fn parse(data: &[u8]) -> Result<XactAssignment, RecordContentError> {
        let mut reader = Reader::new(data);
        let top = reader.xid("top-level transaction")?;
        let count = reader.count("number of subtransactions")?;
        Ok(XactAssignment { top, subxacts: reader.xids("subtransactions", count)? })
    }
}
