//! Whole files and names, changed so that a crash at any point leaves the old or the new.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::seam::Seam;
use crate::{File, rename_only, unlink};

/// Makes the names in `dir` durable.
///
/// # Errors
/// Whatever opening or syncing the folder gives.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    Seam::at(dir).sync_dir(dir, || fs::File::open(dir)?.sync_all())
}

/// Where a file is while it is written that will be at `path`.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.to_owned().into_os_string();
    beside.push(".new");
    PathBuf::from(beside)
}

/// Removes what `write_file` had begun to write to `path` when a process ended. Nobody may be writing
/// there now.
///
/// # Errors
/// Whatever the file system gives, other than "not found".
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    let beside = beside(path);
    // Asked first: mostly there is none.
    if beside.try_exists()? { unlink(&beside) } else { Ok(()) }
}

/// Puts `bytes` at `path`, replacing what was there: written beside, synced, renamed, and the
/// folder synced, so that a crash at any point leaves the old file or the new one.
///
/// # Errors
/// Whatever the file system gives; the old file is then still in place, unless only the last
/// step, syncing the folder, failed.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "path has no folder");
    let dir = path.parent().ok_or_else(invalid)?;
    let beside = beside(path);
    let written = write_new_file(&beside, bytes).and_then(|()| rename_only(&beside, path));
    if let Err(error) = written {
        // The first error is the one to report; what is left beside is overwritten next time.
        let _ = unlink(&beside);
        return Err(error);
    }
    sync_dir(dir)
}

/// Puts `bytes` into a file at `path` that nobody looks at yet. They are durable then; the name is not
/// before its folder has been synced.
///
/// # Errors
/// Whatever the file system gives; there may be a part of the file then.
pub fn write_new_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = File::create(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

/// Renames a file or a folder, durably, replacing a file that has the name. What is in it must
/// have been synced before. Both names are in the same folder, or a crash may leave neither.
///
/// # Errors
/// Whatever the file system gives; nothing has changed then, unless only the last step, syncing
/// the folder, failed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rename_only(from, to)?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Removes `path` durably. A file that is not there is no error; that it is not there is made durable.
///
/// # Errors
/// Whatever the file system gives, other than "not found".
pub fn remove_file(path: &Path) -> io::Result<()> {
    let is_none = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match unlink(path) {
        Err(error) if !is_none(&error) => Err(error),
        // Also where an earlier call has removed it and could not sync the folder.
        _ => match path.parent().map_or(Ok(()), sync_dir) {
            Err(error) if !is_none(&error) => Err(error),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
    }

    #[test]
    fn renames_files_over_files_and_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write_file(&path("a"), b"a").unwrap();
        write_file(&path("b"), b"b").unwrap();
        rename(&path("a"), &path("b")).unwrap();
        assert_eq!(fs::read(path("b")).unwrap(), b"a");
        fs::create_dir(path("c")).unwrap();
        rename(&path("c"), &path("d")).unwrap();
        assert!(rename(&path("c"), &path("e")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest");
        write_file(&path, b"one").unwrap();
        // A folder where the new file would be written makes the write fail.
        fs::create_dir(dir.path().join("manifest.new")).unwrap();
        assert!(write_file(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }
}
