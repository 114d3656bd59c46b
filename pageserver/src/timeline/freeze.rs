//! Freezing: closing the open stretch of a history, and writing closed ones as delta layers.
//!
//! The order of the steps is what makes a crash at any point harmless: the WAL that a layer stands for is
//! durable; the layer is complete and durable before it gets its name; the name is durable before the
//! manifest says that the layer counts. A layer that no manifest names is removed when the timeline is
//! opened, and its WAL is indexed as ever.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use layers::KeyRange;
use postgres_formats::Lsn;

use super::Timeline;
use super::error::TimelineError;
use super::get_page::GetPageError;
use super::history::Closed;
use super::ingest::Writer;
use super::manifest::{Layered, Manifest, ManifestError, Origin};
use super::wal_of_stretch::WalOfStretch;
use crate::cluster::Cluster;
use crate::layer::delta::{DeltaLayer, StretchFacts, WriteError, write_delta};
use crate::layer::file::make_file;
use crate::layer::image::LayerError;

/// How long to wait for one who is taking in WAL.
const BUSY_WAIT: Duration = Duration::from_millis(1);
pub(super) const DELTA: &str = "delta__";
pub(super) const IMAGE: &str = "image__";

/// Why closed stretches could not be written. They stay in memory, and their WAL on disk.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// A layer could not be written.
    #[error("layer {path}")]
    Write {
        /// The layer.
        path: PathBuf,
        /// Why.
        source: WriteError,
    },
    /// The file system's answer.
    #[error("layer {path}")]
    Io {
        /// The layer.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A page that belongs into an image cannot be had.
    #[error(transparent)]
    Page(#[from] GetPageError),
    /// The timeline is being shut down.
    #[error("the timeline is being shut down")]
    ShutDown,
    /// More WAL comes than is written as layers, and that comes first.
    #[error("put off: WAL that waits to be written as layers comes first")]
    GaveWay,
    /// The layer cannot be read again.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The WAL cannot be made durable.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
}

/// What freezing a timeline has given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frozen {
    /// Up to where the timeline's history is in layers.
    pub end: Lsn,
    /// The layers that were written for it, oldest first.
    pub layers: Vec<WrittenLayer>,
}

/// A layer that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenLayer {
    /// Name of its file.
    pub name: String,
    /// Size of its file.
    pub bytes: u64,
    /// How much WAL it stands for.
    pub wal_bytes: u64,
}

impl Timeline {
    /// Closes the open stretch if it is long enough. To be called by the one who writes, when everything
    /// so far is in the index.
    pub(super) fn close_stretch_if_long(&self, writer: &Writer) {
        let (end, state) = writer.stretch_end();
        if self.history.read().open_bytes(end) >= self.layers.options.stretch_bytes {
            self.close_open(&mut self.history.write(), end, state);
            self.layers.write_soon(self.myself.clone());
        }
    }

    /// Closes the open stretch, whatever its length, and writes all closed ones as layers: of what has
    /// been indexed by now, nothing has to be indexed again when the timeline is loaded.
    ///
    /// # Errors
    /// See `FreezeError`.
    pub fn freeze(&self) -> Result<Frozen, FreezeError> {
        let mut layered = loop {
            // Taken first, so that nobody else writes what is closed here. Whoever takes in WAL may wait for
            // this lock with the other one in hand.
            let layered = self.layered.lock();
            let Some(writer) = self.writer.try_lock() else {
                drop(layered);
                std::thread::sleep(BUSY_WAIT);
                continue;
            };
            let (end, state) = writer.stretch_end();
            let mut history = self.history.write();
            if history.open_bytes(end) > 0 {
                self.close_open(&mut history, end, state);
            }
            break layered;
        };
        let written = self.write_closed(&mut layered)?;
        Ok(Frozen { end: layered.end.normalized(self.cluster.segment_size), layers: written })
    }

    /// Writes the closed stretches as layers, the oldest first.
    ///
    /// # Errors
    /// See `FreezeError`.
    pub(crate) fn write_layers(&self) -> Result<(), FreezeError> {
        self.write_closed(&mut self.layered.lock()).map(drop)
    }

    fn write_closed(&self, layered: &mut Layered) -> Result<Vec<WrittenLayer>, FreezeError> {
        let mut written = Vec::new();
        while let Some(layer) = self.write_next(layered)? {
            written.push(layer);
        }
        Ok(written)
    }

    /// Writes the oldest closed stretch as a layer, for whoever holds the lock `layered`; `None` if there is
    /// none, or if the timeline is shut down.
    pub(super) fn write_next(
        &self,
        layered: &mut Layered,
    ) -> Result<Option<WrittenLayer>, FreezeError> {
        let closed = self.history.read().oldest_closed();
        let Some(closed) = closed.filter(|_| !self.is_shut_down.load(Ordering::Relaxed)) else {
            return Ok(None);
        };
        if self.positions().durable < closed.facts.end {
            self.sync_wal().map_err(TimelineError::from)?;
        }
        let (layer, bytes) = self.write_layer(&closed)?;
        let next = Layered {
            deltas: layered.deltas.iter().cloned().chain([name_of(&closed.facts)]).collect(),
            end: closed.facts.end,
            state: closed.facts.end_state,
            ..layered.clone()
        };
        self.write_layered(layered, next)?;
        self.history.write().replace(&closed, layer);
        let StretchFacts { start, end, .. } = closed.facts;
        let wal_bytes = end.distance_from(start).unwrap_or(0);
        self.debt.layers_written.fetch_add(1, Ordering::Relaxed);
        self.remove_layered_wal(layered);
        Ok(Some(WrittenLayer { name: name_of(&closed.facts), bytes, wal_bytes }))
    }

    /// Returns when no layer is being written any more; after `shut_down` none ever is.
    pub(crate) fn wait_for_layers(&self) {
        drop(self.reshaping.lock());
        drop(self.layered.lock());
    }

    /// The layer, and how many bytes its file has.
    fn write_layer(&self, closed: &Closed) -> Result<(DeltaLayer, u64), FreezeError> {
        let began = std::time::Instant::now();
        let path = self.dir.join("layers").join(name_of(&closed.facts));
        let io = |source| FreezeError::Io { path: path.clone(), source };
        let wal = WalOfStretch::new(self, &closed.facts);
        let summary = make_file(&path, io, |out| {
            write_delta(out, &closed.facts, &closed.index, &wal)
                .map_err(|source| FreezeError::Write { path: path.clone(), source })
        })?;
        slog::info!(self.log, "layer written"; "layer" => %path.display(),
            "entries" => summary.entry_count, "raw_bytes" => summary.raw_bytes,
            "bytes" => summary.file_bytes, "milliseconds" => began.elapsed().as_millis() as u64);
        Ok((self.open_layer(&path)?, summary.file_bytes))
    }

    pub(super) fn open_layer(&self, path: &Path) -> Result<DeltaLayer, LayerError> {
        let Cluster { segment_size, checksums, .. } = *self.cluster;
        DeltaLayer::open(path, self.id(), segment_size, checksums, &self.layers.files)
    }
}

/// The name of the file of a stretch's layer.
fn name_of(facts: &StretchFacts) -> String {
    delta_name(facts.start, facts.end)
}

/// The name of the file of a delta layer.
pub(super) fn delta_name(start: Lsn, end: Lsn) -> String {
    format!("{DELTA}{:016X}-{:016X}", start.as_u64(), end.as_u64())
}

/// The name of the file of an image layer.
pub fn image_name(lsn: Lsn) -> String {
    format!("{IMAGE}{:016X}", lsn.as_u64())
}

/// The name of the file of a piece of an image, which speaks of `keys`.
pub(super) fn piece_name(lsn: Lsn, keys: &KeyRange) -> String {
    if *keys == KeyRange::ALL {
        return image_name(lsn);
    }
    let end = keys.end.as_deref().unwrap_or_default();
    let (start, end) = (hex::encode_upper(&keys.start), hex::encode_upper(end));
    format!("{}__{start}-{end}", image_name(lsn))
}

/// Removes layers that do not count: those that were being written when the process ended, for their WAL
/// or what they were made of is there, and those that were to be removed.
///
/// # Errors
/// Whatever the file system gives.
pub(super) fn remove_unfinished(dir: &Path, manifest: &Manifest) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Layered { deltas, images, .. } = &manifest.layered;
        let counts = deltas.iter().chain(images).any(|layer| layer == name)
            || matches!(&manifest.origin, Origin::ImageLayer(image) if image == name);
        if (name.starts_with(DELTA) || name.starts_with(IMAGE)) && !counts {
            durable_files::unlink(&dir.join(name))?;
        }
    }
    Ok(())
}
