//! Making a branch.

use std::path::Path;
use std::time::Duration;

use pageserver_client::{BranchName, Point};
use postgres_formats::TimelineId;

use super::point::Place;
use super::scan::{branches_dir, timeline_dir, unnamed_dir};
use super::{Branch, Repository, RepositoryError, now};
use crate::timeline::manifest::{Ancestor, Layered, Manifest, Origin};

/// The file that will name a branch, in the folder of its timeline.
pub(crate) const NAME_IN_THE_MAKING: &str = "name.new";

impl Repository {
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
        self.create_branch_until(name, point, None, timeout)
    }

    /// The same; it may go by itself at a time in seconds since 1970.
    ///
    /// # Errors
    /// As above.
    pub fn create_branch_until(
        &self,
        name: &BranchName,
        point: &Point,
        expires: Option<u64>,
        timeout: Duration,
    ) -> Result<Branch, RepositoryError> {
        self.check_free_early(name)?;
        let Place { owner: parent, at, .. } = self.place(point, timeout)?;
        let changing = self.changing.lock();
        // A file that was put back must not be overwritten.
        self.check_free(name, &changing)?;
        // The parent may have been deleted meanwhile.
        if !timeline_dir(&self.dir, parent.id()).exists() {
            return Err(RepositoryError::NoSuchTimeline(parent.id()));
        }
        // And what the branch is to stand on may have been removed.
        parent.check_lsn(at.base)?;
        let ancestor = Ancestor { timeline: parent.id(), lsn: at.base };
        let manifest = Manifest {
            id: TimelineId::generate(),
            origin: Origin::Ancestor(ancestor),
            start: at.base,
            state: at.state,
            state_is_complete: true,
            created: now(),
            detaching: false,
            layered: Layered::nothing(at.base, at.state),
        };
        let branch = Branch {
            name: name.clone(),
            timeline: manifest.id,
            ancestor: Some(ancestor),
            start: manifest.start,
            created: manifest.created,
            protected: false,
            expires,
            detaching: false,
            retention: None,
        };
        if let Err(error) = self.write_branch(&branch, &manifest) {
            // Somebody may have seen its files for a moment.
            self.registry.write().remove(name);
            return Err(error);
        }
        self.registry.write().insert(branch.clone());
        slog::info!(self.log, "branch created"; "branch" => %name,
            "timeline" => %branch.timeline, "ancestor" => %parent.id(), "lsn" => %at.base);
        Ok(branch)
    }

    /// Five syncs, whatever else there is: two files, and three folders that have new names. On a file
    /// system with a journal those right after one another cost little more than the first of them.
    fn write_branch(&self, branch: &Branch, manifest: &Manifest) -> Result<(), RepositoryError> {
        let unnamed = unnamed_dir(&self.dir, branch.timeline);
        let dir = timeline_dir(&self.dir, branch.timeline);
        let refs = branches_dir(&self.dir);
        let name = refs.join(branch.name.as_str());
        let io = |path: &Path, source| RepositoryError::Io { path: path.to_owned(), source };
        let written = (|| {
            for folder in [unnamed.join("wal"), unnamed.join("layers")] {
                durable_files::create_dir_all(&folder).map_err(|source| io(&folder, source))?;
            }
            manifest.write_new(&unnamed)?;
            // In there, so that a crash leaves nothing among the names.
            let new = unnamed.join(NAME_IN_THE_MAKING);
            branch.to_ref().write_new(&new)?;
            for folder in [&unnamed, &self.dir.join("timelines")] {
                durable_files::sync_dir(folder).map_err(|source| io(folder, source))?;
            }
            // All of it is durable; now the name.
            durable_files::rename_only(&new, &name).map_err(|source| io(&name, source))?;
            durable_files::sync_dir(&refs).map_err(|source| io(&refs, source))?;
            // Not synced: if a crash undoes it, it is done when the branch is read (`HalfDone`).
            durable_files::rename_only(&unnamed, &dir).map_err(|source| io(&unnamed, source))
        })();
        if written.is_err() {
            // The error that matters is the first. A folder without this suffix must not stay without
            // its name; with the suffix it is removed later, if it cannot be now.
            let _ = durable_files::rename(&dir, &unnamed);
            if durable_files::remove_file(&name).is_ok() {
                self.remove_folder(branch.timeline);
            }
        }
        written
    }
}
