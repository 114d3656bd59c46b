//! `pageserver.pid`: the process id of the daemon, there only while it serves.
//!
//! It says whom to signal. That a daemon runs at all is said by the lock (`lock.rs`): whoever holds
//! the lock owns the pidfile too, so that one left behind by a crash is simply replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file within the repository.
pub const PID_FILE_NAME: &str = "pageserver.pid";

/// The pidfile of this process, removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes this process's id into the repository at `repo`. The caller holds the lock.
    pub fn create(repo: &Path) -> io::Result<PidFile> {
        let path = repo.join(PID_FILE_NAME);
        durable_files::write_file(&path, format!("{}\n", std::process::id()).as_bytes())?;
        Ok(PidFile { path })
    }

    /// The process id that the repository's pidfile states, if it states one. That the process
    /// lives, and is a page server, is for the caller to find out.
    pub fn read(repo: &Path) -> Option<u32> {
        let text = fs::read_to_string(repo.join(PID_FILE_NAME)).ok()?;
        text.trim_end().parse().ok().filter(|pid| *pid >= 1)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the next start replaces the file anyway.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn exists_as_long_as_the_guard() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PID_FILE_NAME), "1234567").unwrap();
        let pidfile = PidFile::create(dir.path()).unwrap();
        assert_eq!(PidFile::read(dir.path()), Some(std::process::id()));
        drop(pidfile);
        assert!(!dir.path().join(PID_FILE_NAME).exists());
    }

    #[test]
    fn only_a_positive_integer_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "0", "-1", "+1x", "12 34", "x", "99999999999999"] {
            fs::write(dir.path().join(PID_FILE_NAME), text).unwrap();
            assert_eq!(PidFile::read(dir.path()), None, "{text:?}");
        }
        fs::write(dir.path().join(PID_FILE_NAME), "17\n").unwrap();
        assert_eq!(PidFile::read(dir.path()), Some(17));
    }
}
