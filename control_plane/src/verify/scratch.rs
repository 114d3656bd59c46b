//! The folder in which a verification works, removed whatever happens.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};
use crate::repository::Repository;

/// Folder of all of them within a repository.
const VERIFY_DIR: &str = "verify";

/// A folder of this process's own. Its name begins with the number of the process, so that what was
/// left by one that was killed is found.
pub(super) struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    pub fn make(repository: &Repository) -> Result<Scratch> {
        let parent = repository.dir().join(VERIFY_DIR);
        remove_leftovers(&parent);
        let name = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
        let _identity = repository.account().enter();
        let dir = parent.join(name);
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir).io("create", &dir)?;
        Ok(Scratch { dir })
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new folder in it.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::DirBuilder::new().mode(0o700).create(&path).io("create", &path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        if let Some(parent) = self.dir.parent() {
            // Only when nobody else verifies.
            let _ = fs::remove_dir(parent);
        }
    }
}

fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
