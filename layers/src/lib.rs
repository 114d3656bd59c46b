//! Layer files: immutable sorted tables of versions, and what reads, writes and merges them.
//!
//! A version is what became of a key at a position of the log: `(key, lsn, kind, value)`. This crate
//! does not know what keys, kinds and values mean. FORMAT.md describes the bytes, README.md the rules.

#![forbid(unsafe_code)]

mod block;
mod block_cache;
mod block_writer;
mod blocks;
mod builder;
mod codec;
mod cursor;
mod data_block;
mod entry;
mod error;
mod filter;
mod footer;
mod header;
mod ids;
mod index_builder;
mod input;
mod key_range;
pub mod limits;
mod merge;
mod node;
mod read_at;
mod reader;
mod scan;
mod spare;
mod value_run;
pub mod varint;
mod verify;
mod versions;
mod walk;

pub use block_cache::BlockCache;
pub use blocks::Finish;
pub use builder::{Builder, LayerSpec, Options};
pub use cache::Stats as CacheStats;
pub use codec::Compression;
pub use entry::{Entry, Version};
pub use error::{BuildError, ReadError};
pub use footer::Summary;
pub use ids::{FileId, LayerKind, Owner};
pub use key_range::KeyRange;
pub use merge::Merge;
pub use postgres_formats::Lsn;
pub use read_at::ReadAt;
pub use reader::Reader;
pub use scan::Scan;
pub use versions::Versions;
pub use walk::Walk;
