//! Locks between processes that change the same thing of a repository.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::account::Account;
use crate::error::{Error, IoContext, Result};

/// An exclusive lock on a file of the repository, held until dropped or until the process ends.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for the lock on the file at `path`, which is made if it is not there; its folder must
    /// be. Whoever holds the lock may rename or remove the file or its folder.
    pub(crate) fn acquire(account: &Account, path: &Path) -> Result<Lock> {
        let _identity = account.enter();
        loop {
            let mut options = File::options();
            options.write(true).create(true).truncate(false);
            let file = options.open(path).io("open", path)?;
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| {
                Error::Io { action: "lock", path: path.to_owned(), source: errno.into() }
            })?;
            // While we waited the file may have gone; then what we hold protects nothing.
            let ours = file.metadata().io("look at", path)?;
            match fs::metadata(path) {
                Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Lock { _file: file });
                }
                _ => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn one_at_a_time_even_when_the_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let account = Account::for_new_repository().unwrap();
        account.own_tree(dir.path()).unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(&account, &path).unwrap();
        // Whichever of the two comes first, holders of the new file do not overlap.
        let held = AtomicBool::new(false);
        let hold = || {
            let _lock = Lock::acquire(&account, &path).unwrap();
            assert!(!held.swap(true, Ordering::SeqCst));
            std::thread::yield_now();
            held.store(false, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            let second = scope.spawn(hold);
            fs::remove_file(&path).unwrap();
            let third = scope.spawn(hold);
            drop(first);
            second.join().unwrap();
            third.join().unwrap();
        });
    }
}
