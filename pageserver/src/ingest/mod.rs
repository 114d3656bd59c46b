//! What WAL records do to storage: pure functions from a record to changes and pages.
//!
//! [`changes_of`] lists the effects of a record when it arrives; [`native::apply`] makes a page's
//! new version, when it is read, for the effects that PostgreSQL's redo functions have on the side
//! or on files other than relations. Nothing here does IO or knows how versions are kept, and
//! nothing is remembered from one record to the next.
//!
//! ```text
//!   WalRecord, DecodedRecord ──► changes_of ──► Page         ──► index ··· read: walredo pool
//!                                          ├──► NativePage   ──► index ··· read: native::apply
//!                                          └──► RelCreate, DbDrop, ... ──► directories
//! ```

mod change;
mod changes_of;
mod error;
pub mod native;
mod slru_truncation;
mod understood;

pub use change::{Change, Changes};
pub use changes_of::changes_of;
pub use error::{IngestError, RecordName};
pub use slru_truncation::{SlruTruncation, TruncatedRange};

#[cfg(test)]
mod tests;
