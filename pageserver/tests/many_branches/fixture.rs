//! A repository, and branches put into it as files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pageserver::layer::freezer::LayerOptions;
use pageserver::page_maker::PageMaker;
use pageserver::repository::{Branch, Repository, RepositoryError};
use pageserver_client::{At, BranchName, Point};
use postgres_formats::TimelineId;
use postgres_testing::{Cluster, bin_dir, scratch_dir};
use walredo_pool::WalRedoConfig;

/// A folder with a repository whose default branch is `main`.
pub struct Folder(pub tempfile::TempDir);

pub fn name(text: &str) -> BranchName {
    text.parse().unwrap()
}

impl Folder {
    pub fn new() -> Folder {
        let cluster = Cluster::init("");
        Folder::at(scratch_dir("zenith-branches-"), &cluster)
    }

    /// In memory, where that can be had: what a disk does to thousands of small files is not the matter.
    pub fn new_in_memory() -> Folder {
        let cluster = Cluster::init("");
        let dir = tempfile::Builder::new().prefix("zenith-branches-").tempdir_in("/dev/shm");
        Folder::at(dir.unwrap_or_else(|_| scratch_dir("zenith-branches-")), &cluster)
    }

    fn at(dir: tempfile::TempDir, cluster: &Cluster) -> Folder {
        Repository::init_from_pgdata(dir.path(), &cluster.data_dir(), &name("main")).unwrap();
        Folder(dir)
    }

    pub fn open(&self) -> Arc<Repository> {
        let log = slog::Logger::root(slog::Discard, slog::o!());
        // Nothing needs redo here.
        let redo = WalRedoConfig {
            postgres_bin_dir: bin_dir(),
            module_path: "/none".into(),
            libraries: Vec::new(),
            work_dir: self.0.path().join("walredo"),
            control_file: Vec::new(),
            processes: 1,
            processes_min: 1,
            idle_after: Duration::MAX,
            account: None,
            request_timeout: Duration::from_secs(1),
        };
        let maker = PageMaker::new(1 << 20, redo, log.clone());
        Repository::open(self.0.path(), "main", maker, LayerOptions::default(), &log).unwrap()
    }

    pub fn reference(&self, name: &BranchName) -> PathBuf {
        self.0.path().join("refs/branches").join(name.as_str())
    }

    pub fn timeline(&self, id: TimelineId) -> PathBuf {
        self.0.path().join("timelines").join(id.to_string())
    }

    /// Puts so many branches like `like` beside it, as files, which is quicker than making them.
    pub fn multiply(&self, like: &Branch, count: usize) -> Vec<BranchName> {
        let manifest = fs::read_to_string(self.timeline(like.timeline).join("manifest")).unwrap();
        let copy = |n| {
            let id = TimelineId::generate();
            let dir = self.timeline(id);
            fs::create_dir_all(dir.join("wal")).unwrap();
            fs::create_dir(dir.join("layers")).unwrap();
            fs::write(dir.join("manifest"), with_id(&manifest, like.timeline, id)).unwrap();
            let name = name(&format!("b{n:06}"));
            fs::write(self.reference(&name), id.to_string()).unwrap();
            name
        };
        (0..count).map(copy).collect()
    }
}

/// The manifest as that of another timeline.
fn with_id(manifest: &str, from: TimelineId, to: TimelineId) -> String {
    let (version, rest) = manifest.split_once('\n').unwrap();
    let (_, body) = rest.split_once('\n').unwrap();
    let body = body.replace(&from.to_string(), &to.to_string());
    let version = format!("{version}\n");
    let crc = crc32c::crc32c_append(crc32c::crc32c(version.as_bytes()), body.as_bytes());
    format!("{version}crc32c = {crc}\n{body}")
}

/// Makes a branch at the end of another.
pub fn create(
    repository: &Repository,
    branch: &BranchName,
    from: &BranchName,
) -> Result<Branch, RepositoryError> {
    let point = Point { branch: from.clone(), at: At::End };
    repository.create_branch(branch, &point, Duration::from_secs(10))
}

/// Writes something else into a file, and gives what was in it.
pub fn damage(path: &Path) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    fs::write(path, "?").unwrap();
    whole
}
