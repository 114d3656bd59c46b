//! The least that `postgres --single` wants to find in its data directory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use crate::config::Account;

/// Content of `PG_VERSION`. The module is written for this version, see `module/pg_compat.h`.
const POSTGRES_MAJOR_VERSION: &str = "15\n";

/// Folders that PostgreSQL scans at start-up. Nothing is ever put into them but into `global`.
const FOLDERS: [&str; 3] = ["global", "pg_dynshmem", "pg_notify"];

/// A file or folder could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {path}: {source}")]
pub struct DataDirError {
    path: PathBuf,
    source: io::Error,
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
