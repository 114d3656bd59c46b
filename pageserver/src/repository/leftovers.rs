//! What the making or deleting of branches has left behind that a crash broke off.

use std::io;

use postgres_formats::TimelineId;

use super::kept::kept_dir;
use super::lookup::Changing;
use super::scan::{branches_dir, names_in};
use super::tag::tags_dir;
use super::{Repository, RepositoryError};

const UNFINISHED: &str = ".new";
const UNNAMED: &str = ".unnamed";

impl Repository {
    /// Removes folders of timelines that have no name, and files of names that were being written. Only
    /// when all branches are known, and by the one who changes branches: so nobody is making any of
    /// these.
    pub(super) fn remove_leftovers(&self, _changing: &Changing<'_>) -> Result<(), RepositoryError> {
        let all = [branches_dir(&self.dir), tags_dir(&self.dir), kept_dir(&self.dir)];
        for refs in all.iter().filter(|dir| dir.exists()) {
            for file in names_in(refs)? {
                // No branch, tag or timeline can be called so.
                if file.to_str().is_some_and(|name| name.ends_with(UNFINISHED)) {
                    self.removed(&refs.join(&file), durable_files::unlink(&refs.join(&file)));
                }
            }
        }
        let timelines = self.dir.join("timelines");
        for folder in names_in(&timelines)? {
            let id = folder.to_str().and_then(|name| name.strip_suffix(UNNAMED)?.parse().ok());
            if id.is_some_and(|id| self.is_surely_nameless(id)) {
                let path = timelines.join(&folder);
                self.removed(&path, durable_files::remove_dir_all(&path));
            }
        }
        Ok(())
    }

    fn is_surely_nameless(&self, id: TimelineId) -> bool {
        let registry = self.registry.read();
        // A name that cannot be read may be that of any.
        let may_be = |name_of: Option<TimelineId>| name_of.is_none_or(|named| named == id);
        registry.of_timeline(id).is_none()
            && !registry.unreadable().iter().any(|damaged| may_be(damaged.timeline))
    }

    fn removed(&self, path: &std::path::Path, result: io::Result<()>) {
        match result {
            Ok(()) => {
                slog::info!(self.log, "removed what a crash had left"; "path" => %path.display())
            }
            // It is tried again after the next start.
            Err(error) => slog::warn!(self.log, "cannot remove what a crash had left";
                "path" => %path.display(), "error" => %error),
        }
    }
}
