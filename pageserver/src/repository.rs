//! `Repository`: the branches of a folder and the timelines they name.
//!
//! A branch is a file `refs/branches/NAME` that holds a timeline's id. Timelines are loaded when
//! first used; until then only their manifests have been read.

mod error;
mod scan;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use pageserver_client::{At, BranchName, Point};
use parking_lot::{Mutex, RwLock};
use postgres_formats::{Lsn, TimelineId, Timestamp};
use slog::Logger;

use crate::error_text::with_causes;
use crate::layer::freezer::{LayerOptions, LayerShared};
use crate::layer::import::DataDirectory;
use crate::page_maker::PageMaker;
use crate::timeline::Timeline;
use crate::timeline::manifest::{Ancestor, Layered, Manifest, Origin};
pub use error::RepositoryError;
pub use scan::Unreadable;
use scan::{Found, branches_dir, scan, timeline_dir, unnamed_dir};

/// Damaged files are looked at again at most this often, unless something is decided by them.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

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
}

/// A timeline that is loaded, or being loaded, or not yet.
type Slot = Arc<Mutex<Option<Arc<Timeline>>>>;

/// The branches of a folder and the timelines they name.
pub struct Repository {
    dir: PathBuf,
    default_branch: String,
    maker: Arc<PageMaker>,
    layers: Arc<LayerShared>,
    log: Logger,
    /// Serialises changes of branches. LOCK ORDER: 1; IO happens under it.
    changing: Mutex<()>,
    /// LOCK ORDER: 3, a leaf; never held during IO.
    branches: RwLock<BTreeMap<BranchName, Branch>>,
    /// What is damaged, so that it is no branch for now.
    // LOCK ORDER: 3, a leaf; never held during IO.
    unreadable: RwLock<Vec<Unreadable>>,
    /// Why timelines could not be loaded when they were last asked for.
    // LOCK ORDER: 3, a leaf; never held during IO.
    failures: Mutex<BTreeMap<TimelineId, String>>,
    /// When damaged files were last looked at.
    // LOCK ORDER: 3, a leaf.
    looked_again: Mutex<Option<Instant>>,
    /// A shard's lock is held only to fetch a slot. A slot's own lock (LOCK ORDER: 2, a timeline
    /// before its ancestor) is held while the timeline is loaded, so that it is loaded once.
    timelines: DashMap<TimelineId, Slot>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Repository {
    /// Makes the first timeline of the repository in `dir` from a cleanly stopped data directory,
    /// under the name `branch`.
    ///
    /// # Errors
    /// See `RepositoryError`; `AlreadyExists` if there is such a branch.
    pub fn init_from_pgdata(
        dir: &Path,
        pgdata: &Path,
        branch: &BranchName,
    ) -> Result<TimelineId, RepositoryError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RepositoryError::Io { path, source }
        };
        let refs = branches_dir(dir);
        fs::create_dir_all(&refs).map_err(io(&refs))?;
        let ref_path = refs.join(branch.as_str());
        if ref_path.exists() {
            return Err(RepositoryError::AlreadyExists(branch.clone()));
        }
        let data = DataDirectory::open(pgdata)?;
        let id = TimelineId::generate();
        let path = unnamed_dir(dir, id);
        let (wal, layers) = (path.join("wal"), path.join("layers"));
        for folder in [&wal, &layers] {
            fs::create_dir_all(folder).map_err(io(folder))?;
        }
        let layer = format!("image__{:016X}", data.end.as_u64());
        data.load(&layers.join(&layer))?;
        let size = data.cluster.segment_size;
        let (segment_start, bytes) = data.last_segment()?;
        let segment = wal.join(segment_start.segment(size).file_name(data.cluster.tli, size));
        durable_files::write_file(&segment, &bytes).map_err(io(&segment))?;
        let control = path.join("pg_control");
        durable_files::write_file(&control, &data.control_file).map_err(io(&control))?;
        let manifest = Manifest {
            id,
            origin: Origin::ImageLayer(layer),
            start: data.end,
            state: data.state,
            state_is_complete: true,
            created: now(),
            layered: Layered::nothing(data.end, data.state),
        };
        manifest.write(&path)?;
        for folder in [path.as_path(), &dir.join("timelines"), &dir.join("refs"), dir] {
            durable_files::sync_dir(folder).map_err(io(folder))?;
        }
        // The name comes last: only now does the timeline exist for anybody.
        durable_files::write_file(&ref_path, id.to_string().as_bytes()).map_err(io(&ref_path))?;
        durable_files::rename(&path, &timeline_dir(dir, id)).map_err(io(&path))?;
        Ok(id)
    }

    /// Opens the repository in `dir`.
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
        let Found { branches, unreadable } = scan(dir)?;
        for damaged in &unreadable {
            slog::error!(log, "{} cannot be used: {}", damaged.label(), damaged.cause);
        }
        Ok(Arc::new(Repository {
            dir: dir.to_owned(),
            default_branch: default_branch.to_owned(),
            maker,
            layers: LayerShared::start(layers, log),
            log: log.clone(),
            changing: Mutex::new(()),
            branches: RwLock::new(branches),
            unreadable: RwLock::new(unreadable),
            failures: Mutex::default(),
            looked_again: Mutex::new(None),
            timelines: DashMap::new(),
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

    /// All branches, by name.
    pub fn branches(&self) -> Vec<Branch> {
        self.branches.read().values().cloned().collect()
    }

    /// What cannot be used because files of it are damaged.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.unreadable.read().clone()
    }

    /// Why the timeline, or one that it stands on, could not be loaded when it was last asked for.
    pub fn load_failure(&self, id: TimelineId) -> Option<String> {
        let count = self.branches.read().len();
        let mut next = Some(id);
        // A circle of damaged files must not keep us here.
        for _ in 0..=count {
            let id = next?;
            if let Some(failure) = self.failures.lock().get(&id) {
                return Some(failure.clone());
            }
            next = self.branch_of(id).and_then(|branch| branch.ancestor).map(|at| at.timeline);
        }
        None
    }

    /// Looks whether damaged files have been mended; not more often than is reasonable.
    pub fn look_again(&self) {
        {
            let mut looked = self.looked_again.lock();
            if looked.is_some_and(|when| when.elapsed() < LOOK_AGAIN_AFTER) {
                return;
            }
            *looked = Some(Instant::now());
        }
        // Whoever changes branches looks by himself.
        if let Some(_changing) = self.changing.try_lock() {
            self.look_now();
        }
        let failed: Vec<TimelineId> = self.failures.lock().keys().copied().collect();
        for id in failed {
            // What is wrong now is remembered.
            let _ = self.timeline(id);
        }
    }

    /// Takes in what has been mended. Whoever calls holds the lock `changing`.
    fn look_now(&self) {
        if self.unreadable.read().is_empty() {
            return;
        }
        let found = match scan(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                slog::warn!(self.log, "branches cannot be looked at: {}", with_causes(&error));
                return;
            }
        };
        let mut branches = self.branches.write();
        for (name, branch) in found.branches {
            let known = branches.values().any(|known| known.timeline == branch.timeline);
            if !known && !branches.contains_key(&name) {
                slog::info!(self.log, "branch can be used again"; "branch" => %name);
                branches.insert(name, branch);
            }
        }
        // What was known before stays known: what is damaged of it is said where it is read.
        let mut unreadable = found.unreadable;
        unreadable.retain(|damaged| {
            !branches.values().any(|known| {
                Some(&known.name) == damaged.name.as_ref()
                    || Some(known.timeline) == damaged.timeline
            })
        });
        drop(branches);
        *self.unreadable.write() = unreadable;
    }

    /// Refuses a name that is taken by a branch, whether that can be used or not.
    fn check_free(&self, name: &BranchName) -> Result<(), RepositoryError> {
        if self.branches.read().contains_key(name) {
            return Err(RepositoryError::AlreadyExists(name.clone()));
        }
        self.unreadable_named(name).map_or(Ok(()), Err)
    }

    fn unreadable_named(&self, name: &BranchName) -> Option<RepositoryError> {
        let unreadable = self.unreadable.read();
        let damaged = unreadable.iter().find(|damaged| damaged.name.as_ref() == Some(name))?;
        let cause = damaged.cause.clone();
        Some(RepositoryError::Unreadable { name: name.clone(), cause })
    }

    /// The branch of that name.
    ///
    /// # Errors
    /// `NoSuchBranch`, `Unreadable`.
    pub fn branch(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        // Also if there is none: what is damaged may be the file that says so.
        if !self.branches.read().contains_key(name) && !self.unreadable.read().is_empty() {
            self.look_again();
        }
        if let Some(error) = self.unreadable_named(name) {
            return Err(error);
        }
        let branches = self.branches.read();
        let no_such = || RepositoryError::NoSuchBranch {
            name: name.clone(),
            known: branches.keys().cloned().collect(),
        };
        branches.get(name).cloned().ok_or_else(no_such)
    }

    /// The branch that names this timeline.
    pub fn branch_of(&self, timeline: TimelineId) -> Option<Branch> {
        self.branches.read().values().find(|branch| branch.timeline == timeline).cloned()
    }

    /// The timeline with this id, loaded if it was not.
    ///
    /// # Errors
    /// See `RepositoryError`.
    pub fn timeline(&self, id: TimelineId) -> Result<Arc<Timeline>, RepositoryError> {
        let loaded = self.load(id);
        let mut failures = self.failures.lock();
        match &loaded {
            Ok(_) => drop(failures.remove(&id)),
            Err(RepositoryError::NoSuchTimeline(_)) if self.branch_of(id).is_none() => {
                failures.remove(&id);
            }
            Err(error) => drop(failures.insert(id, with_causes(error))),
        }
        drop(failures);
        loaded
    }

    fn load(&self, id: TimelineId) -> Result<Arc<Timeline>, RepositoryError> {
        let slot = self.timelines.entry(id).or_default().clone();
        let mut loaded = slot.lock();
        if let Some(timeline) = loaded.clone() {
            drop(loaded);
            timeline.look_again();
            return Ok(timeline);
        }
        let dir = timeline_dir(&self.dir, id);
        if !dir.exists() {
            drop(loaded);
            self.timelines.remove_if(&id, |_, slot| slot.try_lock().is_some_and(|s| s.is_none()));
            return Err(RepositoryError::NoSuchTimeline(id));
        }
        let manifest = Manifest::read(&dir)?;
        let ancestor = match &manifest.origin {
            Origin::Ancestor(ancestor) => Some(self.timeline(ancestor.timeline)?),
            Origin::ImageLayer(_) => None,
        };
        let began = std::time::Instant::now();
        let timeline = Timeline::open(
            &dir,
            manifest,
            ancestor,
            self.maker.clone(),
            self.layers.clone(),
            &self.log,
        )?;
        slog::info!(self.log, "timeline loaded"; "timeline" => %id,
            "last_record" => %timeline.last_record_lsn(), "versions" => timeline.version_count(),
            "milliseconds" => began.elapsed().as_millis() as u64);
        *loaded = Some(timeline.clone());
        Ok(timeline)
    }

    /// The timeline with this id if it is loaded and not just being loaded.
    pub fn loaded_timeline(&self, id: TimelineId) -> Option<Arc<Timeline>> {
        let slot = self.timelines.get(&id)?.clone();
        slot.try_lock()?.clone()
    }

    /// Makes a branch at a point of another. Waits up to `timeout` for an LSN to be received; the
    /// end and a time are looked for in what is there.
    ///
    /// # Errors
    /// See `RepositoryError`; nothing has been changed then.
    pub fn create_branch(
        &self,
        name: &BranchName,
        point: &Point,
        timeout: Duration,
    ) -> Result<Branch, RepositoryError> {
        self.check_free(name)?;
        let mut parent = self.timeline(self.branch(&point.branch)?.timeline)?;
        let lsn = match point.at {
            At::End => parent.end_lsn()?,
            At::Lsn(lsn) => lsn,
            At::Time(time) => parent.lsn_at(time)?,
            At::Ago(ago) => {
                let now = Timestamp::from(SystemTime::now());
                parent.lsn_at(now.saturating_sub(ago))?
            }
        };
        parent.check_lsn(lsn)?;
        parent.wait_lsn(lsn, timeout)?;
        let at = parent.state_at(lsn)?;
        // The history before a parent's own beginning is its ancestor's.
        while let Some(ancestor) = parent.ancestor_before(at.base) {
            parent = ancestor;
        }
        // What a branch stands on must not be lost in a crash.
        if parent.flushed_lsn() < at.base {
            parent.sync_wal().map_err(crate::timeline::error::TimelineError::from)?;
        }
        let _changing = self.changing.lock();
        // A file that was put back must not be overwritten.
        self.look_now();
        self.check_free(name)?;
        // The parent may have been deleted meanwhile.
        if self.branch_of(parent.id()).is_none() && self.children(parent.id()).is_empty() {
            return Err(RepositoryError::NoSuchTimeline(parent.id()));
        }
        let ancestor = Ancestor { timeline: parent.id(), lsn: at.base };
        let manifest = Manifest {
            id: TimelineId::generate(),
            origin: Origin::Ancestor(ancestor),
            start: at.base,
            state: at.state,
            state_is_complete: true,
            created: now(),
            layered: Layered::nothing(at.base, at.state),
        };
        let branch = Branch {
            name: name.clone(),
            timeline: manifest.id,
            ancestor: Some(ancestor),
            start: manifest.start,
            created: manifest.created,
        };
        self.write_branch(&branch, &manifest)?;
        self.branches.write().insert(name.clone(), branch.clone());
        slog::info!(self.log, "branch created"; "branch" => %name,
            "timeline" => %branch.timeline, "ancestor" => %parent.id(), "lsn" => %at.base);
        Ok(branch)
    }

    fn write_branch(&self, branch: &Branch, manifest: &Manifest) -> Result<(), RepositoryError> {
        let unnamed = unnamed_dir(&self.dir, branch.timeline);
        let dir = timeline_dir(&self.dir, branch.timeline);
        let name = branches_dir(&self.dir).join(branch.name.as_str());
        let io = |path: &Path, source| RepositoryError::Io { path: path.to_owned(), source };
        let written = (|| {
            for folder in [unnamed.join("wal"), unnamed.join("layers")] {
                fs::create_dir_all(&folder).map_err(|source| io(&folder, source))?;
            }
            manifest.write(&unnamed)?;
            let timelines = self.dir.join("timelines");
            durable_files::sync_dir(&timelines).map_err(|source| io(&timelines, source))?;
            durable_files::write_file(&name, branch.timeline.to_string().as_bytes())
                .map_err(|source| io(&name, source))?;
            durable_files::rename(&unnamed, &dir).map_err(|source| io(&unnamed, source))
        })();
        if written.is_err() {
            // The error that matters is the first; without its name it is no branch anyway.
            if durable_files::remove_file(&name).is_ok() {
                let _ = fs::remove_dir_all(&unnamed);
                let _ = fs::remove_dir_all(&dir);
            }
        }
        written
    }

    /// Names of the branches whose timelines were forked from this one.
    pub fn children(&self, id: TimelineId) -> Vec<BranchName> {
        let child = |branch: &&Branch| branch.ancestor.is_some_and(|a| a.timeline == id);
        self.branches.read().values().filter(child).map(|branch| branch.name.clone()).collect()
    }

    /// Deletes a branch and its timeline. Nobody may be writing to it.
    ///
    /// # Errors
    /// `HasChildren` if other branches stand on it, `MayBeNeeded` if one may that cannot be read;
    /// see `RepositoryError`.
    pub fn delete_branch(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        let _changing = self.changing.lock();
        self.look_now();
        let branch = self.branch(name)?;
        if name.as_str() == self.default_branch {
            return Err(RepositoryError::IsDefault(name.clone()));
        }
        let children = self.children(branch.timeline);
        if !children.is_empty() {
            return Err(RepositoryError::HasChildren { name: name.clone(), children });
        }
        let needed = |damaged: &&Unreadable| damaged.may_stand_on(branch.timeline);
        if let Some(damaged) = self.unreadable.read().iter().find(needed) {
            return Err(RepositoryError::MayBeNeeded {
                name: name.clone(),
                by: damaged.label(),
                cause: damaged.cause.clone(),
            });
        }
        let io = |path: &Path, source| RepositoryError::Io { path: path.to_owned(), source };
        // Without its name first, so that a folder of that name that nobody names is a loss.
        let dir = timeline_dir(&self.dir, branch.timeline);
        let unnamed = unnamed_dir(&self.dir, branch.timeline);
        durable_files::rename(&dir, &unnamed).map_err(|source| io(&dir, source))?;
        let path = branches_dir(&self.dir).join(name.as_str());
        if let Err(source) = durable_files::remove_file(&path) {
            // The branch is still there, and has to be whole.
            durable_files::rename(&unnamed, &dir).map_err(|source| io(&unnamed, source))?;
            return Err(io(&path, source));
        }
        self.branches.write().remove(name);
        self.failures.lock().remove(&branch.timeline);
        if let Some((_, slot)) = self.timelines.remove(&branch.timeline)
            && let Some(timeline) = slot.lock().take()
        {
            timeline.shut_down();
            timeline.wait_for_layers();
        }
        fs::remove_dir_all(&unnamed).map_err(|source| io(&unnamed, source))?;
        slog::info!(self.log, "branch deleted"; "branch" => %name, "timeline" => %branch.timeline);
        Ok(branch)
    }

    /// Gives a branch another name.
    ///
    /// # Errors
    /// See `RepositoryError`.
    pub fn rename_branch(
        &self,
        old: &BranchName,
        new: &BranchName,
    ) -> Result<Branch, RepositoryError> {
        let _changing = self.changing.lock();
        self.look_now();
        let mut branch = self.branch(old)?;
        self.check_free(new)?;
        if old.as_str() == self.default_branch {
            return Err(RepositoryError::IsDefault(old.clone()));
        }
        let dir = branches_dir(&self.dir);
        durable_files::rename(&dir.join(old.as_str()), &dir.join(new.as_str()))
            .map_err(|source| RepositoryError::Io { path: dir, source })?;
        branch.name = new.clone();
        let mut branches = self.branches.write();
        branches.remove(old);
        branches.insert(new.clone(), branch.clone());
        Ok(branch)
    }

    /// Ends all waits on all timelines and makes what was received durable.
    pub fn shut_down(&self) {
        self.layers.stop();
        // The slots first, so that no shard is locked while one of them is.
        let slots: Vec<Slot> = self.timelines.iter().map(|entry| entry.value().clone()).collect();
        for slot in slots {
            let Some(timeline) = slot.lock().clone() else { continue };
            timeline.shut_down();
            if let Err(error) = timeline.sync_wal() {
                slog::error!(self.log, "WAL not synced at shutdown";
                    "timeline" => %timeline.id(), "error" => %error);
            }
        }
    }
}
