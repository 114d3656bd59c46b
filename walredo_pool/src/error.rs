//! Why there is no page.

use std::path::PathBuf;
use std::time::Duration;

use postgres_formats::Lsn;

/// A request failed. Other requests are not concerned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedoError {
    /// PostgreSQL refused: a damaged record, a page that does not fit the record, or a record that
    /// does not name the page. Asking again will not help.
    #[error("redo failed at record ending at {record}: {message}{}", Saved(saved))]
    Refused {
        /// End of the record that could not be applied; `Lsn::INVALID` if none was reached.
        record: Lsn,
        /// PostgreSQL's message.
        message: String,
        /// Where the input was saved.
        saved: Option<PathBuf>,
    },

    /// The process died each time it was given this request.
    #[error("redo process died: {message}{}", Saved(saved))]
    Died {
        /// How it ended, and the last that it wrote to its standard error.
        message: String,
        /// Where the input was saved.
        saved: Option<PathBuf>,
    },

    /// The process gave no reply in time and was killed.
    #[error("redo gave no reply within {timeout:?}{}", Saved(saved))]
    Timeout {
        /// The time it had.
        timeout: Duration,
        /// Where the input was saved.
        saved: Option<PathBuf>,
    },

    /// A record is longer than `limits::RECORD_BYTES_MAX`.
    #[error("WAL record ending at {record} has {bytes} bytes, more than redo accepts")]
    RecordTooLarge {
        /// End of the record.
        record: Lsn,
        /// Its length in bytes.
        bytes: usize,
    },

    /// No redo process can be started. May be temporary; the pool keeps trying.
    #[error("cannot start a redo process: {message}")]
    CannotStart {
        /// Why the last attempt failed.
        message: String,
    },

    /// The pool is being dropped.
    #[error("the redo pool is shutting down")]
    ShuttingDown,
}

struct Saved<'a>(&'a Option<PathBuf>);

impl std::fmt::Display for Saved<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(path) => write!(f, " (input saved to {})", path.display()),
            None => Ok(()),
        }
    }
}
