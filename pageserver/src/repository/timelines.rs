//! Timelines are loaded when they are used.

use std::sync::Arc;

use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::scan::timeline_dir;
use super::unload::Slot;
use super::{Repository, RepositoryError};
use crate::error_text::with_causes;
use crate::stop::Stop;
use crate::timeline::manifest::{Manifest, Origin};
use crate::timeline::{Debt, Timeline};

/// What is wrong with a branch.
pub enum Trouble {
    /// It, or what it stands on, cannot be loaded.
    Unreadable(String),
    /// It is served up to here.
    Stopped(Arc<Stop>),
}

impl Repository {
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
        let slot = self.timelines.entry(id).or_insert_with(|| Arc::new(Slot::new())).clone();
        self.note_use(&slot);
        let mut loaded = slot.timeline.lock();
        if let Some(timeline) = loaded.clone() {
            drop(loaded);
            timeline.look_again();
            return Ok(timeline);
        }
        let dir = timeline_dir(&self.dir, id);
        if !dir.exists() {
            drop(loaded);
            drop(slot);
            self.forget_slot(id);
            return Err(RepositoryError::NoSuchTimeline(id));
        }
        self.without_wal.forget(id);
        let manifest = Manifest::read(&dir)?;
        let ancestor = match &manifest.origin {
            Origin::Ancestor(ancestor) => Some(self.timeline(ancestor.timeline)?),
            Origin::ImageLayer(_) | Origin::OwnImage => None,
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
        self.note_load();
        Ok(timeline)
    }

    /// The timeline with this id if it is loaded and not just being loaded.
    pub fn loaded_timeline(&self, id: TimelineId) -> Option<Arc<Timeline>> {
        let slot = self.timelines.get(&id)?.clone();
        slot.timeline.try_lock()?.clone()
    }

    /// How much of which loaded timeline's history is in memory, and how many layers were written of it.
    pub fn debts(&self) -> Vec<(TimelineId, Debt, u64)> {
        let slots: Vec<_> =
            self.timelines.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
        // One that is just being loaded is left out: its lock may be held for long.
        let loaded = slots
            .into_iter()
            .filter_map(|(id, slot)| Some((id, slot.timeline.try_lock()?.clone()?)));
        loaded.map(|(id, timeline)| (id, timeline.debt(), timeline.layers_written())).collect()
    }

    /// The branches that cannot be read, or take nothing in, as far as that is known, by name, and why.
    ///
    /// # Errors
    /// `Io`, if the folders themselves cannot be read.
    pub fn troubled(&self) -> Result<Vec<(BranchName, Trouble)>, RepositoryError> {
        let mut found = Vec::new();
        // Mostly none is, and then it does not matter how many there are.
        if !self.failures.lock().is_empty() {
            for branch in self.branches()? {
                if let Some(failure) = self.load_failure(branch.timeline) {
                    found.push((branch.name, Trouble::Unreadable(failure)));
                }
            }
        }
        for (id, slot) in self.slots() {
            let Some(timeline) = slot.timeline.try_lock().and_then(|loaded| loaded.clone()) else {
                continue;
            };
            if let (Some(stop), Some(branch)) = (timeline.stop(), self.branch_of(id))
                && !found.iter().any(|(name, _)| *name == branch.name)
            {
                found.push((branch.name, Trouble::Stopped(stop)));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// Why the timeline, or one that it stands on, could not be loaded when it was last asked for.
    pub fn load_failure(&self, id: TimelineId) -> Option<String> {
        if self.failures.lock().is_empty() {
            return None;
        }
        // What could not be loaded may be an ancestor that nobody has asked for by name.
        let _ = self.know_all();
        let count = self.registry.read().timeline_count();
        let mut next = Some(id);
        // A circle of damaged files must not keep us here.
        for _ in 0..=count {
            let id = next?;
            if let Some(failure) = self.failures.lock().get(&id) {
                return Some(failure.clone());
            }
            next = self.registry.read().ancestor(id).map(|at| at.timeline);
        }
        None
    }
}
