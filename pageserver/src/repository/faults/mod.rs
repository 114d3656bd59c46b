//! Crashes after every operation on files, and operations that fail, all of them in turn, over a
//! history in which all that the store does happens: nothing that was acknowledged is lost, no page is
//! wrong, nothing is left that nobody names, and it goes on.

#![allow(clippy::unwrap_used)]

mod check;
mod crashes;
mod failing;
mod init;
mod known;
mod script;

use std::path::Path;
use std::sync::Arc;

use super::{Repository, Retention};
use crate::layer::freezer::LayerOptions;
use crate::timeline::damage::sample::pages_of_images;

/// So much history is kept when layers are collected.
const WINDOW_BYTES: u64 = 1000;

/// Layers are written when the script says so, by the thread that runs it: so the operations have one
/// order.
fn options() -> LayerOptions {
    LayerOptions {
        stretch_bytes: u64::MAX,
        // A page to a piece.
        image_piece_bytes: 1,
        // What was broken off is gone on with when the script says so.
        image_percent: 0,
        in_background: false,
        cache_bytes: 1 << 20,
        retention: Retention { window_bytes: Some(WINDOW_BYTES), window_seconds: None },
        keep_wal_bytes: None,
        ..LayerOptions::default()
    }
}

/// The same, and WAL goes that is in layers.
fn removing_wal() -> LayerOptions {
    LayerOptions { keep_wal_bytes: Some(0), keep_wal_bytes_min: 0, ..options() }
}

/// Opens a repository as the daemon does. Nothing is cached from before.
fn open(dir: &Path, options: LayerOptions) -> Result<Arc<Repository>, super::RepositoryError> {
    let log = slog::Logger::root(slog::Discard, slog::o!());
    Repository::open(dir, "main", pages_of_images(), options, &log)
}

/// In memory where that can be had: thousands are made.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
