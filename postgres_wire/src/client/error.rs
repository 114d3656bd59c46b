//! `ClientError`, by what the caller has to do about it.

use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use crate::client::params::ParamsError;
use crate::error::ConnectionError;
use crate::sqlstate::SqlState;

/// Why a client could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection string is wrong; trying again will not help.
    #[error("invalid connection string")]
    Params(#[from] ParamsError),
    /// Nobody answers at the address; worth trying again later.
    #[error("could not connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The server wants to know who we are in a way that we cannot, or may not, satisfy.
    #[error("authentication failed: {0}")]
    Authentication(String),
    /// The server refused; the connection can be used further unless the severity is FATAL.
    #[error(transparent)]
    Server(#[from] Box<ServerError>),
    /// The connection is lost; connect again.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server answered something else than the command's kind of answer.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl ClientError {
    /// The server's error code, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<SqlState> {
        match self {
            ClientError::Server(error) => Some(error.sqlstate),
            _ => None,
        }
    }

    /// Whether the same may work on a new connection some time later: the server is not there, or
    /// not ready, or the connection broke.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Connect { .. } => true,
            ClientError::Connection(error) => !matches!(error, ConnectionError::Stopped),
            ClientError::Server(error) => {
                // Class 53: out of resources; 57P0x: shutting down, crashed, starting up.
                let code = error.sqlstate.code();
                code.starts_with("53") || code.starts_with("57P0")
            }
            ClientError::Params(_)
            | ClientError::Authentication(_)
            | ClientError::Unexpected(_) => false,
        }
    }
}

/// An error that a server reported.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{severity}: {message} (SQLSTATE {sqlstate})")]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`; after the latter two the connection is gone.
    pub severity: String,
    /// The code that programs look at.
    pub sqlstate: SqlState,
    /// The message.
    pub message: String,
    /// The detail, or empty.
    pub detail: String,
    /// The hint, or empty.
    pub hint: String,
}

impl ServerError {
    /// Whether the server ends the connection with this error.
    pub fn is_fatal(&self) -> bool {
        self.severity != "ERROR"
    }

    pub(crate) fn parse(mut fields: ErrorFields<'_>) -> Result<ServerError, ConnectionError> {
        let mut error = ServerError {
            severity: "ERROR".to_owned(),
            sqlstate: SqlState::INTERNAL_ERROR,
            message: String::new(),
            detail: String::new(),
            hint: String::new(),
        };
        let malformed = |_| ConnectionError::protocol("malformed ErrorResponse");
        while let Some(field) = fields.next().map_err(malformed)? {
            let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                // Not the localised severity `S`; servers since 9.6 send both.
                b'V' => error.severity = text(),
                b'C' => {
                    if let Some(state) = SqlState::from_code(&text()) {
                        error.sqlstate = state;
                    }
                }
                b'M' => error.message = text(),
                b'D' => error.detail = text(),
                b'H' => error.hint = text(),
                _ => {}
            }
        }
        Ok(error)
    }
}

/// For the `io::Read` face of COPY OUT.
impl From<ClientError> for io::Error {
    fn from(error: ClientError) -> io::Error {
        match error {
            ClientError::Connection(error) => error.into(),
            other => io::Error::other(other),
        }
    }
}
