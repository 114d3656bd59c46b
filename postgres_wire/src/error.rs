//! What can be wrong with a connection, at either end of it.

use std::io;

/// The connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer ended the connection, or vanished.
    #[error("the connection was closed by the other side")]
    Closed,
    /// Nothing could be read or written for as long as the caller was willing to wait.
    #[error("timed out {0}")]
    TimedOut(&'static str),
    /// The `StopSignal` of the connection fired.
    #[error("stopped by request")]
    Stopped,
    /// The peer announced a message longer than the limit; nothing of it was kept.
    #[error("message of type '{}' claims {length} bytes, more than the {limit} allowed", tag.escape_ascii())]
    MessageTooLong {
        /// The message's type byte; zero for a startup packet.
        tag: u8,
        /// The length that the peer claimed, in bytes.
        length: usize,
        /// The limit from `limits`, in bytes.
        limit: usize,
    },
    /// The peer broke the protocol.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The operating system failed the socket.
    #[error("socket error")]
    Io(#[source] io::Error),
}

impl ConnectionError {
    /// A breach of the protocol, in words.
    pub(crate) fn protocol(what: impl Into<String>) -> ConnectionError {
        ConnectionError::Protocol(what.into())
    }

    /// Errors of the socket calls, with those that mean "gone" told apart.
    pub(crate) fn from_socket(error: io::Error) -> ConnectionError {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => ConnectionError::Closed,
            _ => ConnectionError::Io(error),
        }
    }
}

/// For the `io::Read` and `io::Write` faces of COPY. The error itself stays inside as the source.
impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> io::Error {
        let kind = match &error {
            ConnectionError::Closed => io::ErrorKind::BrokenPipe,
            ConnectionError::TimedOut(_) => io::ErrorKind::TimedOut,
            ConnectionError::Stopped => io::ErrorKind::ConnectionAborted,
            ConnectionError::MessageTooLong { .. } | ConnectionError::Protocol(_) => {
                io::ErrorKind::InvalidData
            }
            ConnectionError::Io(source) => source.kind(),
        };
        io::Error::new(kind, error)
    }
}
