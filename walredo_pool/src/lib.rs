//! WAL redo by stock PostgreSQL: a pool of long-lived `postgres --single` processes which load our
//! module, take a page and WAL records on their standard input and answer with the page after them.
//!
//! Start reading at `request.rs` (what is asked), then `pool.rs` (who answers), `driver.rs` (how).
//! See README.md, and PROTOCOL.md for the bytes.

#![forbid(unsafe_code)]

pub mod command;
mod config;
mod datadir;
mod driver;
pub mod error;
mod job;
pub mod limits;
pub mod managers;
mod outbox;
mod pending;
pub mod poison;
pub mod pool;
mod process;
pub mod protocol;
mod queues;
mod records;
pub mod request;
mod shared;
mod spare;
mod stats;
mod stderr;

pub use config::{Account, WalRedoConfig};
pub use error::RedoError;
pub use managers::CustomManagers;
pub use pending::{PendingRedo, RedoBatch};
pub use poison::load_poisoned;
pub use pool::{PoolError, WalRedoPool};
pub use records::RedoRecords;
pub use request::{MaskKind, RedoRecord, RedoRequest};
pub use stats::WalRedoStats;
