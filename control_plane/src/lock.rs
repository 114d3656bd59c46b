//! Locks between processes that change the same thing of a repository.

use std::fs::File;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, IoContext, Result};
use crate::repository::Repository;

/// An exclusive lock on a file of the repository, held until dropped or until the process ends.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for the lock `name`; its holders hold it for the length of one operation.
    pub(crate) fn acquire(repository: &Repository, name: &str) -> Result<Lock> {
        let path = repository.dir().join("run").join(name);
        let _identity = repository.account().enter();
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .io("open", &path)?;
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Io {
            action: "lock",
            path,
            source: errno.into(),
        })?;
        Ok(Lock { _file: file })
    }
}
