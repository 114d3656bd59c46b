//! Making images: all there is at one LSN, so that what is older need not be asked.
//!
//! What goes into an image is what the timeline itself answers. It is always of an LSN where a delta layer
//! ends, and deltas on both sides of it are never merged, so that no version of a page is both in an image
//! and in a delta above it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use layers::Summary;
use postgres_formats::{BlockNumber, Lsn, Oid};

use super::error::TimelineError;
use super::freeze::{FreezeError, image_name};
use super::manifest::Layered;
use super::{PageRequest, Timeline};
use crate::free_space::Maps;
use crate::layer::delta::WriteError;
use crate::layer::file::{LayerOut, make_file};
use crate::layer::imaged::{ImageWriter, ImagedLayer, Things};
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::work::{Work, WorkKind};

/// Pages that are asked for at once.
pub(super) const BATCH_PAGES: usize = 64;

impl Timeline {
    /// Makes an image at `lsn`, where a delta layer must end. `false` if there is one, if no delta layer
    /// ends there, or if the timeline is shut down meanwhile.
    ///
    /// # Errors
    /// See `FreezeError`; nothing has been changed then.
    pub fn make_image(self: &Arc<Self>, lsn: Lsn) -> Result<bool, FreezeError> {
        let _changing = self.reshaping.lock();
        self.make_image_reshaping(lsn)
    }

    /// The same for whoever holds the lock `reshaping`.
    pub(super) fn make_image_reshaping(self: &Arc<Self>, lsn: Lsn) -> Result<bool, FreezeError> {
        let (deltas, _) = self.history.read().layers();
        let ends = deltas.iter().any(|delta| delta.end() == lsn);
        if !ends || self.has_image_at(lsn) {
            return Ok(false);
        }
        self.image_of(self, lsn, WorkKind::Imaging)
    }

    /// Whether there is an image at `lsn`.
    pub(super) fn has_image_at(&self, lsn: Lsn) -> bool {
        self.history.read().layers().1.iter().any(|image| image.lsn() == lsn)
    }

    /// Makes an image of what `source`, which is this timeline or what it was forked from, answers at `lsn`.
    /// `false` if the timeline is shut down meanwhile. Whoever calls holds the lock `reshaping`.
    pub(super) fn image_of(
        &self,
        source: &Arc<Timeline>,
        lsn: Lsn,
        kind: WorkKind,
    ) -> Result<bool, FreezeError> {
        let began = Instant::now();
        let folder = self.dir.join("layers");
        let path = folder.join(image_name(lsn));
        let Some(summary) = self.write_image(&path, source, lsn, kind)? else { return Ok(false) };
        slog::info!(self.log, "image written"; "layer" => %path.display(),
            "entries" => summary.entry_count, "raw_bytes" => summary.raw_bytes,
            "bytes" => summary.file_bytes, "milliseconds" => began.elapsed().as_millis() as u64);
        let image =
            ImagedLayer::open(&path, self.id(), self.cluster.segment_size, &self.layers.blocks)?;
        let mut layered = self.layered.lock();
        let mut next = Layered::clone(&layered);
        next.images.push(image_name(lsn));
        // Names sort by LSN.
        next.images.sort();
        self.write_layered(&mut layered, next)?;
        self.history.write().add_image(image);
        Ok(true)
    }

    fn write_image(
        &self,
        path: &Path,
        source: &Arc<Timeline>,
        lsn: Lsn,
        kind: WorkKind,
    ) -> Result<Option<Summary>, FreezeError> {
        let mut things = source.things_at(lsn)?;
        let maps = match self.plan_maps(source, lsn, &mut things.objects) {
            Err(FreezeError::ShutDown) => return Ok(None),
            maps => maps?,
        };
        let total = things.objects.values().copied().map(u64::from).sum();
        let work = self.layers.works.begin(self.id(), kind, lsn, total);
        let io = |source| FreezeError::Io { path: path.to_owned(), source };
        let write = |out| self.write_pages(path, out, source, lsn, (things, maps), &work);
        let written = make_file(path, io, write);
        match written {
            Err(FreezeError::ShutDown) => Ok(None),
            other => other.map(Some),
        }
    }

    fn write_pages(
        &self,
        path: &Path,
        out: LayerOut,
        source: &Arc<Timeline>,
        lsn: Lsn,
        (things, mut maps): (Things, Maps),
        work: &Work,
    ) -> Result<(Summary, LayerOut), FreezeError> {
        let failed = |error| {
            let source = WriteError::Build(error);
            FreezeError::Write { path: path.to_owned(), source }
        };
        let mut writer = ImageWriter::begin(out, self.id(), lsn, &things).map_err(failed)?;
        let pages = things.objects.iter().flat_map(|(object, size)| {
            (0..*size).map(|block| ObjectPage { object: *object, block: BlockNumber(block) })
        });
        let mut requests = pages.map(|page| PageRequest { page, lsn });
        loop {
            let batch: Vec<PageRequest> = requests.by_ref().take(BATCH_PAGES).collect();
            if batch.is_empty() {
                return writer.finish().map_err(failed);
            }
            let pages = self.make_with_maps(source, &batch, &mut maps)?;
            for (image, request) in pages.iter().zip(&batch) {
                writer.page(request.page, image).map_err(failed)?;
            }
            work.advance(batch.len() as u64);
        }
    }

    /// What there is at `lsn` besides pages.
    fn things_at(&self, lsn: Lsn) -> Result<Things, TimelineError> {
        let objects = self.list_matching(lsn, None)?;
        let databases = self.databases(lsn)?;
        let shared = DbTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid::INVALID };
        let mut rel_maps = BTreeMap::new();
        let implied = objects.keys().filter_map(|object: &ObjectTag| object.database());
        let folders: BTreeSet<DbTag> =
            databases.iter().copied().chain(implied).chain([shared]).collect();
        for tag in folders {
            if let Some(map) = self.rel_map(tag, lsn)? {
                rel_maps.insert(tag, map);
            }
        }
        Ok(Things {
            databases,
            rel_maps,
            tablespaces: self.tablespaces(lsn)?,
            two_phase: self.two_phase(lsn)?,
            origins: self.replication_origins(lsn)?,
            state: self.state_at(lsn)?.state,
            latest_end: self.latest_end_at(lsn)?,
            objects,
        })
    }
}
