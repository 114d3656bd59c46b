//! Deleting a branch and its timeline.

use std::path::Path;

use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::scan::{branches_dir, timeline_dir, unnamed_dir};
use super::{Branch, Repository, RepositoryError, Unreadable, kept};

/// What is to be done with branches that stand on one that is deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Children {
    Refuse,
    Keep,
}

impl Repository {
    /// Deletes a branch and its timeline. Nobody may be writing to it.
    ///
    /// # Errors
    /// `HasChildren` if other branches stand on it, `HasTags` if tags do, `MayBeNeeded` if one may that
    /// cannot be read; see `RepositoryError`.
    pub fn delete_branch(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        self.delete(name, Children::Refuse)
    }

    /// The same; but if other branches stand on it, its timeline stays for as long as they do.
    ///
    /// # Errors
    /// As above, but for `HasChildren`.
    pub fn delete_branch_reparenting(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        self.delete(name, Children::Keep)
    }

    fn delete(&self, name: &BranchName, children: Children) -> Result<Branch, RepositoryError> {
        self.branch(name)?;
        // What stands on it can be told only then.
        self.know_all()?;
        let changing = self.changing.lock();
        self.look_now(&changing);
        let branch = self.branch_now(name, &changing)?;
        if children == Children::Keep && !self.standing_on(branch.timeline).is_empty() {
            self.refuse_if_wanted(&branch)?;
            self.keep_nameless(&branch, &changing)?;
            return Ok(branch);
        }
        self.refuse_if_needed(&branch)?;
        // It would outlive the timeline.
        kept::forget(&self.dir, branch.timeline)?;
        let io = |path: &Path, source| RepositoryError::Io { path: path.to_owned(), source };
        // Without its name first, so that a folder of that name that nobody names is a loss.
        let dir = timeline_dir(&self.dir, branch.timeline);
        let unnamed = unnamed_dir(&self.dir, branch.timeline);
        let path = branches_dir(&self.dir).join(name.as_str());
        let nameless = match dir.exists() {
            true => durable_files::rename(&dir, &unnamed).map_err(|source| io(&dir, source)),
            // An earlier try was broken off, and could not be undone; perhaps it is not durable.
            false => {
                let timelines = self.dir.join("timelines");
                durable_files::sync_dir(&timelines).map_err(|source| io(&timelines, source))
            }
        };
        let removed = nameless
            .and_then(|()| durable_files::remove_file(&path).map_err(|source| io(&path, source)));
        if let Err(error) = removed {
            // The branch is still there, if only after a crash, and has to be whole.
            if !path.exists() {
                branch.to_ref().write(&self.dir, name)?;
            }
            if unnamed.exists() {
                durable_files::rename(&unnamed, &dir).map_err(|source| io(&unnamed, source))?;
            }
            return Err(error);
        }
        self.registry.write().remove(name);
        self.let_go(branch.timeline);
        self.remove_folder(branch.timeline);
        slog::info!(self.log, "branch deleted"; "branch" => %name, "timeline" => %branch.timeline);
        self.remove_unneeded(&changing);
        Ok(branch)
    }

    /// Removes the folder of a timeline that is gone. What cannot be removed is only in the way, and is tried
    /// again with the next deletion and at the next start.
    pub(super) fn remove_folder(&self, id: TimelineId) {
        let unnamed = unnamed_dir(&self.dir, id);
        if let Err(error) = durable_files::remove_dir_all(&unnamed)
            && unnamed.exists()
        {
            slog::warn!(self.log, "what was deleted is still on disk";
                "path" => %unnamed.display(), "error" => %error);
            self.registry.write().leave(id);
        }
    }

    /// Takes a timeline that is gone out of memory.
    pub(super) fn let_go(&self, id: TimelineId) {
        self.failures.lock().remove(&id);
        self.without_wal.forget(id);
        if let Some((_, slot)) = self.timelines.remove(&id)
            && let Some(timeline) = slot.timeline.lock().take()
        {
            self.note_unload();
            timeline.shut_down();
            timeline.wait_for_layers();
        }
    }

    /// Whether a branch could be deleted now.
    ///
    /// # Errors
    /// As those of `delete_branch`.
    pub fn check_deletable(&self, name: &BranchName) -> Result<(), RepositoryError> {
        let branch = self.branch(name)?;
        self.know_all()?;
        self.refuse_if_needed(&branch)
    }

    /// Whoever wants the branch itself keeps it.
    fn refuse_if_wanted(&self, branch: &Branch) -> Result<(), RepositoryError> {
        let name = &branch.name;
        if name.as_str() == self.default_branch {
            return Err(RepositoryError::IsDefault(name.clone()));
        }
        if branch.protected {
            return Err(RepositoryError::Protected(name.clone()));
        }
        self.check_no_tags_on(branch)
    }

    /// So do those who stand on its timeline, or may.
    fn refuse_if_needed(&self, branch: &Branch) -> Result<(), RepositoryError> {
        self.refuse_if_wanted(branch)?;
        let name = &branch.name;
        let children = self.standing_on(branch.timeline);
        if !children.is_empty() {
            return Err(RepositoryError::HasChildren { name: name.clone(), children });
        }
        let needed = |damaged: &&Unreadable| damaged.may_stand_on(branch.timeline);
        if let Some(damaged) = self.registry.read().unreadable().iter().find(needed) {
            return Err(RepositoryError::MayBeNeeded {
                name: name.clone(),
                by: damaged.label(),
                cause: damaged.cause.clone(),
            });
        }
        Ok(())
    }
}
