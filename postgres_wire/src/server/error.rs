//! `QueryError`: what a handler answers when it cannot do what was asked.

use bytes::{BufMut, BytesMut};

use crate::error::ConnectionError;
use crate::sqlstate::SqlState;
use crate::write::{put_cstr, put_message};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The client is told, and the connection goes on.
    #[error(transparent)]
    Report(#[from] Box<ErrorReport>),
    /// The connection is of no more use: nothing can be told to anybody, the thread ends.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// The fields of an ErrorResponse (PostgreSQL documentation, "Error and Notice Message Fields").
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ErrorReport {
    /// The code that programs look at.
    pub sqlstate: SqlState,
    /// One line without a full stop.
    pub message: String,
    /// More about it, in whole sentences.
    pub detail: Option<String>,
    /// What the user could do, in whole sentences.
    pub hint: Option<String>,
}

impl QueryError {
    /// An error that the client is told.
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> QueryError {
        let message = message.into();
        QueryError::Report(Box::new(ErrorReport { sqlstate, message, detail: None, hint: None }))
    }

    /// Adds the detail line.
    pub fn with_detail(mut self, detail: impl Into<String>) -> QueryError {
        if let QueryError::Report(report) = &mut self {
            report.detail = Some(detail.into());
        }
        self
    }

    /// Adds the hint line.
    pub fn with_hint(mut self, hint: impl Into<String>) -> QueryError {
        if let QueryError::Report(report) = &mut self {
            report.hint = Some(hint.into());
        }
        self
    }
}

/// Appends an ErrorResponse.
pub(crate) fn put_error(out: &mut BytesMut, severity: &str, report: &ErrorReport) {
    put_message(out, b'E', |body| {
        let mut field = |kind: u8, text: &str| {
            body.put_u8(kind);
            put_cstr(body, text);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', report.sqlstate.code());
        field(b'M', &report.message);
        if let Some(detail) = &report.detail {
            field(b'D', detail);
        }
        if let Some(hint) = &report.hint {
            field(b'H', hint);
        }
        body.put_u8(0);
    });
}
