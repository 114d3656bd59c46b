//! Records of the log's own affairs. Source: PostgreSQL `catalog/pg_control.h`,
//! `access/xlog_internal.h`. Checkpoints are read by [`crate::checkpoint::CheckPoint`].

use super::RecordContentError;
use super::reader::Reader;
use crate::Oid;

/// Content of [`NEXTOID`](crate::wal::rmgr::xlog::NEXTOID): ids below this one may be in use.
pub fn parse_next_oid(data: &[u8]) -> Result<Oid, RecordContentError> {
    Reader::new(data).oid("next object id")
}

/// Content of [`FPW_CHANGE`](crate::wal::rmgr::xlog::FPW_CHANGE): whether `full_page_writes` is on.
pub fn parse_fpw_change(data: &[u8]) -> Result<bool, RecordContentError> {
    Ok(Reader::new(data).u8("full_page_writes")? != 0)
}

/// Content of [`END_OF_RECOVERY`](crate::wal::rmgr::xlog::END_OF_RECOVERY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfRecovery {
    /// When, in microseconds since 2000-01-01 00:00:00 UTC.
    pub time: i64,
    /// PostgreSQL's timeline from now on.
    pub tli: u32,
    /// PostgreSQL's timeline before.
    pub previous_tli: u32,
}

impl EndOfRecovery {
    /// Reads `xl_end_of_recovery`.
    pub fn parse(data: &[u8]) -> Result<EndOfRecovery, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(EndOfRecovery {
            time: reader.i64("time")?,
            tli: reader.u32("timeline")?,
            previous_tli: reader.u32("previous timeline")?,
        })
    }
}
