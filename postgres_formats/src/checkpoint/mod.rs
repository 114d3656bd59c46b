//! `CheckPoint`: what PostgreSQL has to know to begin from a position in the WAL.
//!
//! The same 88 bytes are the main data of a checkpoint record and a part of the control file.
//! Source: `CheckPoint` in PostgreSQL `catalog/pg_control.h`.
//!
//! ```text
//! offset  size  field                    offset  size  field
//!      0     8  redo                         44     4  oldestXid
//!      8     4  ThisTimeLineID               48     4  oldestXidDB
//!     12     4  PrevTimeLineID               52     4  oldestMulti
//!     16     1  fullPageWrites               56     4  oldestMultiDB
//!     17     7  padding                      60     4  padding
//!     24     8  nextXid                      64     8  time
//!     32     4  nextOid                      72     4  oldestCommitTsXid
//!     36     4  nextMulti                    76     4  newestCommitTsXid
//!     40     4  nextMultiOffset              80     4  oldestActiveXid
//!                                            84     4  padding
//! ```

mod state;

pub use state::CheckpointState;

use crate::field_reader::{FieldReader, Truncated};
use crate::{FullTransactionId, Lsn, MultiXactId, Oid, TransactionId};

/// Size in bytes of an encoded [`CheckPoint`].
pub const CHECKPOINT_SIZE: usize = 88;

/// PostgreSQL's counters and limits at one position of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckPoint {
    /// Where replay has to begin.
    pub redo: Lsn,
    /// PostgreSQL's timeline number.
    pub this_tli: u32,
    /// The timeline number before, if the checkpoint began a new one; else the same.
    pub prev_tli: u32,
    /// Whether `full_page_writes` was on.
    pub full_page_writes: bool,
    /// The next transaction to hand out.
    pub next_xid: FullTransactionId,
    /// The next object id to hand out.
    pub next_oid: Oid,
    /// The next multixact to hand out.
    pub next_multi: MultiXactId,
    /// The next place for multixact members to hand out.
    pub next_multi_offset: u32,
    /// The oldest transaction that any database may still look up: minimum of `datfrozenxid`.
    pub oldest_xid: TransactionId,
    /// A database with that minimum.
    pub oldest_xid_db: Oid,
    /// The oldest multixact that any database may still look up: minimum of `datminmxid`.
    pub oldest_multi: MultiXactId,
    /// A database with that minimum.
    pub oldest_multi_db: Oid,
    /// When, in seconds since 1970 (`pg_time_t`).
    pub time: i64,
    /// The oldest transaction with a commit timestamp.
    pub oldest_commit_ts_xid: TransactionId,
    /// The newest transaction with a commit timestamp.
    pub newest_commit_ts_xid: TransactionId,
    /// The oldest running transaction; invalid except in checkpoints of a running server.
    pub oldest_active_xid: TransactionId,
}

impl CheckPoint {
    /// Reads the structure from the beginning of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<CheckPoint, Truncated> {
        let mut fields = FieldReader::new(bytes);
        let redo = Lsn::new(fields.u64()?);
        let this_tli = fields.u32()?;
        let prev_tli = fields.u32()?;
        let full_page_writes = fields.u8()? != 0;
        fields.skip(7)?;
        let next_xid = FullTransactionId(fields.u64()?);
        let next_oid = Oid(fields.u32()?);
        let next_multi = MultiXactId(fields.u32()?);
        let next_multi_offset = fields.u32()?;
        let oldest_xid = TransactionId(fields.u32()?);
        let oldest_xid_db = Oid(fields.u32()?);
        let oldest_multi = MultiXactId(fields.u32()?);
        let oldest_multi_db = Oid(fields.u32()?);
        fields.skip(4)?;
        let time = fields.i64()?;
        let oldest_commit_ts_xid = TransactionId(fields.u32()?);
        let newest_commit_ts_xid = TransactionId(fields.u32()?);
        let oldest_active_xid = TransactionId(fields.u32()?);
        fields.skip(4)?;
        Ok(CheckPoint {
            redo,
            this_tli,
            prev_tli,
            full_page_writes,
            next_xid,
            next_oid,
            next_multi,
            next_multi_offset,
            oldest_xid,
            oldest_xid_db,
            oldest_multi,
            oldest_multi_db,
            time,
            oldest_commit_ts_xid,
            newest_commit_ts_xid,
            oldest_active_xid,
        })
    }

    /// The structure's bytes; padding is zero, as PostgreSQL leaves it.
    pub fn encode(&self) -> [u8; CHECKPOINT_SIZE] {
        let mut bytes = [0; CHECKPOINT_SIZE];
        let mut put = |at: usize, field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        put(0, &self.redo.as_u64().to_le_bytes());
        put(8, &self.this_tli.to_le_bytes());
        put(12, &self.prev_tli.to_le_bytes());
        put(16, &[u8::from(self.full_page_writes)]);
        put(24, &self.next_xid.0.to_le_bytes());
        put(32, &self.next_oid.0.to_le_bytes());
        put(36, &self.next_multi.0.to_le_bytes());
        put(40, &self.next_multi_offset.to_le_bytes());
        put(44, &self.oldest_xid.0.to_le_bytes());
        put(48, &self.oldest_xid_db.0.to_le_bytes());
        put(52, &self.oldest_multi.0.to_le_bytes());
        put(56, &self.oldest_multi_db.0.to_le_bytes());
        put(64, &self.time.to_le_bytes());
        put(72, &self.oldest_commit_ts_xid.0.to_le_bytes());
        put(76, &self.newest_commit_ts_xid.0.to_le_bytes());
        put(80, &self.oldest_active_xid.0.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_field_round_trips() {
        // Distinct bytes everywhere: a field read or written at a wrong place shows.
        let mut bytes: [u8; CHECKPOINT_SIZE] = std::array::from_fn(|i| i as u8 + 1);
        bytes[16] = 1;
        bytes[17..24].fill(0);
        bytes[60..64].fill(0);
        bytes[84..88].fill(0);
        assert_eq!(CheckPoint::decode(&bytes).unwrap().encode(), bytes);
        assert!(CheckPoint::decode(&bytes[..87]).is_err());
    }
}
