//! What WAL records do to storage: pure functions from a record to changes and pages.

mod change;
mod slru_truncation;

pub use change::{Change, Changes};
pub use slru_truncation::{SlruTruncation, TruncatedRange};
