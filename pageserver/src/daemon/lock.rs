//! One page server per repository: an advisory lock on a file that is never removed.
//!
//! The operating system releases the lock with the process, so that unlike a pidfile it cannot be
//! stale, and redo processes do not inherit it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::pidfile::PidFile;

/// Name of the file within the repository.
pub const LOCK_FILE_NAME: &str = "pageserver.lock";

/// The right to write to a repository, until dropped.
#[derive(Debug)]
pub struct RepositoryLock {
    _file: Flock<File>,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another page server{} works on {}", pid_text(.pid), .repo.display())]
    Held {
        /// The repository.
        repo: PathBuf,
        /// Who has it, if the pidfile tells.
        pid: Option<u32>,
    },
    /// The lock file cannot be opened or locked.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

fn pid_text(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl RepositoryLock {
    /// Takes the lock of the repository at `repo` or says at once who has it.
    pub fn acquire(repo: &Path) -> Result<RepositoryLock, LockError> {
        let path = repo.join(LOCK_FILE_NAME);
        let io = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(RepositoryLock { _file: file }),
            Err((_, Errno::EWOULDBLOCK)) => {
                Err(LockError::Held { repo: repo.to_owned(), pid: PidFile::read(repo) })
            }
            Err((_, errno)) => Err(io(errno.into())),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RepositoryLock::acquire(dir.path()).unwrap();
        std::fs::write(dir.path().join(super::super::PID_FILE_NAME), "4711\n").unwrap();
        let error = RepositoryLock::acquire(dir.path()).unwrap_err();
        assert!(error.to_string().contains("(process 4711)"), "{error}");
        drop(lock);
        RepositoryLock::acquire(dir.path()).unwrap();
    }
}
