//! Finding branches: one by its own files, all of them by going through the folders.
//!
//! A branch that has been found stays known for as long as the process runs, until it is deleted or
//! renamed. What is asked for by name costs the reading of that branch's own files; only what needs all
//! of them (lists, what stands on a timeline) waits until all have been read.

use std::time::{Duration, Instant};

use pageserver_client::BranchName;
use parking_lot::MutexGuard;
use postgres_formats::TimelineId;

use super::scan::{Entry, HalfDone, Unreadable, branch_names, read_branch, scan};
use super::{Branch, Repository, RepositoryError};
use crate::error_text::with_causes;

/// Damaged files are looked at again at most this often, unless something is decided by them.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Held by the one who changes branches.
pub(super) type Changing<'a> = MutexGuard<'a, ()>;

impl Repository {
    /// The branch of that name. Reads no files but its own, if there is one.
    ///
    /// # Errors
    /// `NoSuchBranch`, `Unreadable`.
    pub fn branch(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        let found = match self.find(name) {
            Some(found) => found?,
            None => self.find_now(name, &self.changing.lock())?,
        };
        match found {
            Some(branch) => Ok(branch),
            None => {
                // The answer names those that there are.
                self.know_all()?;
                Err(self.no_such(name))
            }
        }
    }

    /// The same for the one who changes something.
    pub(super) fn branch_now(
        &self,
        name: &BranchName,
        changing: &Changing<'_>,
    ) -> Result<Branch, RepositoryError> {
        self.find_now(name, changing)?.ok_or_else(|| self.no_such(name))
    }

    fn no_such(&self, name: &BranchName) -> RepositoryError {
        let known = self.registry.read().branches().map(|branch| branch.name.clone()).collect();
        RepositoryError::NoSuchBranch { name: name.clone(), known }
    }

    /// The branch of that name, if there is one. `None`: it is being changed just now, or a change of
    /// it was broken off, so that only the one who changes branches can tell.
    fn find(&self, name: &BranchName) -> Option<Result<Option<Branch>, RepositoryError>> {
        let removals = {
            let registry = self.registry.read();
            if let Some(branch) = registry.get(name) {
                return Some(Ok(Some(branch.clone())));
            }
            registry.removals()
        };
        let entry = read_branch(&self.dir, name, HalfDone::Leave);
        if let Entry::Branch(branch) = &entry {
            let mut registry = self.registry.write();
            // Who was faster may have changed it by now.
            if let Some(branch) = registry.get(name) {
                return Some(Ok(Some(branch.clone())));
            }
            // Deleted or renamed between our reading and now, perhaps.
            if registry.removals() != removals {
                return None;
            }
            self.take(&mut registry, branch);
        }
        settled(entry)
    }

    fn find_now(
        &self,
        name: &BranchName,
        _changing: &Changing<'_>,
    ) -> Result<Option<Branch>, RepositoryError> {
        if let Some(branch) = self.registry.read().get(name) {
            return Ok(Some(branch.clone()));
        }
        let entry = read_branch(&self.dir, name, HalfDone::Finish);
        if let Entry::Branch(branch) = &entry {
            self.take(&mut self.registry.write(), branch);
        }
        settled(entry).unwrap_or(Ok(None))
    }

    fn take(&self, registry: &mut super::registry::Registry, branch: &Branch) {
        if registry.insert(branch.clone()) {
            slog::info!(self.log, "branch can be used again"; "branch" => %branch.name);
        }
    }

    /// Refuses a name that is taken by a branch or a tag, whether that can be used or not.
    pub(super) fn check_free(
        &self,
        name: &BranchName,
        changing: &Changing<'_>,
    ) -> Result<(), RepositoryError> {
        match self.find_now(name, changing)? {
            Some(_) => Err(RepositoryError::AlreadyExists(name.clone())),
            None => self.check_no_tag(name),
        }
    }

    /// The same, as far as it can be told without waiting for others.
    pub(super) fn check_free_early(&self, name: &BranchName) -> Result<(), RepositoryError> {
        match self.find(name).transpose()? {
            Some(Some(_)) => Err(RepositoryError::AlreadyExists(name.clone())),
            Some(None) | None => self.check_no_tag(name),
        }
    }

    fn check_no_tag(&self, name: &BranchName) -> Result<(), RepositoryError> {
        match self.find_tag(name)? {
            Some(_) => Err(RepositoryError::TagExists(name.clone())),
            None => Ok(()),
        }
    }

    /// Reads every branch that has not been read yet, once.
    ///
    /// # Errors
    /// `Io`, if the folders themselves cannot be read.
    pub fn know_all(&self) -> Result<(), RepositoryError> {
        if self.registry.read().complete {
            return Ok(());
        }
        let _filling = self.filling.lock();
        if self.registry.read().complete {
            return Ok(());
        }
        let began = Instant::now();
        // Nobody who makes or deletes a branch waits for this.
        for name in branch_names(&self.dir)? {
            // What is damaged or being changed is looked at below.
            let _ = self.find(&name);
        }
        {
            let changing = self.changing.lock();
            self.look(&changing)?;
            self.remove_unneeded(&changing);
            self.remove_leftovers(&changing)?;
        }
        let registry = self.registry.read();
        for damaged in registry.unreadable() {
            slog::error!(self.log, "{} cannot be used: {}", damaged.label(), damaged.cause);
        }
        slog::info!(self.log, "all branches are known"; "branches" => registry.len(),
            "milliseconds" => began.elapsed().as_millis() as u64);
        Ok(())
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
        if let Some(changing) = self.changing.try_lock() {
            self.look_now(&changing);
        }
        let failed: Vec<TimelineId> = self.failures.lock().keys().copied().collect();
        for id in failed {
            // What is wrong now is remembered.
            let _ = self.timeline(id);
        }
    }

    /// Takes in what has been mended of what was found to be damaged.
    pub(super) fn look_now(&self, changing: &Changing<'_>) {
        if self.registry.read().unreadable().is_empty() {
            return;
        }
        if let Err(error) = self.look(changing) {
            slog::warn!(self.log, "branches cannot be looked at: {}", with_causes(&error));
        }
    }

    /// Reads whatever is not known to be whole.
    fn look(&self, _changing: &Changing<'_>) -> Result<(), RepositoryError> {
        let found = scan(
            &self.dir,
            |name| self.registry.read().get(name).is_some(),
            |timeline| self.registry.read().of_timeline(timeline).is_some(),
        )?;
        let mut registry = self.registry.write();
        for branch in &found.branches {
            self.take(&mut registry, branch);
        }
        for kept in found.kept {
            registry.insert_kept(kept);
        }
        registry.set_unreadable(found.unreadable);
        registry.complete = true;
        Ok(())
    }

    /// All branches, by name.
    ///
    /// # Errors
    /// `Io`, if the folders themselves cannot be read.
    pub fn branches(&self) -> Result<Vec<Branch>, RepositoryError> {
        self.know_all()?;
        Ok(self.registry.read().branches().cloned().collect())
    }

    /// The branches that expire some time, in no order.
    ///
    /// # Errors
    /// `Io`, if the folders themselves cannot be read.
    pub fn expiring(&self) -> Result<Vec<Branch>, RepositoryError> {
        self.know_all()?;
        let registry = self.registry.read();
        Ok(registry.branches().filter(|branch| branch.expires.is_some()).cloned().collect())
    }

    /// How many branches there are.
    ///
    /// # Errors
    /// `Io`, if the folders themselves cannot be read.
    pub fn branch_count(&self) -> Result<usize, RepositoryError> {
        self.know_all()?;
        Ok(self.registry.read().len())
    }

    /// What cannot be used because files of it are damaged, as far as all branches are known.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.registry.read().unreadable().to_vec()
    }

    /// The branch that names this timeline; reads all of them if it must.
    pub fn named(&self, timeline: TimelineId) -> Option<Branch> {
        self.branch_of(timeline).or_else(|| {
            // What cannot be read names nothing.
            let _ = self.know_all();
            self.branch_of(timeline)
        })
    }

    /// The branch that names this timeline, if it has been read.
    pub fn branch_of(&self, timeline: TimelineId) -> Option<Branch> {
        self.registry.read().of_timeline(timeline).cloned()
    }
}

fn settled(entry: Entry) -> Option<Result<Option<Branch>, RepositoryError>> {
    match entry {
        Entry::Branch(branch) => Some(Ok(Some(branch))),
        Entry::Absent => Some(Ok(None)),
        Entry::Unreadable(damaged) => damaged.error().map(Err),
        Entry::HalfDone => None,
    }
}
