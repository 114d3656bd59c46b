//! Records of replication origins. Source: PostgreSQL `replication/origin.h`.

use super::RecordContentError;
use super::reader::Reader;
use crate::Lsn;

/// Content of [`SET`](crate::wal::rmgr::replorigin::SET).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginSet {
    /// How far the origin's log has been applied.
    pub remote_lsn: Lsn,
    /// Number of the origin.
    pub origin: u16,
    /// Whether this counts also if it is less than before.
    pub force: bool,
}

impl OriginSet {
    /// Reads `xl_replorigin_set`.
    pub fn parse(data: &[u8]) -> Result<OriginSet, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(OriginSet {
            remote_lsn: reader.lsn("remote LSN")?,
            origin: reader.u16("origin")?,
            force: reader.u8("force")? != 0,
        })
    }
}

/// Content of [`DROP`](crate::wal::rmgr::replorigin::DROP): number of the origin.
pub fn parse_drop(data: &[u8]) -> Result<u16, RecordContentError> {
    Reader::new(data).u16("origin")
}
