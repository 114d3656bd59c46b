//! Compacting: all of a timeline's history into few layers, with an image at its end, at once and whether or
//! not that is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postgres_formats::Lsn;

use super::Timeline;
use super::freeze::FreezeError;
use super::layers::LayerFile;
use super::merge::MERGED_BYTES_MAX;
use crate::layer::delta::DeltaLayer;

/// What compacting has given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// Up to where the timeline's history is in layers.
    pub end: Lsn,
    /// The layers that were made.
    pub made: Vec<LayerFile>,
    /// Those in whose place they are.
    pub replaced: Vec<LayerFile>,
    /// All layers there are now.
    pub layers: Vec<LayerFile>,
}

impl Timeline {
    /// Writes what is not in layers yet, merges what follows each other, and makes an image at the end.
    ///
    /// # Errors
    /// See `FreezeError`. What is done is done.
    pub fn compact(self: &Arc<Self>) -> Result<Compacted, FreezeError> {
        let _reshaping = self.reshaping.lock();
        let before = self.layer_files();
        let end = self.freeze()?.end;
        self.merge_all()?;
        let (deltas, _) = self.history.read().layers();
        // What has come meanwhile may be in a layer already.
        if let Some(last) = deltas.iter().rev().find(|delta| self.same_place(delta.end(), end)) {
            self.make_image_reshaping(last.end())?;
        }
        if self.is_shut_down.load(Ordering::Relaxed) {
            return Err(FreezeError::ShutDown);
        }
        let layers = self.layer_files();
        let without = |these: &[LayerFile], those: &[LayerFile]| {
            these.iter().filter(|layer| !those.contains(layer)).cloned().collect()
        };
        Ok(Compacted {
            end,
            made: without(&layers, &before),
            replaced: without(&before, &layers),
            layers,
        })
    }

    fn same_place(&self, a: Lsn, b: Lsn) -> bool {
        let size = self.cluster.segment_size;
        a.normalized(size) == b.normalized(size)
    }

    fn merge_all(&self) -> Result<(), FreezeError> {
        let (deltas, images) = self.history.read().layers();
        let images: Vec<Lsn> = images.iter().map(|image| image.lsn()).collect();
        for row in rows(deltas, &images).iter().filter(|row| row.len() > 1) {
            self.merge(row)?;
        }
        Ok(())
    }
}

/// The deltas that may be one: such as follow each other with no image between them, and are not too large
/// together.
fn rows(deltas: Vec<Arc<DeltaLayer>>, images: &[Lsn]) -> Vec<Vec<Arc<DeltaLayer>>> {
    let mut rows: Vec<Vec<Arc<DeltaLayer>>> = Vec::new();
    for delta in deltas {
        match rows.last_mut() {
            Some(row)
                if row.last().is_some_and(|before| before.end() == delta.start())
                    && !images.contains(&delta.start())
                    && row.iter().chain([&delta]).map(|part| part.file_bytes()).sum::<u64>()
                        <= MERGED_BYTES_MAX =>
            {
                row.push(delta);
            }
            _ => rows.push(vec![delta]),
        }
    }
    rows
}
