//! Changes of names. None of these is durable before its folder has been synced.

use std::fs;
use std::io;
use std::path::Path;

use crate::seam::Seam;

/// Makes a folder.
///
/// # Errors
/// Whatever the file system gives.
pub fn create_dir(path: &Path) -> io::Result<()> {
    Seam::at(path).create_dir(path, || fs::create_dir(path))
}

/// Makes a folder and those above it that are not there.
///
/// # Errors
/// Whatever the file system gives; some of them may then have been made.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        create_dir_all(above)?;
    }
    match create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Renames a file or a folder, replacing a file that has the name.
///
/// # Errors
/// Whatever the file system gives; nothing has changed then.
pub fn rename_only(from: &Path, to: &Path) -> io::Result<()> {
    Seam::at(from).rename(from, to, || fs::rename(from, to))
}

/// Gives a file a second name.
///
/// # Errors
/// Whatever the file system gives.
pub fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    Seam::at(from).link(from, to, || fs::hard_link(from, to))
}

/// Removes a file's name.
///
/// # Errors
/// Whatever the file system gives.
pub fn unlink(path: &Path) -> io::Result<()> {
    Seam::at(path).remove(path, || fs::remove_file(path))
}

/// Removes a folder and all that is in it. Links are removed, not followed.
///
/// # Errors
/// Whatever the file system gives; some of it may then be gone.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type()?.is_dir() {
            true => remove_dir_all(&entry.path())?,
            false => unlink(&entry.path())?,
        }
    }
    Seam::at(path).remove(path, || fs::remove_dir(path))
}
