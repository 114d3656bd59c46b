//! PostgreSQL's on-disk and in-WAL formats as plain values: no IO, no clocks, no processes.
//!
//! Everything here is a function from bytes to values or back. See README.md for the map.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod control_file;
pub mod field_reader;
pub mod free_space_map;
pub mod id;
pub mod lsn;
pub mod page;
pub mod page_checksum;
pub mod pglz;
pub mod rel;
pub mod relpath;
pub mod replication_origins;
pub mod server_parameters;
pub mod slru;
pub mod timestamp;
pub mod wal;
pub mod xid;

pub use id::{SystemId, TimelineId};
pub use lsn::Lsn;
pub use page::{BLCKSZ, PageImage};
pub use rel::{BlockNumber, ForkNumber, Oid, RelFileLocator, RelTag};
pub use server_parameters::ServerParameters;
pub use slru::SlruKind;
pub use timestamp::Timestamp;
pub use xid::{FullTransactionId, MultiXactId, TransactionId};
