//! Files of a compute that a base backup does not have.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use postgres_formats::control_file::CONTROL_FILE_PATH;
use postgres_formats::relpath::{FilePathErrorKind, parse_relation_path};

use crate::error::{IoContext, Result};
use crate::verify::directory::TABLESPACES;
use crate::verify::report::{Difference, Permitted, Verification};

/// Compared elsewhere, or with the pages.
const COMPARED: [&str; 2] = ["PG_VERSION", CONTROL_FILE_PATH];
/// Folders that are compared elsewhere: `compute/wal.rs`, and what a base backup has of them.
const COMPARED_FOLDERS: [&str; 5] =
    ["pg_wal", "pg_xact", "pg_multixact", "pg_commit_ts", "pg_twophase"];
/// What may be on a compute only: a file, or a folder with all that is in it.
const PERMITTED: [(&str, Permitted); 12] = [
    ("postgresql.conf", Permitted::Settings),
    ("postgresql.auto.conf", Permitted::Settings),
    ("pg_hba.conf", Permitted::Settings),
    ("pg_ident.conf", Permitted::Settings),
    ("zenith.conf", Permitted::Settings),
    ("postmaster.opts", Permitted::ServersOwnFile),
    ("pg_stat", Permitted::ServersOwnFile),
    ("pg_subtrans", Permitted::ServersOwnFile),
    ("pg_notify", Permitted::ServersOwnFile),
    ("pg_serial", Permitted::ServersOwnFile),
    ("pg_replslot", Permitted::ReplicationSlot),
    ("current_logfiles", Permitted::ServersOwnFile),
];
/// A cache of the catalogs, in the folder of each database (`RELCACHE_INIT_FILENAME`,
/// `utils/relcache.h`).
const CATALOG_CACHE: &str = "pg_internal.init";

/// Judges every file below `pgdata` that is not in `seen`, and `PG_VERSION`.
pub(super) fn compare_rest(
    pgdata: &Path,
    seen: &BTreeSet<String>,
    report: &mut Verification,
) -> Result<()> {
    report.files.compared += 1;
    let version = pgdata.join("PG_VERSION");
    if fs::read(&version).io("read", &version)? != b"15\n" {
        report.files.different += 1;
        report.describe(Difference::of_file("PG_VERSION", "it is not 15".to_owned()));
    }
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let dir = pgdata.join(&folder);
        for entry in fs::read_dir(&dir).io("list", &dir)? {
            let entry = entry.io("list", &dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if is_folder(&entry, &folder).io("look at", &dir)? {
                if !COMPARED_FOLDERS.contains(&path.as_str()) {
                    folders.push(path);
                }
            } else if !seen.contains(&path) && !COMPARED.contains(&path.as_str()) {
                judge(&path, report);
            }
        }
    }
    Ok(())
}

/// Whether it is a folder of the data directory. Where the compute has made a tablespace, its folder
/// is behind a link.
fn is_folder(entry: &DirEntry, parent: &str) -> io::Result<bool> {
    let kind = entry.file_type()?;
    if kind.is_symlink() && parent == TABLESPACES {
        return Ok(fs::metadata(entry.path())?.is_dir());
    }
    Ok(kind.is_dir())
}

fn judge(path: &str, report: &mut Verification) {
    match parse_relation_path(path) {
        Ok(_) => return,
        // Of a session that crashed, kept by `remove_temp_files_after_crash`; the next start removes it.
        Err(error) if error.kind == FilePathErrorKind::Temporary => {
            return report.permit(Permitted::OrphanedFile, 1);
        }
        Err(_) => {}
    }
    let within =
        |of: &str| path.strip_prefix(of).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    let reason = PERMITTED.iter().find(|(of, _)| within(of)).map(|(_, reason)| *reason);
    let is_cache = path.rsplit('/').next() == Some(CATALOG_CACHE);
    match reason.or(is_cache.then_some(Permitted::ServersOwnFile)) {
        Some(reason) => report.permit(reason, 1),
        None => {
            report.files.compared += 1;
            report.files.different += 1;
            let detail = "only the compute has it".to_owned();
            report.describe(Difference::of_file(path, detail));
        }
    }
}
