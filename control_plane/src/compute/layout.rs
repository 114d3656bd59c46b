//! Where the parts of a compute are on disk.

use std::path::{Path, PathBuf};

use crate::repository::Repository;

/// Folder of all computes within a repository.
pub(super) const COMPUTES_DIR: &str = "computes";
/// What marks a directory as a compute.
pub(super) const COMPUTE_FILE: &str = "zenith-compute.toml";

/// Begins the name of a compute's directory while it is made. Names with a leading dot are refused by
/// `check_name`, so that no listing shows them.
pub(super) const MAKING_PREFIX: &str = ".making-";
/// Begins the name of a compute's directory while it is removed.
pub(super) const DESTROYING_PREFIX: &str = ".destroying-";

/// The directory of a compute, finished or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(super) fn new(repository: &Repository, name: &str) -> Layout {
        Layout { dir: repository.dir().join(COMPUTES_DIR).join(name) }
    }

    /// The compute in `dir`, wherever that is.
    pub(super) fn at(dir: &Path) -> Layout {
        Layout { dir: dir.to_owned() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn compute_file(&self) -> PathBuf {
        self.dir.join(COMPUTE_FILE)
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        self.dir.join("pgdata")
    }

    /// The presence maps, under the same relative paths as the files in `pgdata`.
    pub(super) fn presence(&self) -> PathBuf {
        self.dir.join("presence")
    }

    /// The LSN at which the compute reads the pages it does not have (`lazyfiles::base`).
    pub(super) fn base(&self) -> PathBuf {
        self.dir.join("base_lsn")
    }

    /// Held while the compute is started, stopped or destroyed; goes with the directory.
    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    pub(super) fn postmaster_pid(&self) -> PathBuf {
        self.pgdata().join("postmaster.pid")
    }
}
