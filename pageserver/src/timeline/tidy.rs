//! What is done about the layers of a timeline in the background, after one was written: some are merged,
//! and an image is made when the deltas above the last one have grown as large as that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postgres_formats::{BLCKSZ, Lsn};

use super::freeze::FreezeError;
use super::{Below, Timeline};
use crate::work::WorkKind;

/// As long as the deltas without an image are less than so many stretches, none is made.
const STRETCHES_MIN: u64 = 4;
/// How much smaller than the pages an image may be, if there was none yet to tell.
const IMAGE_COMPRESSION: u64 = 4;

impl Timeline {
    /// Merges layers and makes an image, if they are due. One at a time works on a timeline.
    ///
    /// # Errors
    /// See `FreezeError`. What is done is done.
    pub(crate) fn tidy(self: &Arc<Self>) -> Result<(), FreezeError> {
        let _reshaping = self.reshaping.lock();
        if self.is_shut_down.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.merge_what_is_due()?;
        self.make_image_if_due()
    }

    /// Whether an image was broken off that is to be gone on with.
    pub(super) fn has_begun_image(&self) -> bool {
        self.layers.options.image_percent > 0 && self.begun_image().is_some()
    }

    /// Where an image was begun that is not whole, if no other has been made since: what is there of it is not
    /// to be in vain.
    fn begun_image(&self) -> Option<Lsn> {
        let (_, images) = self.history.read().layers();
        let begun = images.last().filter(|image| image.gap().is_some())?.lsn();
        // That is for the one who detaches.
        let is_of_ancestor = matches!(&*self.below(), Below::Ancestor(_, at) if begun == *at);
        (!is_of_ancestor && self.is_retained(begun)).then_some(begun)
    }

    fn make_image_if_due(self: &Arc<Self>) -> Result<(), FreezeError> {
        let percent = u64::from(self.layers.options.image_percent);
        let (deltas, images) = self.history.read().layers();
        let Some(end) = deltas.last().map(|delta| delta.end()).filter(|_| percent > 0) else {
            return Ok(());
        };
        let last = images.iter().rev().find(|image| image.gap().is_none());
        if let Some(lsn) = self.begun_image() {
            self.image_of(self, lsn, WorkKind::Imaging)?;
            return Ok(());
        }
        let above = deltas
            .iter()
            .filter(|delta| last.is_none_or(|image| delta.start() >= image.lsn()))
            .map(|delta| delta.file_bytes());
        let above: u64 = above.sum();
        let wal_bytes = end.distance_from(last.map_or(self.start_lsn(), |image| image.lsn()));
        let stretches = STRETCHES_MIN.saturating_mul(self.layers.options.stretch_bytes);
        if wal_bytes.unwrap_or(0) < stretches {
            return Ok(());
        }
        let image_bytes = match last {
            Some(image) => image.file_bytes(),
            None => {
                let pages: u64 = self.list_matching(end, None)?.into_values().map(u64::from).sum();
                pages * BLCKSZ as u64 / IMAGE_COMPRESSION
            }
        };
        if above.saturating_mul(100) >= image_bytes.saturating_mul(percent) {
            self.make_image_reshaping(end)?;
        }
        Ok(())
    }
}
