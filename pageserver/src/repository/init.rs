//! The first timeline of a repository, made from a data directory.

use std::path::Path;

use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::ref_file::BranchRef;
use super::scan::{branches_dir, timeline_dir, unnamed_dir};
use super::{Repository, RepositoryError, now};
use crate::layer::import::DataDirectory;
use crate::leases::write_all_known;
use crate::timeline::image_name;
use crate::timeline::manifest::{Layered, Manifest, Origin};

impl Repository {
    /// Makes the first timeline of the repository in `dir` from a cleanly stopped data directory,
    /// under the name `branch`.
    ///
    /// # Errors
    /// See `RepositoryError`; `AlreadyExists` if there is such a branch. Nothing is left then of what was begun,
    /// if it can be removed.
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
        durable_files::create_dir_all(&refs).map_err(io(&refs))?;
        let ref_path = refs.join(branch.as_str());
        if ref_path.exists() {
            return Err(RepositoryError::AlreadyExists(branch.clone()));
        }
        let data = DataDirectory::open(pgdata)?;
        let id = TimelineId::generate();
        if let Err(error) = Repository::make_first(dir, &data, id, branch) {
            let (named, unnamed) = (timeline_dir(dir, id), unnamed_dir(dir, id));
            // The error that matters is the first. As when a branch is made: a folder without the suffix
            // must not stay without its name.
            let _ = durable_files::rename(&named, &unnamed);
            if durable_files::remove_file(&ref_path).is_ok() {
                let _ = durable_files::remove_dir_all(&unnamed);
            }
            return Err(error);
        }
        Ok(id)
    }

    fn make_first(
        dir: &Path,
        data: &DataDirectory,
        id: TimelineId,
        branch: &BranchName,
    ) -> Result<(), RepositoryError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RepositoryError::Io { path, source }
        };
        let path = unnamed_dir(dir, id);
        let (wal, layers) = (path.join("wal"), path.join("layers"));
        for folder in [&wal, &layers] {
            durable_files::create_dir_all(folder).map_err(io(folder))?;
        }
        let layer = image_name(data.end);
        data.load(id, &layers.join(&layer))?;
        let size = data.cluster.segment_size;
        let (segment_start, bytes) = data.last_segment()?;
        let segment = wal.join(segment_start.segment(size).file_name(data.cluster.tli, size));
        durable_files::write_file(&segment, &bytes).map_err(io(&segment))?;
        let control = path.join("pg_control");
        durable_files::write_file(&control, &data.control_file).map_err(io(&control))?;
        let manifest = Manifest {
            id,
            origin: Origin::OwnImage,
            start: data.end,
            state: data.state,
            state_is_complete: true,
            created: now(),
            detaching: false,
            layered: Layered { images: vec![layer], ..Layered::nothing(data.end, data.state) },
        };
        manifest.write(&path)?;
        for folder in [path.as_path(), &dir.join("timelines"), &dir.join("refs"), dir] {
            durable_files::sync_dir(folder).map_err(io(folder))?;
        }
        write_all_known(dir)?;
        // The name comes last: only now does the timeline exist for anybody.
        BranchRef::of(id).write(dir, branch)?;
        durable_files::rename(&path, &timeline_dir(dir, id)).map_err(io(&path))
    }
}
