//! What is asked of the pool.

use bytes::Bytes;
use postgres_formats::{BlockNumber, Lsn, PageImage, RelTag};

/// One WAL record to apply.
#[derive(Clone, Debug)]
pub struct RedoRecord {
    /// The record's end (PostgreSQL's `EndRecPtr`), which becomes the page's LSN.
    pub end: Lsn,
    /// The record as one piece, `xl_tot_len` bytes beginning with its `XLogRecord` header, without
    /// the WAL page headers that lay between.
    pub bytes: Bytes,
}

/// A page to be made: what it was, and every record since that changes it.
#[derive(Clone, Debug)]
pub struct RedoRequest {
    /// The relation fork that the records name.
    pub rel: RelTag,
    /// The page's block number.
    pub block: BlockNumber,
    /// The page before the first record. `None`: zeros, which is right if the first record makes
    /// the page anew.
    pub base: Option<PageImage>,
    /// The records, oldest first. Each must name the block; what it does to other blocks is not
    /// done.
    pub records: Vec<RedoRecord>,
}

/// Which bits of a page to leave out of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaskKind {
    /// Those that records of this resource manager do not promise (PostgreSQL's `rm_mask`): LSN,
    /// checksum, hint bits, unused space and others.
    ResourceManager(u8),
    /// Only LSN and checksum.
    PageHeader,
}
