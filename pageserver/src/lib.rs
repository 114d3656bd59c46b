//! See README.md.

pub mod config;
pub mod daemon;
pub mod durable;
pub mod ingest;
pub mod key;
pub mod page_service;
