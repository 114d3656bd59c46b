//! Typed contents of the WAL records that storage must understand itself.
//!
//! Each parser takes the record's main data (and `info` where the layout depends on it) and reads
//! nothing outside it: bytes come from disk or network and prove nothing by their length alone.
//! Records that are only page changes have no parser here, PostgreSQL's redo understands them.

pub mod clog;
pub mod commit_ts;
pub mod dbase;
pub mod heap;
pub mod multixact;
mod reader;
pub mod relmap;
pub mod replorigin;
pub mod smgr;
pub mod standby;
pub mod tblspc;
pub mod xact;
pub mod xlog;

pub use reader::RecordContentError;

#[cfg(test)]
mod tests;
