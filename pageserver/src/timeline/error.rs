//! Why a timeline could not be opened or asked about its objects.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use postgres_formats::control_file::ControlFileError;
use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::{RecordParseError, WalDecodeError};
use postgres_formats::{Lsn, TimelineId, Timestamp};

use super::manifest::ManifestError;
use crate::layer::image::LayerError;
use crate::stop::Stop;

/// Why a timeline could not be opened or asked about its objects.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A layer cannot be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The control file cannot be used.
    #[error("control file {path}")]
    ControlFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ControlFileError,
    },
    /// The operating system's answer about a file.
    #[error("{path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The manifest names an ancestor that was not given, or there is one too many.
    #[error("timeline {0} does not fit the ancestor found for it")]
    AncestorMissing(TimelineId),
    /// What it stands on was removed.
    #[error("timeline {ancestor}, which this one stands on, has no history at {lsn} any more")]
    AncestorRemoved {
        /// The ancestor.
        ancestor: TimelineId,
        /// Where this one begins.
        lsn: Lsn,
    },
    /// WAL that was indexed before can no longer be read as it was.
    #[error("WAL of timeline {timeline} at {lsn} is damaged")]
    DamagedWal {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where.
        lsn: Lsn,
        /// What is wrong with it.
        source: WalDecodeError,
    },
    /// A record that was indexed before makes no sense now.
    #[error("WAL record of timeline {timeline} at {lsn} is damaged")]
    DamagedRecord {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where.
        lsn: Lsn,
        /// What is wrong with it.
        source: RecordParseError,
    },
    /// A record that was indexed before has a malformed content now.
    #[error("WAL record of timeline {timeline} at {lsn} is damaged")]
    DamagedContent {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where.
        lsn: Lsn,
        /// What is wrong with it.
        source: RecordContentError,
    },
    /// WAL that was indexed before is not there.
    #[error("WAL of timeline {timeline} at {lsn} is missing")]
    MissingWal {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where.
        lsn: Lsn,
    },
    /// Asked for the end of history, or for what comes last before a time, where that is not known.
    #[error("the end of the history of this timeline is not known: WAL {0}")]
    Stopped(Arc<Stop>),
    /// WAL cannot be taken in or made durable.
    #[error(transparent)]
    Ingest(#[from] super::IngestError),
    /// Asked for a state before the beginning of all history.
    #[error(
        "LSN {wanted} is before the beginning of the history of this timeline, which is {oldest}"
    )]
    BeforeBeginning {
        /// What was asked for.
        wanted: Lsn,
        /// The oldest that can be.
        oldest: Lsn,
    },
    /// The same by a time.
    #[error("{wanted} is before the beginning of the history of this timeline, which is {oldest}")]
    TimeBeforeBeginning {
        /// What was asked for.
        wanted: Timestamp,
        /// The oldest that can be.
        oldest: Timestamp,
    },
}

impl TimelineError {
    /// Whether WAL on disk is not as it was when it was indexed.
    pub fn is_damaged_wal(&self) -> bool {
        matches!(
            self,
            TimelineError::DamagedWal { .. }
                | TimelineError::DamagedRecord { .. }
                | TimelineError::DamagedContent { .. }
                | TimelineError::MissingWal { .. }
        )
    }
}
