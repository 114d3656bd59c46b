//! Which branches there are, and which are damaged.

use std::time::{Duration, Instant};

use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::scan::{Unreadable, scan};
use super::{Branch, Repository, RepositoryError};
use crate::error_text::with_causes;

/// Damaged files are looked at again at most this often, unless something is decided by them.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Repository {
    /// All branches, by name.
    pub fn branches(&self) -> Vec<Branch> {
        self.branches.read().values().cloned().collect()
    }

    /// What cannot be used because files of it are damaged.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.unreadable.read().clone()
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
    pub(super) fn look_now(&self) {
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
    pub(super) fn check_free(&self, name: &BranchName) -> Result<(), RepositoryError> {
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

    /// Names of the branches whose timelines were forked from this one.
    pub fn children(&self, id: TimelineId) -> Vec<BranchName> {
        let child = |branch: &&Branch| branch.ancestor.is_some_and(|a| a.timeline == id);
        self.branches.read().values().filter(child).map(|branch| branch.name.clone()).collect()
    }
}
