//! See README.md.

pub mod ingest;
pub mod key;
