//! The client side: a small blocking client for simple queries and COPY.
//!
//! Made to work inside of a forked PostgreSQL backend too: no threads, no global state, no SIGPIPE,
//! indifferent to signals, every wait bounded by the caller's timeouts.

mod auth;
mod connect;
mod connection;
mod copy;
mod error;
mod params;
mod params_uri;
mod row;

pub(crate) use connection::CopyOrRows;
pub use connection::{Connection, Timeouts};
pub(crate) use copy::CopyEnd;
pub use copy::{ClientCopyBoth, CopyOutReader, CopyReceiver, CopySender};
pub use error::{ClientError, ServerError};
pub use params::{ConnectParams, Host, ParamsError, Replication};
pub use row::Row;
