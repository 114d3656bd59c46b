//! Records of commit timestamps. Source: PostgreSQL `access/commit_ts.h`.
//!
//! The timestamps themselves have no records of their own: redo takes them from those of commits.

use super::RecordContentError;
use super::reader::Reader;
use crate::TransactionId;

/// Content of [`ZEROPAGE`](crate::wal::rmgr::commit_ts::ZEROPAGE): the page that begins as zeros.
pub fn parse_zero_page(data: &[u8]) -> Result<u32, RecordContentError> {
    Reader::new(data).count("page of commit timestamps")
}

/// Content of [`TRUNCATE`](crate::wal::rmgr::commit_ts::TRUNCATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitTsTruncate {
    /// Pages older than this one are no longer needed.
    pub page: u32,
    /// The oldest transaction whose timestamp is kept.
    pub oldest_xid: TransactionId,
}

impl CommitTsTruncate {
    /// Reads `xl_commit_ts_truncate`.
    pub fn parse(data: &[u8]) -> Result<CommitTsTruncate, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(CommitTsTruncate {
            page: reader.count("page of commit timestamps")?,
            oldest_xid: reader.xid("oldest transaction")?,
        })
    }
}
