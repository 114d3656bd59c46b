//! Files that survive a power loss whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{IoContext, Result};

/// Puts `bytes` into `path`: written beside, synced, renamed, and the folder synced.
///
/// Runs under the file identity of the calling thread.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let mut file = File::create(beside).io("create", beside)?;
    file.write_all(bytes).io("write", beside)?;
    file.sync_all().io("sync", beside)?;
    rename(beside, path)
}

/// Renames and syncs the folder of `to`.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).io("rename", from)?;
    match to.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Makes renames, creations and removals in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).io("sync", folder)
}
