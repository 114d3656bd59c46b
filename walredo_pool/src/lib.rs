//! WAL redo by stock PostgreSQL: a pool of long-lived `postgres --single` processes which load our
//! module, take a page and WAL records on their standard input and answer with the page after them.
//!
//! Start reading at `request.rs` (what is asked), then `pool.rs` (who answers). See README.md.

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod limits;
pub mod request;

pub use config::{Account, WalRedoConfig};
pub use error::RedoError;
pub use request::{RedoRecord, RedoRequest};
