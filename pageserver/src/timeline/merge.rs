//! Merging delta layers that follow each other, so that a page is looked for in few files.
//!
//! The manifest first names the new layer in place of the old ones, which only then are removed. Deltas on
//! both sides of an image are not merged: the image would stand in the middle of the new one.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres_formats::{Lsn, PageImage};

use super::Timeline;
use super::freeze::{FreezeError, delta_name};
use super::get_page::{GetPageError, PageRequest};
use super::manifest::{Layered, Manifest, Origin};
use crate::error_text::with_causes;
use crate::layer::delta::{DeltaLayer, MergeError, Merged, write_merged};
use crate::layer::file::make_file;
use crate::work::WorkKind;

/// So many layers are merged into one.
const MERGED_COUNT: usize = 8;
/// After so many entries others are let go first.
const ENTRIES_AT_ONCE: u64 = 1024;
/// Together they have at most this many bytes: time and space for one merge are bounded.
pub(super) const MERGED_BYTES_MAX: u64 = 8 << 30;

impl Timeline {
    /// Merges the delta layers that lie between two LSNs. `false` if these are fewer than two, if they do
    /// not follow each other, if an image stands between them, or if the timeline is shut down meanwhile.
    ///
    /// # Errors
    /// See `FreezeError`; nothing has been changed then, or only files are left that do not count.
    pub fn merge_deltas(&self, between: Range<Lsn>) -> Result<bool, FreezeError> {
        let _reshaping = self.reshaping.lock();
        let (mut deltas, images) = self.history.read().layers();
        deltas.retain(|delta| between.start <= delta.start() && delta.end() <= between.end);
        let Some((first, last)) = deltas.first().zip(deltas.last()) else { return Ok(false) };
        let (start, end) = (first.start(), last.end());
        let is_row = deltas.is_sorted_by(|older, younger| older.end() == younger.start());
        let divides = |lsn: Lsn| start < lsn && lsn < end;
        if deltas.len() < 2 || !is_row || images.iter().any(|image| divides(image.lsn())) {
            return Ok(false);
        }
        self.merge(&deltas)
    }

    /// Merges delta layers as long as some should be. Whoever calls holds the lock `reshaping`.
    pub(super) fn merge_what_is_due(&self) -> Result<(), FreezeError> {
        loop {
            let (deltas, images) = self.history.read().layers();
            let parts: Vec<(Lsn, u64)> =
                deltas.iter().map(|delta| (delta.start(), delta.file_bytes())).collect();
            let images: Vec<Lsn> = images.iter().map(|image| image.lsn()).collect();
            let Some(due) = due(&parts, &images) else { return Ok(()) };
            if !self.merge(deltas.get(due).unwrap_or_default())? {
                return Ok(());
            }
        }
    }

    /// Merges deltas that follow each other; `false` if the timeline is shut down meanwhile. Whoever calls
    /// holds the lock `reshaping`.
    pub(super) fn merge(&self, deltas: &[Arc<DeltaLayer>]) -> Result<bool, FreezeError> {
        let Some((first, last)) = deltas.first().zip(deltas.last()) else { return Ok(false) };
        let began = Instant::now();
        let folder = self.dir.join("layers");
        let name = delta_name(first.start(), last.end());
        let path = folder.join(&name);
        let io = |source| FreezeError::Io { path: path.clone(), source };
        let total = deltas.iter().map(|delta| delta.entry_count()).sum();
        let work = self.layers.works.begin(self.id(), WorkKind::Merging, last.end(), total);
        let (mut count, mut gave_way) = (0, Ok(()));
        let go_on = || {
            count += 1;
            if count % ENTRIES_AT_ONCE != 0 {
                return true;
            }
            work.advance(ENTRIES_AT_ONCE);
            gave_way = self.give_way();
            gave_way.is_ok()
        };
        let merged = make_file(&path, io, |out| {
            let page_at = |page, lsn| self.page_for_chain(PageRequest { page, lsn });
            let chain_max = self.layers.options.chain_max;
            write_merged(out, self.id(), deltas, go_on, chain_max, page_at).map_err(|error| {
                match error {
                    MergeError::Read(error) => FreezeError::Layer(error),
                    MergeError::Write(source) => FreezeError::Write { path: path.clone(), source },
                    MergeError::Stopped => FreezeError::ShutDown,
                }
            })
        });
        if let Err(FreezeError::GaveWay) = gave_way {
            return Err(FreezeError::GaveWay);
        }
        let Merged { summary, pages } = match merged {
            Err(FreezeError::ShutDown) => return Ok(false),
            other => other?,
        };
        slog::info!(self.log, "layers merged"; "layer" => %path.display(), "of" => deltas.len(),
            "entries" => summary.entry_count, "pages_of_chains" => pages,
            "bytes" => summary.file_bytes, "milliseconds" => began.elapsed().as_millis() as u64);
        let merged = self.open_layer(&path)?;
        let names: Vec<String> =
            deltas.iter().map(|delta| delta_name(delta.start(), delta.end())).collect();
        {
            let mut layered = self.layered.lock();
            let mut next = Layered::clone(&layered);
            let at = next.deltas.iter().position(|delta| names.contains(delta));
            next.deltas.retain(|delta| !names.contains(delta));
            next.deltas.insert(at.unwrap_or_default(), name);
            self.write_layered(&mut layered, next)?;
            self.history.write().merge(deltas, merged);
        }
        self.remove_layers(&names);
        Ok(true)
    }

    /// A page that has a long row of records behind it, made while layers are merged. `None`: it is left to
    /// the records, because WAL comes first, the page cannot be asked for any more, or not be made.
    fn page_for_chain(&self, request: PageRequest) -> Option<Arc<PageImage>> {
        if self.layers.is_ingest_behind() {
            return None;
        }
        match self.myself.upgrade()?.make_pages(&[request], Duration::ZERO).pop()? {
            Ok(page) => Some(page.into_image()),
            Err(error @ GetPageError::Make { .. }) => {
                slog::warn!(self.log, "its records stay: {}", with_causes(&error));
                None
            }
            Err(_) => None,
        }
    }

    /// Has the manifest say what is in layers.
    pub(super) fn write_layered(
        &self,
        layered: &mut Layered,
        next: Layered,
    ) -> Result<(), FreezeError> {
        self.write_manifest(&next, self.origin(), self.is_detaching())?;
        *layered = next;
        Ok(())
    }

    /// Writes the manifest, of which only this ever changes. Whoever calls holds the lock `layered`.
    pub(super) fn write_manifest(
        &self,
        layered: &Layered,
        origin: Origin,
        detaching: bool,
    ) -> Result<(), FreezeError> {
        let layered = layered.clone();
        Manifest { layered, origin, detaching, ..self.manifest.clone() }.write(&self.dir)?;
        Ok(())
    }

    /// Removes files of layers that the manifest does not name any more. Readers keep what they have open.
    pub(super) fn remove_layers(&self, names: &[String]) {
        for name in names {
            let path = self.dir.join("layers").join(name);
            let kept_open = self.layers.files.keep_open(&path);
            if let Err(error) = kept_open.and_then(|()| durable_files::unlink(&path)) {
                // It does not count, and goes when the timeline is opened.
                slog::warn!(self.log, "a layer that is not needed cannot be removed";
                    "layer" => %path.display(), "error" => %error);
            }
        }
    }
}

/// Which of the deltas, given as (start, size of the file), should be merged next: of those between two
/// images so many in a row that each has at most a quarter of the bytes of them all. So each merge makes
/// what was in any of them part of a layer four times as large, and bytes are written again only as often
/// as that can be.
fn due(deltas: &[(Lsn, u64)], images: &[Lsn]) -> Option<Range<usize>> {
    let row_is_due = |row: &[(Lsn, u64)]| {
        let all: u64 = row.iter().map(|(_, bytes)| bytes).sum();
        let largest = row.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
        // An image at the start of the first stands before them all.
        let divides = |image: &Lsn| row.iter().skip(1).any(|(start, _)| start == image);
        all <= MERGED_BYTES_MAX && largest.saturating_mul(4) <= all && !images.iter().any(divides)
    };
    let first = deltas.windows(MERGED_COUNT).position(row_is_due)?;
    Some(first..first + MERGED_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deltas(sizes: &[u64]) -> Vec<(Lsn, u64)> {
        sizes.iter().zip(1..).map(|(size, at)| (Lsn::new(at * 100), *size)).collect()
    }

    #[test]
    fn alike_in_a_row_are_due() {
        assert_eq!(due(&deltas(&[10; 7]), &[]), None);
        assert_eq!(due(&deltas(&[10; 8]), &[]), Some(0..8));
        assert_eq!(due(&deltas(&[80, 10, 10, 10, 10, 10, 10, 10, 10]), &[]), Some(1..9));
        assert_eq!(due(&deltas(&[80, 10, 10, 10, 10, 10, 10, 10]), &[]), None);
        assert_eq!(due(&deltas(&[2 << 30; 8]), &[]), None);
    }

    #[test]
    fn images_divide() {
        let ten = deltas(&[10; 10]);
        assert_eq!(due(&ten, &[Lsn::new(100), Lsn::new(1100)]), Some(0..8));
        assert_eq!(due(&ten, &[Lsn::new(300)]), Some(2..10));
        assert_eq!(due(&ten, &[Lsn::new(400)]), None);
    }

    #[test]
    fn what_is_written_again_is_bounded() {
        let (mut sizes, mut written, count) = (Vec::new(), 0, 4096);
        for number in 0..count {
            sizes.push(9 + number % 2);
            while let Some(row) = due(&deltas(&sizes), &[]) {
                let merged: u64 = sizes.drain(row.clone()).sum();
                sizes.insert(row.start, merged);
                written += merged;
            }
        }
        assert!(sizes.len() < 40, "{} layers are left", sizes.len());
        assert!(written <= 6 * 10 * count, "{written} bytes were written for {}", 10 * count);
    }
}
