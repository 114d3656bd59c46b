//! Several delta layers that follow each other as one.

use std::io::Write;
use std::sync::Arc;

use layers::{Builder, Entry, FileId, KeyRange, LayerKind, LayerSpec, Merge, Options, Summary};
use postgres_formats::{Lsn, PageImage, TimelineId};

use super::chain::Chain;
use super::keys::LayerKey;
use super::{DeltaLayer, WriteError, values};
use crate::layer::file::owner;
use crate::layer::image::LayerError;
use crate::object::ObjectPage;

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

/// What was written.
#[derive(Debug)]
pub struct Merged {
    /// The layer.
    pub summary: Summary,
    /// How many records have pages in their places.
    pub pages: u64,
}

/// Writes what is in `deltas`, each of which begins where the one before ends, as one layer, as long as
/// `go_on`. Where more than `chain_max` records of a page would follow each other, the page stands in the place
/// of one, if `page_at` has it. Memory is that of a block of each. Nothing is synced.
///
/// # Errors
/// See `MergeError`.
pub fn write_merged<W: Write>(
    out: W,
    timeline: TimelineId,
    deltas: &[Arc<DeltaLayer>],
    mut go_on: impl FnMut() -> bool,
    chain_max: u32,
    mut page_at: impl FnMut(ObjectPage, Lsn) -> Option<Arc<PageImage>>,
) -> Result<(Merged, W), MergeError> {
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
    let (mut chain, mut pages) = (Chain::new(chain_max), 0);
    for entry in Merge::new(sources) {
        let Entry { key, lsn, kind, value } = entry?;
        let page = match LayerKey::decode(&key) {
            Some(LayerKey::Page(page)) if chain.add(&key, kind) => page_at(page, lsn),
            _ => None,
        };
        let added = match page {
            Some(page) => {
                chain.cut();
                pages += 1;
                builder.add(&key, lsn, values::PAGE_IMAGE, &page[..])
            }
            None => {
                chain.put_off_if_due();
                builder.add(&key, lsn, kind, &value)
            }
        };
        added.map_err(build)?;
        if !go_on() {
            return Err(MergeError::Stopped);
        }
    }
    let (summary, out) = builder.finish(KeyRange::ALL).map_err(build)?;
    Ok((Merged { summary, pages }, out))
}
