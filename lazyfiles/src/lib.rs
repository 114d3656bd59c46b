//! Stock PostgreSQL on data files that fill in lazily from a page server.
//!
//! This is the library's inside as ordinary safe functions, and, in [`presence`], what whoever lays
//! out a data directory needs. The system calls themselves are wrapped in `preload/`. See README.md.

pub mod all_maps;
pub mod base;
pub mod data_directory;
pub mod errno;
mod hints;
pub mod hydrate;
pub mod lazy_file;
mod mapping;
pub mod page_check;
pub mod presence;
pub mod range_lock;
mod read_ahead;
pub mod remote;
pub mod report;
pub mod segment_file;
pub mod settings;
pub mod source;
pub mod start_profile;
pub mod wal_sender;
