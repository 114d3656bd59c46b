//! `Timeline`: one line of history of a cluster, from its WAL on disk to pages at any LSN.
//!
//! A timeline is its own WAL since it began, an index over that WAL in memory, and what lies below:
//! the timeline it was forked from, or the image layer it was loaded into. See README.md for the
//! order of the locks.

mod checkpoint_at;
mod collect;
mod compact;
#[cfg(test)]
pub(crate) mod damage;
mod debt;
mod detach;
pub mod error;
mod free_space;
mod freeze;
pub mod get_page;
mod give_way;
mod heal;
mod history;
mod image;
mod image_plan;
mod ingest;
mod layers;
mod load;
mod make_ahead;
pub mod manifest;
mod merge;
mod objects;
mod page_plan;
mod page_range;
mod retire_wal;
mod room;
mod tidy;
mod times;
mod tip;
mod unload;
mod wal_of_stretch;
mod wal_pages;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::{Lsn, TimelineId};
use slog::Logger;

use crate::cluster::Cluster;
use crate::layer::delta::DeltaLayer;
use crate::layer::freezer::LayerShared;
use crate::layer::image::ImageLayer;
use crate::layer::imaged::ImagedLayer;
use crate::page_maker::PageMaker;
use crate::repository::NAME_IN_THE_MAKING;
use crate::seqwait::SeqWait;
use crate::wal::flushed_mark::FlushedMark;
use crate::wal::store::WalStore;
use error::TimelineError;
use history::History;
use ingest::Writer;
use manifest::{Layered, Manifest, Origin, Retained};

pub use checkpoint_at::StateAt;
pub use collect::{Collected, Needed};
pub(crate) use collect::{Span, horizon_of, unneeded};
pub use compact::Compacted;
pub use debt::Debt;
pub(crate) use debt::look_after;
pub use freeze::{FreezeError, Frozen, WrittenLayer, image_name};
pub use get_page::{GetPageError, PageRequest};
pub use ingest::IngestError;
pub use layers::LayerFile;

/// What lies below a timeline's own WAL.
enum Below {
    /// Another timeline, up to an LSN.
    Ancestor(Arc<Timeline>, Lsn),
    /// All pages at the LSN at which this one begins.
    Image(ImageLayer),
    /// Nothing: its own history begins with an image.
    Nothing,
}

/// How far a timeline's WAL has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Positions {
    /// End of what was received, perhaps in the middle of a record.
    pub received: Lsn,
    /// End of the last complete record, where the next one begins.
    pub last_record: Lsn,
    /// Everything before this is durable.
    pub flushed: Lsn,
    /// The same as the end of a record, where the next one begins.
    pub durable: Lsn,
}

/// One line of history.
pub struct Timeline {
    myself: Weak<Timeline>,
    is_shut_down: AtomicBool,
    /// Whether it is to be detached. Changed under the lock `layered`, as the manifest is.
    detaching: AtomicBool,
    manifest: Manifest,
    dir: PathBuf,
    cluster: Arc<Cluster>,
    wal: WalStore,
    flushed_mark: FlushedMark,
    maker: Arc<PageMaker>,
    log: Logger,
    /// The writer's state. Only the one who receives WAL takes it, and keeps it during IO.
    // LOCK ORDER: 1, before `history`, `positions` and the locks of `wal`.
    writer: Mutex<Writer>,
    // LOCK ORDER: 2. Never held during IO, redo or a wait, nor while another timeline's is taken.
    history: RwLock<History>,
    /// Held by whoever makes images, merges or removes layers, while that lasts.
    // LOCK ORDER: 2, before `layered`, beside `writer`; IO and redo happen under it.
    reshaping: Mutex<()>,
    /// What of it is in layers, as the manifest says. Held by the one who writes layers.
    // LOCK ORDER: 3, beside `writer`; IO happens under it.
    layered: Mutex<Layered>,
    layers: Arc<LayerShared>,
    debt: debt::DebtState,
    /// What can be asked for still.
    // LOCK ORDER: a leaf, held for a moment.
    retained: RwLock<Retained>,
    // LOCK ORDER: 3, a leaf.
    positions: Mutex<Positions>,
    /// How often receiving was begun anew. Changed and compared under the lock of `positions`.
    restarts: AtomicU64,
    /// How far the WAL has been durable, if it is not that far now.
    claimed: AtomicU64,
    /// When the WAL on disk was last looked at to see whether it has been mended.
    // LOCK ORDER: a leaf, held for a moment.
    looked_again: Mutex<Option<Instant>>,
    /// The position up to which reads can be answered.
    readable: SeqWait,
}

/// The cluster's control file in a root's folder.
fn control_file_in(dir: &Path) -> PathBuf {
    dir.join("pg_control")
}

fn read_cluster(dir: &Path) -> Result<Arc<Cluster>, TimelineError> {
    let path = control_file_in(dir);
    let bytes =
        std::fs::read(&path).map_err(|source| TimelineError::Io { path: path.clone(), source })?;
    let cluster = Cluster::from_control_file(&bytes)
        .map_err(|source| TimelineError::ControlFile { path, source })?;
    Ok(Arc::new(cluster))
}

/// Removes what was being written into a timeline's folder when the process ended, other than layers.
fn remove_unfinished(dir: &Path, manifest: &Manifest) -> std::io::Result<()> {
    durable_files::remove_unfinished(&manifest::path_in(dir))?;
    let control_file = control_file_in(dir);
    durable_files::remove_unfinished(&control_file)?;
    // It was being detached.
    if manifest.origin.ancestor().is_some() && control_file.try_exists()? {
        durable_files::unlink(&control_file)?;
    }
    // A crash may have left it that name beside the one in `refs/branches`.
    let name = dir.join(NAME_IN_THE_MAKING);
    if name.try_exists()? {
        durable_files::unlink(&name)?;
    }
    WalStore::remove_unfinished(&dir.join("wal"))
}

impl Timeline {
    /// Opens the timeline in `dir` and indexes its WAL; where that is damaged, the timeline stops.
    /// `ancestor` is the timeline that its manifest names, if it names one.
    ///
    /// # Errors
    /// See `TimelineError`.
    pub(crate) fn open(
        dir: &Path,
        mut manifest: Manifest,
        ancestor: Option<Arc<Timeline>>,
        maker: Arc<PageMaker>,
        layers: Arc<LayerShared>,
        log: &Logger,
    ) -> Result<Arc<Timeline>, TimelineError> {
        let (below, cluster) = match (&manifest.origin, ancestor) {
            (Origin::Ancestor(at), Some(ancestor)) => {
                // Never so unless somebody has changed files. Older layers would be asked in place of
                // those that were removed.
                if ancestor.check_lsn(at.lsn).is_err() {
                    return Err(TimelineError::AncestorRemoved {
                        ancestor: ancestor.id(),
                        lsn: at.lsn,
                    });
                }
                let cluster = ancestor.cluster.clone();
                (Below::Ancestor(ancestor, at.lsn), cluster)
            }
            (Origin::ImageLayer(name), None) => {
                let layer = ImageLayer::open(&dir.join("layers").join(name))?;
                (Below::Image(layer), read_cluster(dir)?)
            }
            (Origin::OwnImage, None) => (Below::Nothing, read_cluster(dir)?),
            _ => return Err(TimelineError::AncestorMissing(manifest.id)),
        };
        if !manifest.state_is_complete {
            manifest.state = match &below {
                Below::Ancestor(ancestor, at) => ancestor.state_at(*at)?.state,
                Below::Image(_) | Below::Nothing => CheckpointState {
                    parameters: cluster.control_file.parameters,
                    ..manifest.state
                },
            };
            manifest.layered = Layered::nothing(manifest.start, manifest.state);
        }
        remove_unfinished(dir, &manifest)
            .map_err(|source| TimelineError::Io { path: dir.into(), source })?;
        let segments = layers.segments.clone();
        let wal = WalStore::sharing(dir.join("wal"), cluster.segment_size, cluster.tli, segments);
        let flushed_mark = FlushedMark::new(wal.dir());
        let folder = dir.join("layers");
        freeze::remove_unfinished(&folder, &manifest)
            .map_err(|source| TimelineError::Io { path: folder.clone(), source })?;
        let open = |name| {
            let path = folder.join(name);
            let Cluster { segment_size, checksums, .. } = *cluster;
            DeltaLayer::open(&path, manifest.id, segment_size, checksums, &layers.files)
        };
        let deltas = manifest.layered.deltas.iter().map(open).collect::<Result<_, _>>()?;
        let open = |name| {
            let path = folder.join(name);
            ImagedLayer::open(&path, manifest.id, cluster.segment_size, &layers.files)
        };
        let images = manifest.layered.images.iter().map(open).collect::<Result<_, _>>()?;
        let start = manifest.layered.end.normalized(cluster.segment_size);
        // The history of an ancestor counts only as far as that has it.
        let readable = match &below {
            Below::Ancestor(..) => Lsn::INVALID,
            Below::Image(_) | Below::Nothing => start,
        };
        let history = History::new(&manifest.layered, deltas, images, below);
        let timeline = Arc::new_cyclic(|myself| Timeline {
            myself: myself.clone(),
            is_shut_down: AtomicBool::new(false),
            detaching: AtomicBool::new(manifest.detaching),
            writer: Mutex::new(Writer::new(&manifest, &cluster)),
            log: log.new(slog::o!("timeline" => manifest.id.to_string())),
            dir: dir.to_owned(),
            cluster,
            wal,
            flushed_mark,
            maker,
            history: RwLock::new(history),
            reshaping: Mutex::new(()),
            retained: RwLock::new(manifest.layered.retained.clone()),
            layered: Mutex::new(manifest.layered.clone()),
            layers,
            debt: debt::DebtState::default(),
            positions: Mutex::new(Positions {
                received: start,
                last_record: start,
                flushed: start,
                durable: start,
            }),
            restarts: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            looked_again: Mutex::new(None),
            readable: SeqWait::new(readable),
            manifest,
        });
        timeline.remove_layered_wal(&timeline.layered.lock());
        timeline.index_wal_on_disk(&mut timeline.writer.lock());
        timeline.layers.look_after(&timeline);
        if timeline.has_begun_image() {
            // It is gone on with after that.
            timeline.layers.write_soon(timeline.myself.clone());
        }
        Ok(timeline)
    }

    /// Whose history this is.
    pub fn id(&self) -> TimelineId {
        self.manifest.id
    }

    /// What it was made of when it was opened; `origin` says what lies below now.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What lies below its own WAL.
    pub fn origin(&self) -> Origin {
        match &*self.below() {
            Below::Ancestor(ancestor, at) => {
                Origin::Ancestor(manifest::Ancestor { timeline: ancestor.id(), lsn: *at })
            }
            Below::Image(_) => self.manifest.origin.clone(),
            Below::Nothing => Origin::OwnImage,
        }
    }

    fn below(&self) -> Arc<Below> {
        self.history.read().below()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What never changes over the cluster's history.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where its own WAL begins; reads below this are answered by the ancestor.
    pub fn start_lsn(&self) -> Lsn {
        self.manifest.start
    }

    /// The ancestor, if everything up to `lsn` is its history.
    pub(crate) fn ancestor_before(&self, lsn: Lsn) -> Option<Arc<Timeline>> {
        match &*self.below() {
            Below::Ancestor(ancestor, at) if lsn < *at => Some(ancestor.clone()),
            _ => None,
        }
    }

    /// How far its WAL has come.
    pub fn positions(&self) -> Positions {
        *self.positions.lock()
    }

    /// End of the last complete record, as the place where the next one begins.
    pub fn last_record_lsn(&self) -> Lsn {
        self.positions().last_record
    }

    /// End of the WAL received, perhaps in the middle of a record.
    pub fn last_received_lsn(&self) -> Lsn {
        self.positions().received
    }

    /// Everything before this survives a crash of the machine.
    pub fn flushed_lsn(&self) -> Lsn {
        self.positions().flushed
    }

    /// How many versions of pages its index holds.
    pub fn version_count(&self) -> u64 {
        self.history.read().version_count()
    }

    /// The folder with the WAL segments.
    pub fn wal_dir(&self) -> &Path {
        self.wal.dir()
    }

    /// Ends all waits and refuses those to come.
    pub fn shut_down(&self) {
        self.is_shut_down.store(true, Ordering::Relaxed);
        self.readable.shut_down();
    }
}
