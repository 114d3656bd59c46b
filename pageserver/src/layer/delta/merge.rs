//! Several delta layers that follow each other as one.

use std::io::Write;
use std::sync::Arc;

use layers::{Builder, Entry, FileId, KeyRange, LayerKind, LayerSpec, Merge, Options, Summary};
use postgres_formats::TimelineId;

use super::{DeltaLayer, WriteError};
use crate::layer::file::owner;
use crate::layer::image::LayerError;

/// Why layers could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One of them cannot be read.
    #[error(transparent)]
    Read(#[from] LayerError),
    /// The new one cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// `go_on` said so.
    #[error("stopped")]
    Stopped,
}

/// Writes what is in `deltas`, each of which begins where the one before ends, as one layer, as long as
/// `go_on`. Memory is that of a block of each. Nothing is synced.
///
/// # Errors
/// See `MergeError`.
pub fn write_merged<W: Write>(
    out: W,
    timeline: TimelineId,
    deltas: &[Arc<DeltaLayer>],
    mut go_on: impl FnMut() -> bool,
) -> Result<(Summary, W), MergeError> {
    let build = |error| MergeError::Write(WriteError::Build(error));
    let first = deltas.iter().map(|delta| delta.reader.lsns().start).min();
    let behind = deltas.iter().map(|delta| delta.reader.lsns().end).max();
    let spec = LayerSpec {
        file: FileId(rand::random()),
        owner: owner(timeline),
        kind: LayerKind::Delta,
        lsns: first.unwrap_or_default()..behind.unwrap_or_default(),
    };
    let mut builder = Builder::new(out, spec, &Options::default()).map_err(build)?;
    // A piece of the trail stands at the end of the record before it, so that where two layers meet both
    // may have one, that of the older being without records. The younger one's is preferred.
    let sources = deltas.iter().rev().map(|delta| {
        let entries = delta.reader.scan(KeyRange::ALL);
        entries.map(|entry| entry.map_err(|error| delta.failed(error)))
    });
    for entry in Merge::new(sources) {
        let Entry { key, lsn, kind, value } = entry?;
        builder.add(&key, lsn, kind, &value).map_err(build)?;
        if !go_on() {
            return Err(MergeError::Stopped);
        }
    }
    builder.finish(KeyRange::ALL).map_err(build)
}
