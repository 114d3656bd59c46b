//! A stock server's data directory at an LSN, with as little of us in it as can be.
//!
//! What comes out is the base image of the root timeline as plain files, and the raw WAL from there
//! to the LSN, ancestors' and the timeline's own in one row. `pg_control` says that the server
//! crashed: stock PostgreSQL that is started there recovers to the end of that WAL by itself and
//! stays on its PostgreSQL timeline. No index, no cache, no redo of ours takes part, so that the result can
//! be held against what GetPage@LSN says (`zenith verify`).
//!
//! Where some of that WAL was removed, recovery begins later (`begin`), and what comes out is the
//! WAL alone. All other files are for the page server to give, as they were where it begins.
//!
//! Runs beside the daemon: manifests and image layers never change, and WAL only grows, but for
//! what lies beyond the last record. It is removed from its beginning on; if that happens just now, it
//! is tried again.

mod base;
mod begin;
mod lineage;
mod raw;
mod source;
mod tablespaces;
#[cfg(test)]
mod tests;
mod wal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use postgres_formats::control_file::{CONTROL_FILE_PATH, ClusterState};
use postgres_formats::field_reader::Truncated;
use postgres_formats::wal::{RecordParseError, WalDecodeError};
use postgres_formats::{Lsn, TimelineId};

use crate::layer::image::LayerError;
use crate::timeline::manifest::ManifestError;
use base::Image;
use lineage::Lineage;

pub use raw::{RawWal, write_raw_wal};

/// Why there is no such data directory. What has been written by then is worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// A manifest of the timeline or of an ancestor.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The base image.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The cluster's control file cannot be used.
    #[error("{path}: {what}")]
    ControlFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The base image begins only after the LSN.
    #[error("{lsn} is before the beginning of the history at {start}")]
    BeforeStart {
        /// The LSN asked for.
        lsn: Lsn,
        /// The first that there is.
        start: Lsn,
    },
    /// WAL between the base image and the LSN is not there.
    #[error("the WAL in {dir} ends at {end}, and it is needed up to {needed}")]
    WalMissing {
        /// The folder with the segments.
        dir: PathBuf,
        /// Where the bytes end.
        end: Lsn,
        /// How far they should go.
        needed: Lsn,
    },
    /// WAL behind the base image has been removed, since layers have what it says.
    #[error(
        "the WAL from {start} to {oldest} is not there: history can be recovered from its beginning where \
         [wal] keep = true in zenith.toml keeps all of it"
    )]
    WalRemoved {
        /// Where it would begin.
        start: Lsn,
        /// The oldest that is there.
        oldest: Lsn,
    },
    /// WAL has been removed since it was looked where it begins.
    #[error(
        "the WAL at {0} was removed while it was read, since layers have what it says; try again"
    )]
    RemovedMeanwhile(Lsn),
    /// No record up to the LSN is kept.
    #[error(
        "{lsn} cannot be verified: that takes WAL before it, and what is kept begins at {oldest} \
         ([wal] keep and [retention] in zenith.toml)"
    )]
    OutOfReach {
        /// The LSN asked for.
        lsn: Lsn,
        /// From here on there is WAL, and pages can be asked for.
        oldest: Lsn,
    },
    /// The WAL is damaged.
    #[error(transparent)]
    Wal(#[from] WalDecodeError),
    /// A record makes no sense.
    #[error("record at {start}")]
    Record {
        /// Where it begins.
        start: Lsn,
        /// What is wrong.
        source: RecordParseError,
    },
    /// The record of a server's parameters is malformed.
    #[error("parameters in the record at {start}")]
    Parameters {
        /// Where it begins.
        start: Lsn,
        /// What is missing.
        source: Truncated,
    },
    /// Something else is wrong with the chain of ancestors.
    #[error("the ancestors of timeline {0} go round in a circle")]
    Circle(TimelineId),
    /// The operating system's answer.
    #[error("{path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Materialized {
    /// End of the last record that is in the WAL, where the next one would begin.
    pub end: Lsn,
    /// Start of the last record: PostgreSQL's `redo done at` when it has recovered from the base image.
    pub last_record: Lsn,
    /// Whether the server that wrote the WAL tracked commit timestamps at its end. One that recovers
    /// with the other setting removes or begins them as soon as it has recovered. `None`: the WAL does
    /// not say, so it is as where it begins.
    pub tracks_commit_timestamps: Option<bool>,
    /// Start of the record from which on the WAL is there, and nothing besides; `None`: the base image
    /// is there, and all WAL behind it.
    pub begins: Option<Lsn>,
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> MaterializeError + '_ {
    |source| MaterializeError::Io { path: path.to_owned(), source }
}

/// How often it is begun anew because WAL was removed meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// Makes the data directory of `timeline` at `lsn` in the empty folder `into`. An LSN within a record
/// stands for the end of the record before it. With `since`, the oldest LSN from which on the page
/// server answers, it may come out as no more than WAL (`Materialized::begins`).
///
/// # Errors
/// See `MaterializeError`.
pub fn materialize(
    repository: &Path,
    timeline: TimelineId,
    lsn: Lsn,
    since: Option<Lsn>,
    into: &Path,
) -> Result<Materialized, MaterializeError> {
    let lineage = Lineage::read(repository, timeline)?;
    if lsn < lineage.start {
        return Err(MaterializeError::BeforeStart { lsn, start: lineage.start });
    }
    let pg_wal = into.join("pg_wal");
    let mut attempts = 0;
    let made = loop {
        fs::create_dir_all(&pg_wal).map_err(io_error(&pg_wal))?;
        let begin = begin::choose(&lineage, lsn, since);
        match begin.and_then(|begin| wal::write(&lineage, begin, lsn, &pg_wal)) {
            Err(MaterializeError::RemovedMeanwhile(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
            other => break other?,
        }
        fs::remove_dir_all(&pg_wal).map_err(io_error(&pg_wal))?;
    };
    if made.begins.is_some() {
        return Ok(made);
    }
    base::write(&Image::open(&lineage)?, into)?;
    // Not "shut down": then PostgreSQL would not look at any WAL behind the checkpoint.
    let mut control = lineage.cluster.control_file.clone();
    control.state = ClusterState::InProduction;
    let path = into.join(CONTROL_FILE_PATH);
    fs::write(&path, control.encode()).map_err(io_error(&path))?;
    Ok(made)
}
