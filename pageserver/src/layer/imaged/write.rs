//! Writing an image: first what there is besides pages, then the pages in order.

use std::io::Write;

use layers::{
    BuildError, Builder, Compression, FileId, KeyRange, LayerKind, LayerSpec, Lsn, Options, Summary,
};
use postgres_formats::{PageImage, TimelineId};

use super::Things;
use crate::layer::delta::keys::LayerKey;
use crate::layer::delta::trail::TrailWriter;
use crate::layer::delta::values;
use crate::layer::file::owner;
use crate::object::ObjectPage;

/// Writes the image of all keys at one LSN. Memory does not depend on how many pages there are.
pub struct ImageWriter<W> {
    builder: Builder<W>,
    lsn: Lsn,
}

impl<W: Write> ImageWriter<W> {
    /// Begins an image of `timeline` at `lsn`, the end of a record, with all but the pages.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn begin(
        out: W,
        timeline: TimelineId,
        lsn: Lsn,
        things: &Things,
    ) -> Result<ImageWriter<W>, BuildError> {
        let mut writer = ImageWriter::go_on(out, timeline, lsn)?;
        for tag in &things.databases {
            writer.add(LayerKey::Database(*tag), (values::IS, Vec::new()))?;
        }
        for (tag, map) in &things.rel_maps {
            writer.add(LayerKey::RelMap(*tag), values::content(Some(map)))?;
        }
        for (spc, location) in &things.tablespaces {
            writer.add(LayerKey::Tablespace(*spc), values::content(Some(location)))?;
        }
        for (xid, state) in &things.two_phase {
            writer.add(LayerKey::TwoPhase(*xid), values::content(Some(state)))?;
        }
        for (origin, remote_lsn) in &things.origins {
            writer.add(LayerKey::Origin(*origin), values::lsn(Some(*remote_lsn)))?;
        }
        let (_, piece) = TrailWriter::new(lsn, &things.state).finish();
        writer.add(LayerKey::Trail, (values::IS, piece))?;
        if let Some(latest) = things.latest_end {
            writer.add(LayerKey::XactEnds, values::xact_ends(&[latest]))?;
        }
        for (object, size) in &things.objects {
            writer.add(LayerKey::Size(*object), values::size(Some(*size)))?;
        }
        Ok(writer)
    }

    /// Begins a piece of an image that is not the first: pages only.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn go_on(out: W, timeline: TimelineId, lsn: Lsn) -> Result<ImageWriter<W>, BuildError> {
        let spec = LayerSpec {
            file: FileId(rand::random()),
            owner: owner(timeline),
            kind: LayerKind::Image,
            lsns: lsn..lsn.saturating_add(1),
        };
        // Most reads end here, and nobody waits for it to be written.
        let options = Options { compression: Compression::Adaptive, ..Options::default() };
        Ok(ImageWriter { builder: Builder::new(out, spec, &options)?, lsn })
    }

    fn add(&mut self, key: LayerKey, (kind, value): (u8, Vec<u8>)) -> Result<(), BuildError> {
        self.builder.add(&key.encode(), self.lsn, kind, &value)
    }

    /// Adds the next page, in the order of objects and blocks. One of zeros need not be there.
    ///
    /// # Errors
    /// Those of the sink; `Unsorted`.
    pub fn page(&mut self, page: ObjectPage, image: &PageImage) -> Result<(), BuildError> {
        if image.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let key = LayerKey::Page(page).encode();
        self.builder.add(&key, self.lsn, values::PAGE_IMAGE, &image[..])
    }

    /// Ends the image. Nothing is synced.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(self) -> Result<(Summary, W), BuildError> {
        self.finish_piece(KeyRange::ALL)
    }

    /// Ends a piece, which has all that there is of these keys. Nothing is synced.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish_piece(self, keys: KeyRange) -> Result<(Summary, W), BuildError> {
        self.builder.finish(keys)
    }
}
