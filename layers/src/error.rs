//! What can go wrong, by what the caller has to do.

use std::io;

use crate::{Lsn, Owner};

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes could not be had; another attempt may succeed.
    #[error("cannot read at offset {offset}")]
    Io {
        /// Where the read began, in bytes from the beginning of the file.
        offset: u64,
        /// What the source said.
        source: io::Error,
    },
    /// The bytes are not what was written. Another attempt gives the same.
    #[error("damaged at offset {offset}: {what}")]
    Corrupt {
        /// The block, or other part of the file, that is damaged: where it begins.
        offset: u64,
        /// What does not hold.
        what: &'static str,
    },
    /// A later release wrote this.
    #[error("format version {found} is newer than {known}, the newest that is known here")]
    NewerFormat {
        /// The version in the file.
        found: u32,
        /// The newest version that this reader knows.
        known: u32,
    },
    /// A good file, in a wrong place.
    #[error("the file belongs to {found}, not to {expected}")]
    WrongOwner {
        /// Whose file was asked for.
        expected: Owner,
        /// Whose file it is.
        found: Owner,
    },
}

impl ReadError {
    pub(crate) fn corrupt(offset: u64) -> impl Fn(&'static str) -> ReadError {
        move |what| ReadError::Corrupt { offset, what }
    }
}

/// Why an entry is refused or a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The entry does not come after the one before it, by key and then position. It was not added.
    #[error("the entry at {lsn} does not come after the one before it, by key and position")]
    Unsorted {
        /// The position of the refused entry.
        lsn: Lsn,
    },
    /// The entry's key or value is too long. It was not added.
    #[error("a {what} of {bytes} bytes is longer than {bytes_max}")]
    TooLong {
        /// "key", "value", or "bound".
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The entry's position lies outside the range of the file. It was not added.
    #[error("position {lsn} lies outside the file's range")]
    LsnOutOfRange {
        /// The position of the refused entry.
        lsn: Lsn,
    },
    /// The range of keys that the file is to have does not include all the keys that it has.
    #[error("the range of keys does not include all keys of the file")]
    KeysOutOfRange,
    /// The specification of the file or the options make no sense.
    #[error("{0}")]
    Unusable(&'static str),
    /// The sink failed. What it got so far is not a file and cannot become one.
    #[error("cannot write at offset {offset}")]
    Io {
        /// Where the failed write began, in bytes from the beginning of the file.
        offset: u64,
        /// What the sink, or the compressor, said.
        source: io::Error,
    },
    /// The sink failed before; nothing can be added any more.
    #[error("an earlier write failed")]
    Failed,
}
