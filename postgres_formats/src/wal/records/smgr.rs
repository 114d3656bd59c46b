//! Relation file records. Source: PostgreSQL `catalog/storage_xlog.h`.

use super::RecordContentError;
use super::reader::Reader;
use crate::{BlockNumber, ForkNumber, RelFileLocator, RelTag};

/// Content of [`CREATE`](crate::wal::rmgr::smgr::CREATE): the fork that was created.
pub fn parse_create(data: &[u8]) -> Result<RelTag, RecordContentError> {
    let mut reader = Reader::new(data);
    let rel = reader.locator("relation")?;
    let number = reader.u32("fork")?;
    let fork = u8::try_from(number).ok().and_then(ForkNumber::from_u8);
    let bad = RecordContentError::BadValue { what: "fork", value: i64::from(number) };
    Ok(rel.fork(fork.ok_or(bad)?))
}

/// Content of [`TRUNCATE`](crate::wal::rmgr::smgr::TRUNCATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmgrTruncate {
    /// The main fork's new size in pages, from which those of the maps follow.
    pub nblocks: BlockNumber,
    /// The relation.
    pub rel: RelFileLocator,
    /// Whether the main fork is cut.
    pub main: bool,
    /// Whether the visibility map is cut.
    pub vm: bool,
    /// Whether the free space map is cut.
    pub fsm: bool,
}

impl SmgrTruncate {
    /// Reads `xl_smgr_truncate`.
    pub fn parse(data: &[u8]) -> Result<SmgrTruncate, RecordContentError> {
        let mut reader = Reader::new(data);
        let nblocks = BlockNumber(reader.u32("new size")?);
        let rel = reader.locator("relation")?;
        let flags = reader.u32("flags")?;
        Ok(SmgrTruncate {
            nblocks,
            rel,
            main: flags & 0x1 != 0,
            vm: flags & 0x2 != 0,
            fsm: flags & 0x4 != 0,
        })
    }
}
