//! The least that `postgres --single` wants to find in its data directory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Account;

/// Content of `PG_VERSION`. The module is written for this version, see `module/pg_compat.h`.
const POSTGRES_MAJOR_VERSION: &str = "15\n";

/// Folders that PostgreSQL scans at start-up. Nothing is ever put into them but into `global`.
const FOLDERS: [&str; 3] = ["global", "pg_dynshmem", "pg_notify"];

/// How the names of data directories begin.
const PREFIX: &str = "data-";

/// A file or folder could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {path}: {source}")]
pub struct DataDirError {
    path: PathBuf,
    source: io::Error,
}

/// The data directories of `count` processes. No two pools ever give them the same names: a process that is
/// only just starting when its owner is killed may live on for a moment, and lock and fill its own.
pub fn data_dirs(work_dir: &Path, count: usize) -> Vec<PathBuf> {
    // An earlier owner may have had our process id, though hardly at this moment.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let owner = format!("{PREFIX}{}-{}", std::process::id(), now.as_nanos());
    (0..count).map(|n| work_dir.join(format!("{owner}-{n}"))).collect()
}

/// Removes the data directories of earlier pools. One whose process is still ending may resist; the next
/// pool removes it.
pub fn remove_left_over(work_dir: &Path) {
    let Ok(entries) = fs::read_dir(work_dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes the folder `dir` anew, removing what was there.
pub fn make_data_dir(
    dir: &Path,
    control_file: &[u8],
    account: Option<Account>,
) -> Result<(), DataDirError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DataDirError { path: dir.to_owned(), source: error });
        }
        _ => {}
    }
    make_folder(dir, account)?;
    for folder in FOLDERS {
        make_folder(&dir.join(folder), account)?;
    }
    make_file(&dir.join("PG_VERSION"), POSTGRES_MAJOR_VERSION.as_bytes(), account)?;
    // All settings are given on the command line.
    make_file(&dir.join("postgresql.conf"), b"", account)?;
    make_file(&dir.join("postgresql.auto.conf"), b"", account)?;
    make_file(&dir.join("global/pg_control"), control_file, account)
}

/// Makes a folder that only its owner, the account, can enter.
pub fn make_folder(path: &Path, account: Option<Account>) -> Result<(), DataDirError> {
    let make = || {
        fs::DirBuilder::new().mode(0o700).create(path)?;
        give(path, account)
    };
    make().map_err(|source| DataDirError { path: path.to_owned(), source })
}

fn make_file(path: &Path, content: &[u8], account: Option<Account>) -> Result<(), DataDirError> {
    let make = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        io::Write::write_all(&mut file, content)?;
        give(path, account)
    };
    make().map_err(|source| DataDirError { path: path.to_owned(), source })
}

fn give(path: &Path, account: Option<Account>) -> io::Result<()> {
    match account {
        Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
