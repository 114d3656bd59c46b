//! The write-ahead log of a timeline: received, kept on disk, read back.

pub mod store;
