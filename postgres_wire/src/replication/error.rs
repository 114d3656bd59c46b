//! `ReplicationError`, by what a WAL receiver has to do about it.

use postgres_formats::lsn::Lsn;

use crate::client::ClientError;
use crate::error::ConnectionError;
use crate::sqlstate::SqlState;

/// Why replication does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The server shuts down and has sent everything; connect again later.
    #[error("the server is shutting down")]
    ServerStopping,
    /// The PostgreSQL timeline ends here.
    #[error("the PostgreSQL timeline has ended")]
    TimelineEnded {
        /// The timeline that follows, and where it begins, if streaming could not even start. At the
        /// end of a stream `ReplicationStream::finish` tells.
        next: Option<(u32, Lsn)>,
    },
    /// The WAL asked for is no longer on the server, or never was.
    #[error("the server has no WAL at {start}")]
    WalGone {
        /// Where it was to start.
        start: Lsn,
        /// In the server's words.
        #[source]
        source: ClientError,
    },
    /// Another client uses the slot; it may be a half-open connection of our own.
    #[error("replication slot \"{slot}\" is in use")]
    SlotInUse {
        /// The slot.
        slot: String,
        /// In the server's words.
        #[source]
        source: ClientError,
    },
    /// There is no such slot.
    #[error("there is no replication slot \"{slot}\"")]
    NoSlot {
        /// The slot.
        slot: String,
        /// In the server's words.
        #[source]
        source: ClientError,
    },
    /// Anything else; `ClientError::is_transient` says whether a new connection may help.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<ConnectionError> for ReplicationError {
    fn from(error: ConnectionError) -> ReplicationError {
        ReplicationError::Client(error.into())
    }
}

impl ReplicationError {
    /// The receiver's own `StopSignal` fired.
    pub fn is_stopped(&self) -> bool {
        matches!(self, ReplicationError::Client(ClientError::Connection(ConnectionError::Stopped)))
    }

    /// Whether connecting again after a pause is the thing to do.
    pub fn is_transient(&self) -> bool {
        match self {
            ReplicationError::ServerStopping | ReplicationError::SlotInUse { .. } => true,
            ReplicationError::TimelineEnded { .. }
            | ReplicationError::WalGone { .. }
            | ReplicationError::NoSlot { .. } => false,
            ReplicationError::Client(error) => error.is_transient(),
        }
    }

    /// Tells apart the ways in which START_REPLICATION and slot commands fail.
    pub(crate) fn classify(error: ClientError, slot: Option<&str>, start: Lsn) -> Self {
        let slot_name = || slot.unwrap_or_default().to_owned();
        match error.sqlstate() {
            Some(SqlState::OBJECT_IN_USE) => {
                ReplicationError::SlotInUse { slot: slot_name(), source: error }
            }
            Some(SqlState::UNDEFINED_OBJECT) if slot.is_some() => {
                ReplicationError::NoSlot { slot: slot_name(), source: error }
            }
            // "requested WAL segment .. has already been removed"
            Some(SqlState::UNDEFINED_FILE) => ReplicationError::WalGone { start, source: error },
            _ => ReplicationError::Client(error),
        }
    }
}
