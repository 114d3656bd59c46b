//! Commit log records. Source: PostgreSQL `access/clog.h`.

use super::RecordContentError;
use super::reader::Reader;
use crate::{Oid, TransactionId};

/// Content of [`ZEROPAGE`](crate::wal::rmgr::clog::ZEROPAGE): the page that begins as zeros.
pub fn parse_zero_page(data: &[u8]) -> Result<u32, RecordContentError> {
    Reader::new(data).count("commit log page")
}

/// Content of [`TRUNCATE`](crate::wal::rmgr::clog::TRUNCATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClogTruncate {
    /// Pages older than this one are no longer needed.
    pub page: u32,
    /// The oldest transaction whose status is still needed.
    pub oldest_xid: TransactionId,
    /// The database that holds it back.
    pub oldest_xid_db: Oid,
}

impl ClogTruncate {
    /// Reads `xl_clog_truncate`.
    pub fn parse(data: &[u8]) -> Result<ClogTruncate, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(ClogTruncate {
            page: reader.count("commit log page")?,
            oldest_xid: reader.xid("oldest transaction")?,
            oldest_xid_db: reader.oid("its database")?,
        })
    }
}
