//! Why a record could not be turned into changes or a page.

use std::fmt;

use postgres_formats::Lsn;
use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::rmgr;
use postgres_formats::wal::{DecodedRecord, WalRecord};

use crate::key::PageKey;

/// Names a record in messages: resource manager, kind and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordName {
    /// Resource manager.
    pub rmid: u8,
    /// The record's kind, `xl_info` without the WAL machinery's bits.
    pub info: u8,
    /// Where the record begins.
    pub start: Lsn,
}

impl RecordName {
    /// The name of this record.
    pub fn of(rec: &WalRecord, dec: &DecodedRecord) -> RecordName {
        RecordName { rmid: dec.header.rmid, info: dec.header.rmgr_info(), start: rec.start }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match rmgr::name(self.rmid) {
            Some(name) => write!(f, "{name}")?,
            None => write!(f, "resource manager {}", self.rmid)?,
        }
        write!(f, " record {:#04x} at {}", self.info, self.start)
    }
}

/// A record, its checksum right, that is not understood or cannot be what it says it is; or a wrong
/// question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// The record's data is not laid out as its kind demands.
    #[error("{record} is malformed: {source}")]
    Content {
        /// The record.
        record: RecordName,
        /// What is wrong.
        source: RecordContentError,
    },
    /// Nobody knows what records of this kind do. PostgreSQL 15 writes none.
    #[error("{record} is of a kind that is not known")]
    UnknownKind {
        /// The record.
        record: RecordName,
    },
    /// The record belongs to an extension's resource manager.
    #[error(
        "{record} is an extension's, and no library that the redo processes load has registered \
         custom resource manager {}: name its library in zenith.toml, [walredo] libraries = \
         [\"NAME\"], and start the page server again",
        record.rmid
    )]
    CustomResourceManager {
        /// The record.
        record: RecordName,
    },
    /// A block reference that records of this kind always have is missing.
    #[error("{record} is malformed: it has no block reference {id}")]
    MissingBlock {
        /// The record.
        record: RecordName,
        /// Id of the block reference.
        id: u8,
    },
    /// [`super::native::apply`] was asked for a page that the record does not change, or that
    /// PostgreSQL's redo changes: the caller's index does not belong to this WAL.
    #[error("{record} does not change {key} without PostgreSQL's redo")]
    NotNative {
        /// The record.
        record: RecordName,
        /// The page.
        key: PageKey,
    },
}
