//! `FollowError`: why a timeline cannot be made to follow a server.

use std::io;
use std::path::PathBuf;

use durable_files::FactError;
use pageserver_client::{BranchName, Generation};
use postgres_wire::client::ParamsError;

use crate::timeline::IngestError;

/// Why a timeline cannot be made to follow a server, or to stop.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The connection string makes no sense.
    #[error("invalid connection string: {0}")]
    Params(#[from] ParamsError),
    /// It is not known who writes the timeline or whom it follows, or cannot be remembered.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// The timelines' folders cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another compute writes the timeline by now.
    #[error("{0}")]
    Fenced(String),
    /// The timeline has a writer, so that no server can be followed that does not say which it is.
    #[error(
        "compute \"{0}\" writes this timeline, so no server is followed on it without the compute's \
         instance and generation"
    )]
    Unnamed(BranchName),
    /// The timeline has never had the writer that this compute says it is.
    #[error("generation {0} of this timeline has never been given away; start the compute anew")]
    Unknown(Generation),
    /// The role has gone to somebody else meanwhile.
    #[error("this timeline's writer is of generation {found} by now, not {expected}; try again")]
    Taken {
        /// What was expected.
        expected: Generation,
        /// What it is.
        found: Generation,
    },
    /// The present writer is alive.
    #[error("compute \"{0}\" still runs and writes this timeline")]
    Alive(String),
    /// What was received cannot be brought to an end.
    #[error("cannot end the WAL of the timeline where its last record ends")]
    Ingest(#[from] IngestError),
    /// There cannot be another thread.
    #[error("cannot start a thread for receiving WAL")]
    Thread(#[source] io::Error),
    /// Nothing new is begun now.
    #[error("the page server is shutting down")]
    ShuttingDown,
}
