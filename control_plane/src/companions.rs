//! The programs and libraries that Zenith needs beside its own executable.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, IoContext, Result};

/// Names the folder of the companions, over the folder of the running program.
pub const BIN_DIR_VARIABLE: &str = "ZENITH_BIN_DIR";

/// The page server.
pub const PAGESERVER: &str = "pageserver";
/// The library that computes preload.
pub const LAZYFILES: &str = "liblazyfiles.so";
/// The module that redo processes load.
pub const WALREDO: &str = "zenith_walredo.so";

/// Finds the companion `name`.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let named = std::env::var_os(BIN_DIR_VARIABLE).filter(|value| !value.is_empty());
    let dirs = match named {
        Some(dir) => vec![PathBuf::from(dir)],
        None => beside_ourselves(),
    };
    let found = dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    let path = found.ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Error::Environment(format!(
            "{name} is not in {}; build it with `make build`, or name its folder in \
             {BIN_DIR_VARIABLE}",
            dirs.join(" or ")
        ))
    })?;
    std::path::absolute(&path).io("find", &path)
}

/// The running program's folder, and its parent: cargo puts the programs of tests one deeper.
fn beside_ourselves() -> Vec<PathBuf> {
    let executable = std::env::current_exe().and_then(fs::canonicalize).ok();
    executable
        .iter()
        .flat_map(|path| path.ancestors().skip(1).take(2))
        .map(Path::to_owned)
        .collect()
}

/// Copies the libraries into `lib_dir`, where the account can read them wherever the companions
/// are, unless the same are there already.
///
/// A library in use is replaced by renaming, since writing into it would crash its users.
pub(crate) fn install_libraries(lib_dir: &Path, account: &Account) -> Result<()> {
    for name in [LAZYFILES, WALREDO] {
        let source = find(name)?;
        let target = lib_dir.join(name);
        if same_file(&source, &target).unwrap_or(false) {
            continue;
        }
        // Read under our own identity, written under the account's.
        let bytes = fs::read(&source).io("read", &source)?;
        let modified = fs::metadata(&source).and_then(|meta| meta.modified());
        let _identity = account.enter();
        fs::create_dir_all(lib_dir).io("create", lib_dir)?;
        let beside = lib_dir.join(format!(".{name}.{}", std::process::id()));
        fs::write(&beside, bytes).io("write", &beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755))
            .io("set the permissions of", &beside)?;
        if let Ok(modified) = modified {
            let file = fs::File::options().write(true).open(&beside).io("open", &beside)?;
            file.set_modified(modified).io("set the time of", &beside)?;
        }
        fs::rename(&beside, &target).io("rename", &beside)?;
    }
    Ok(())
}

fn same_file(source: &Path, target: &Path) -> io::Result<bool> {
    let (source, target) = (fs::metadata(source)?, fs::metadata(target)?);
    Ok(source.len() == target.len()
        && (source.mtime(), source.mtime_nsec()) == (target.mtime(), target.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_copy_with_the_same_size_and_time_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&source, "x").unwrap();
        assert!(same_file(&source, &target).is_err());
        fs::write(&target, "y").unwrap();
        let time = fs::metadata(&source).unwrap().modified().unwrap();
        fs::File::options().write(true).open(&target).unwrap().set_modified(time).unwrap();
        assert!(same_file(&source, &target).unwrap());
        fs::write(&target, "longer").unwrap();
        assert!(!same_file(&source, &target).unwrap());
    }
}
