//! The page server: receives WAL, keeps every version of every page, serves GetPage@LSN.
//!
//! Start reading at `repository/` (branches and timelines), then `timeline/` (one line of
//! history), `index/` (where its versions are) and `ingest/` (what a WAL record does). README.md
//! has the data flow, the bytes on disk and the order of the locks.

#![forbid(unsafe_code)]

pub mod ahead;
mod background;
pub mod basebackup;
mod cached_upto;
pub mod cluster;
pub mod collector;
pub mod config;
pub mod daemon;
mod damage;
pub mod error_text;
pub mod expiry;
mod free_space;
pub mod index;
pub mod ingest;
pub mod key;
pub mod layer;
pub mod leases;
pub mod materialize;
mod memory;
pub mod object;
mod open_files;
pub mod page;
pub mod page_maker;
pub mod page_service;
pub mod repository;
pub mod scrub;
pub mod seqwait;
pub mod stop;
pub mod stretch;
pub mod timeline;
pub mod wal;
pub mod work;
pub mod writer;
