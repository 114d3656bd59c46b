//! What concerns all presence maps of a compute at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::data_directory::DataDirectory;
use crate::errno::Errno;
use crate::presence::{BootId, Map};
use crate::report;

/// The paths of all maps, relative to `presence`. What cannot be listed is left out.
pub(crate) fn relative_paths(presence: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![presence.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    found.extend(entry.path().strip_prefix(presence).map(Path::to_owned));
                }
                _ => {}
            }
        }
    }
    found
}

fn open(presence: &Path, relative: &Path, boot: BootId) -> Option<Map> {
    Map::open(&presence.join(relative), boot).unwrap_or_else(|error| {
        report::line(&report::chain(&error));
        None
    })
}

/// Does `sync`, which makes durable everything on the file system with the number `device`, and
/// then makes durable what the maps of the files there knew before it began.
pub fn sync(
    data: &DataDirectory,
    presence: &Path,
    boot: BootId,
    device: u64,
    sync: &mut dyn FnMut() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let is_there = |relative: &PathBuf| {
        // A file that is gone needs no map.
        let metadata = fs::metadata(data.folder().join(relative));
        metadata.is_ok_and(|metadata| metadata.dev() == device)
    };
    let known: Vec<_> = relative_paths(presence)
        .into_iter()
        .filter(is_there)
        .filter_map(|relative| {
            let map = open(presence, &relative, boot)?;
            let snapshot = map.undurable()?;
            Some((relative, snapshot))
        })
        .collect();
    sync()?;
    // Maps are opened again rather than kept: there may be more of them than a process may map.
    for (relative, snapshot) in known {
        if let Some(map) = open(presence, &relative, boot) {
            map.persist(&snapshot)?;
        }
    }
    Ok(())
}

/// See [`Map::equalize_without_sync`].
pub fn equalize_without_sync(presence: &Path, boot: BootId) {
    for relative in relative_paths(presence) {
        if let Some(map) = open(presence, &relative, boot) {
            map.equalize_without_sync();
        }
    }
}
