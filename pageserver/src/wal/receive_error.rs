//! `ReceiveError`: why receiving from a server ended, and what is to be made of that.

use std::io;

use postgres_formats::{Lsn, SystemId};
use postgres_wire::client::ClientError;
use postgres_wire::replication::ReplicationError;

use super::identity::Refusal;
use super::joint::JointError;
use super::receiver::SILENCE_MAX;
use crate::repository::RepositoryError;
use crate::stop::StopKind;
use crate::timeline::IngestError;

/// Why receiving ended.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The server is not there, refused, or the connection broke.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// Nothing was heard for too long.
    #[error("the server has been silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// The server belongs to another cluster.
    #[error(
        "the server has system identifier {found}, but this timeline belongs to {expected}: \
         it is no compute or original of this repository"
    )]
    OtherCluster {
        /// The timeline's.
        expected: SystemId,
        /// The server's.
        found: SystemId,
    },
    /// It is not the server whose WAL the timeline takes.
    #[error(transparent)]
    Fenced(#[from] Refusal),
    /// What was received before cannot be read to compare it.
    #[error("cannot read what was received")]
    Io(#[source] io::Error),
    /// The server was promoted, or recovered to a point in time.
    #[error(
        "the server is on PostgreSQL timeline {found}, but this branch's history is on {expected}: \
         it was promoted or recovered, and may not go on where this branch ends"
    )]
    OtherHistory {
        /// The timeline's.
        expected: u32,
        /// The server's.
        found: u32,
    },
    /// The server no longer keeps the WAL that comes next.
    #[error(
        "the server cannot go on at {start}, its WAL from there is gone: the compute has to be \
         made anew from this branch"
    )]
    WalGone {
        /// Where receiving has to go on.
        start: Lsn,
        /// What the server said.
        source: ReplicationError,
    },
    /// The timeline is not there or cannot be loaded.
    #[error("cannot open the timeline")]
    Repository(#[from] RepositoryError),
    /// The WAL could not be taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl ReceiveError {
    /// Whether trying again cannot help until somebody has put something else in its place.
    pub fn needs_somebody(&self) -> bool {
        match self {
            ReceiveError::OtherCluster { .. }
            | ReceiveError::OtherHistory { .. }
            | ReceiveError::Repository(_) => true,
            // Bytes may be bad only once, and whoever mends the cause should not have to do more.
            ReceiveError::Ingest(_)
            | ReceiveError::Replication(_)
            | ReceiveError::Silent
            // Another server may come to be at that address.
            | ReceiveError::Fenced(_)
            | ReceiveError::Io(_)
            | ReceiveError::WalGone { .. } => false,
        }
    }

    /// Whether it is what the server itself has said.
    pub fn is_answer(&self) -> bool {
        matches!(self, ReceiveError::Replication(ReplicationError::Client(ClientError::Server(_))))
    }

    /// The kind of stop that it makes of its own: the server is there, and has nothing for us.
    pub(super) fn stop_kind(&self) -> Option<StopKind> {
        match self {
            ReceiveError::OtherCluster { .. } | ReceiveError::OtherHistory { .. } => {
                Some(StopKind::Foreign)
            }
            ReceiveError::WalGone { .. } => Some(StopKind::Missing),
            _ => None,
        }
    }

    /// Whether the server is there, and must not be followed.
    pub fn is_fenced(&self) -> bool {
        matches!(self, ReceiveError::Fenced(_))
    }

    /// Whether it only says that the server is not there at the moment.
    pub fn is_absence(&self) -> bool {
        match self {
            ReceiveError::Silent => true,
            ReceiveError::Replication(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl From<JointError> for ReceiveError {
    fn from(error: JointError) -> ReceiveError {
        match error {
            JointError::Refused(refusal) => refusal.into(),
            JointError::Io(source) => ReceiveError::Io(source),
        }
    }
}
