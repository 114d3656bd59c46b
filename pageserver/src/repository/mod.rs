//! `Repository`: the branches of a folder and the timelines they name.
//!
//! A branch is a file `refs/branches/NAME` that names a timeline (`ref_file.rs`). Nothing is read when a repository
//! is opened: a branch is found by its own files when it is asked for (`lookup.rs`), and timelines are
//! loaded when they are first used. What needs all branches goes through the folders once.

mod collect;
mod create;
mod delete;
mod detach;
mod error;
#[cfg(all(test, debug_assertions))]
mod faults;
#[cfg(test)]
mod gc_tests;
mod glance;
mod holds;
mod init;
mod keep;
mod kept;
mod lease;
mod leftovers;
mod lookup;
mod point;
pub(crate) mod ref_file;
mod registry;
mod rename;
mod scan;
mod sweep;
mod tag;
mod timelines;
mod unload;
mod without_wal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use pageserver_client::BranchName;
use parking_lot::{Mutex, RwLock};
use postgres_formats::{Lsn, TimelineId};
use slog::Logger;

use crate::layer::freezer::{LayerOptions, LayerShared};
use crate::leases::{Leases, Readings};
use crate::page_maker::PageMaker;
use crate::timeline::manifest::Ancestor;
pub use collect::{Outlook, Retention};
pub(crate) use create::NAME_IN_THE_MAKING;
use detach::Detacher;
pub use error::RepositoryError;
use glance::Glances;
pub use holds::{Hold, Holder};
pub use kept::Kept;
pub use lease::LeaseRequest;
use registry::Registry;
use scan::check_folders;
pub use scan::{UNNAMED, Unreadable};
pub use sweep::Sweep;
pub use tag::{Tag, UnusableTag};
pub use timelines::Trouble;
pub use unload::UnloadOptions;
use unload::{Slot, Unloader};
use without_wal::WithoutWal;

/// A name for a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    /// The name.
    pub name: BranchName,
    /// What it names.
    pub timeline: TimelineId,
    /// What the timeline was forked from.
    pub ancestor: Option<Ancestor>,
    /// Where the timeline's own history begins.
    pub start: Lsn,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Whether it cannot be deleted.
    pub protected: bool,
    /// When it may go by itself, in seconds since 1970.
    pub expires: Option<u64>,
    /// Whether it is to be detached from what it was forked from.
    pub detaching: bool,
    /// How much of its history is kept, if not as much as that of all.
    pub retention: Option<Retention>,
}

/// The branches of a folder and the timelines they name.
pub struct Repository {
    dir: PathBuf,
    default_branch: String,
    maker: Arc<PageMaker>,
    layers: Arc<LayerShared>,
    /// Changed by the one who holds `changing`.
    leases: Leases,
    readings: Arc<Readings>,
    glances: Glances,
    log: Logger,
    /// Serialises changes of branches. LOCK ORDER: 1; IO happens under it.
    changing: Mutex<()>,
    // LOCK ORDER: 3, a leaf; never held during IO.
    registry: RwLock<Registry>,
    /// Held by the one who reads all branches. Before `changing`; IO happens under it: whoever
    /// needs all of them has to wait anyway.
    filling: Mutex<()>,
    /// Why timelines could not be loaded when they were last asked for.
    // LOCK ORDER: 3, a leaf; never held during IO.
    failures: Mutex<BTreeMap<TimelineId, String>>,
    /// When damaged files were last looked at.
    // LOCK ORDER: 3, a leaf.
    looked_again: Mutex<Option<Instant>>,
    /// A shard's lock is held only to fetch a slot. A slot's own lock (LOCK ORDER: 2, a timeline
    /// before its ancestor) is held while the timeline is loaded, so that it is loaded once.
    timelines: DashMap<TimelineId, Arc<Slot>>,
    /// How many timelines are loaded.
    loaded: AtomicUsize,
    without_wal: WithoutWal,
    unloader: OnceLock<Unloader>,
    detacher: OnceLock<Detacher>,
    opened: Instant,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Repository {
    /// Opens the repository in `dir`. Reads no branch: that takes as long with one as with many.
    ///
    /// # Errors
    /// See `RepositoryError`.
    pub fn open(
        dir: &Path,
        default_branch: &str,
        maker: Arc<PageMaker>,
        layers: LayerOptions,
        log: &Logger,
    ) -> Result<Arc<Repository>, RepositoryError> {
        check_folders(dir)?;
        Ok(Arc::new(Repository {
            dir: dir.to_owned(),
            default_branch: default_branch.to_owned(),
            maker,
            layers: LayerShared::start(layers, log),
            leases: Leases::open(dir)?,
            readings: Arc::default(),
            glances: Glances::default(),
            log: log.clone(),
            changing: Mutex::new(()),
            registry: RwLock::default(),
            filling: Mutex::new(()),
            failures: Mutex::default(),
            looked_again: Mutex::new(None),
            timelines: DashMap::new(),
            loaded: AtomicUsize::new(0),
            without_wal: WithoutWal::default(),
            unloader: OnceLock::new(),
            detacher: OnceLock::new(),
            opened: Instant::now(),
        }))
    }

    /// The repository's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name of the branch that is meant where none is named.
    pub fn default_branch(&self) -> &str {
        &self.default_branch
    }

    /// What makes this repository's pages.
    pub fn maker(&self) -> &PageMaker {
        &self.maker
    }

    /// Ends all waits on all timelines and makes what was received durable.
    pub fn shut_down(&self) {
        self.layers.stop();
        for (_, slot) in self.slots() {
            let Some(timeline) = slot.timeline.lock().clone() else { continue };
            timeline.shut_down();
            timeline.wait_for_layers();
            if let Err(error) = timeline.sync_wal() {
                slog::error!(self.log, "WAL not synced at shutdown";
                    "timeline" => %timeline.id(), "error" => %error);
            }
        }
    }
}
