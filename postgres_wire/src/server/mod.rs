//! The server side: accepts connections and hands their commands to a `Handler`.
//!
//! It speaks the protocol and knows no commands. Every connection has a thread of its own, which
//! ends with the connection or when the `StopSignal` fires, whatever the client does.

mod connection;
mod copy;
mod error;
mod extended;
mod frontend;
mod listener;
mod query_writer;
mod serve;
mod startup;
mod statement;

pub use connection::{ConnectionOptions, serve_connection};
pub use copy::{CopyBoth, CopyBothReader, CopyBothWriter, CopyOutWriter};
pub use error::{ErrorReport, QueryError};
pub use listener::{ListenAddress, Listener, Peer};
pub use query_writer::{Column, ColumnType, QueryWriter};
pub use serve::{ServerOptions, serve};
pub use startup::StartupParameters;
pub use statement::command_words;

/// The commands of a server. One handler serves one connection, on that connection's thread.
///
/// A statement comes without its semicolon, without surrounding white space, and never empty.
/// A string constant in it, `'..'`, may come from the client's text or stand for a parameter;
/// `command_words` takes a statement apart.
pub trait Handler {
    /// Called once before any command; an error refuses the connection.
    fn startup(&mut self, parameters: &StartupParameters) -> Result<(), QueryError> {
        let _ = parameters;
        Ok(())
    }

    /// The columns of the rows that `query` will give for `sql`, or `None` if it gives no rows.
    ///
    /// Called when a statement is prepared (extended query), so it must do nothing else than look:
    /// parameters stand in it as `$1`, and it may never be run.
    fn describe(&mut self, sql: &str) -> Result<Option<Vec<Column>>, QueryError>;

    /// Runs one statement. Whatever `out` was given before an error has reached the client or will.
    fn query(&mut self, sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError>;
}
