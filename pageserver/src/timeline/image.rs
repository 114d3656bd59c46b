//! Making images: all there is at one LSN, so that what is older need not be asked.
//!
//! It is written in pieces, by ranges of keys, so that one that takes hours need not be begun anew after it was
//! broken off. What goes into an image is what the timeline itself answers. It is always of an LSN where a delta layer
//! ends, and deltas on both sides of it are never merged, so that no version of a page is both in an image
//! and in a delta above it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use layers::{KeyRange, Summary};
use postgres_formats::{BlockNumber, Lsn, Oid};

use super::error::TimelineError;
use super::freeze::{FreezeError, piece_name};
use super::image_plan::{PiecePlan, plan};
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

/// An image in the making.
struct Imaging<'a> {
    /// Whose answers it is made of.
    source: &'a Arc<Timeline>,
    lsn: Lsn,
    things: Things,
    /// The free space maps that go with it.
    maps: Maps,
}

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

    /// Whether there is an image at `lsn`, with all of its pieces.
    pub(super) fn has_image_at(&self, lsn: Lsn) -> bool {
        self.image_gap(lsn).is_none()
    }

    /// The first range of keys that the image at `lsn` has no piece of; `None` if it is whole.
    fn image_gap(&self, lsn: Lsn) -> Option<KeyRange> {
        let images = self.history.read().layers().1;
        match images.iter().find(|image| image.lsn() == lsn) {
            Some(pieces) => pieces.gap(),
            None => Some(KeyRange::ALL),
        }
    }

    /// Makes an image of what `source`, which is this timeline or what it was forked from, answers at `lsn`: as
    /// many pieces as are missing, each of which counts once it is written. `false` if the timeline is shut
    /// down meanwhile. Whoever calls holds the lock `reshaping`.
    pub(super) fn image_of(
        &self,
        source: &Arc<Timeline>,
        lsn: Lsn,
        kind: WorkKind,
    ) -> Result<bool, FreezeError> {
        if self.has_image_at(lsn) {
            return Ok(true);
        }
        let mut things = source.things_at(lsn)?;
        let maps = match self.plan_maps(source, lsn, &mut things.objects) {
            Err(FreezeError::ShutDown) => return Ok(false),
            maps => maps?,
        };
        let mut image = Imaging { source, lsn, things, maps };
        let total = image.things.objects.values().copied().map(u64::from).sum();
        let work = self.layers.works.begin(self.id(), kind, lsn, total);
        while let Some(gap) = self.image_gap(lsn) {
            let plan = plan(&image.things.objects, &gap, self.layers.options.image_piece_bytes);
            // What is there already is done.
            work.advance_to(plan.before);
            if !self.make_piece(&mut image, &plan, &work)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a piece of an image.
    fn make_piece(
        &self,
        image: &mut Imaging<'_>,
        plan: &PiecePlan,
        work: &Work,
    ) -> Result<bool, FreezeError> {
        let began = Instant::now();
        let name = piece_name(image.lsn, &plan.keys);
        let path = self.dir.join("layers").join(&name);
        let io = |source| FreezeError::Io { path: path.clone(), source };
        let summary =
            match make_file(&path, io, |out| self.write_piece(&path, out, image, plan, work)) {
                Err(FreezeError::ShutDown) => return Ok(false),
                summary => summary?,
            };
        slog::info!(self.log, "image written"; "layer" => %path.display(),
            "entries" => summary.entry_count, "raw_bytes" => summary.raw_bytes,
            "bytes" => summary.file_bytes, "milliseconds" => began.elapsed().as_millis() as u64);
        let piece =
            ImagedLayer::open(&path, self.id(), self.cluster.segment_size, &self.layers.files)?;
        let mut layered = self.layered.lock();
        let mut next = Layered::clone(&layered);
        next.images.push(name);
        // Names sort by LSN.
        next.images.sort();
        self.write_layered(&mut layered, next)?;
        self.history.write().add_image(piece);
        Ok(true)
    }

    fn write_piece(
        &self,
        path: &Path,
        out: LayerOut,
        image: &mut Imaging<'_>,
        plan: &PiecePlan,
        work: &Work,
    ) -> Result<(Summary, LayerOut), FreezeError> {
        let Imaging { source, lsn, things, maps } = image;
        let failed = |error| {
            let source = WriteError::Build(error);
            FreezeError::Write { path: path.to_owned(), source }
        };
        let begun = match plan.keys.start.is_empty() {
            true => ImageWriter::begin(out, self.id(), *lsn, things),
            false => ImageWriter::go_on(out, self.id(), *lsn),
        };
        let mut writer = begun.map_err(failed)?;
        let pages = plan.pages.iter().flat_map(|(object, blocks)| {
            blocks.clone().map(|block| ObjectPage { object: *object, block: BlockNumber(block) })
        });
        let mut requests = pages.map(|page| PageRequest { page, lsn: *lsn });
        loop {
            let batch: Vec<PageRequest> = requests.by_ref().take(BATCH_PAGES).collect();
            if batch.is_empty() {
                return writer.finish_piece(plan.keys.clone()).map_err(failed);
            }
            let pages = self.make_with_maps(source, &batch, maps)?;
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
