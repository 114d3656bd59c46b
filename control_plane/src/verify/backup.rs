//! What the page server says apart from pages: its base backup, which has the list of relations and
//! the small files for real.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use postgres_formats::control_file::CONTROL_FILE_PATH;
use postgres_formats::relpath::parse_relation_path;
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH, ReplicationOrigins};
use postgres_formats::{BLCKSZ, ForkNumber, Lsn, RelTag, TimelineId};

use super::commit_ts::differ_in_forgotten;
use super::counters;
use super::directory::{DataDirectory, TABLESPACES};
use super::report::{Count, Difference, Permitted, Verification};
use super::undecided::{Counter, Subject};
use crate::control::Control;
use crate::error::{Error, Result};

/// First entry of the archive: a line `PATH BYTES` for each relation file.
const RELATIONS_ENTRY: &str = "zenith.relations";

/// The base backup at an LSN, as far as it has been kept.
#[derive(Default)]
pub(super) struct Backup {
    /// Size in blocks of every fork, main forks of unlogged relations apart.
    pub relations: BTreeMap<RelTag, u32>,
    /// Paths of the small files that were compared, on whichever side they are.
    pub seen: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
}

impl Backup {
    /// Fetches it, and compares its small files with those of the stock server.
    pub fn compare(
        control: &mut Control,
        timeline: TimelineId,
        lsn: Lsn,
        theirs: &DataDirectory,
        report: &mut Verification,
    ) -> Result<Backup> {
        let mut backup = Backup::default();
        control.copy_out(&format!("basebackup {timeline} {lsn}"), |stream| {
            backup.read(stream, theirs, report)
        })?;
        for path in theirs.files.iter().filter(|path| !backup.seen.contains(*path)) {
            counted(report, path).compared += 1;
            if differ_in_forgotten(path, None, Some(&theirs.read_file(path)?), theirs)? {
                report.permit(Permitted::ForgottenCommitTimestamps, 1);
                continue;
            }
            on_one_side(report, path, "missing");
        }
        backup.seen.extend(theirs.files.iter().cloned());
        backup.compare_tablespaces(theirs, report);
        Ok(backup)
    }

    /// A tablespace need not have anything in it.
    fn compare_tablespaces(&self, theirs: &DataDirectory, report: &mut Verification) {
        report.files.compared += self.tablespaces.union(&theirs.tablespaces).count() as u64;
        for path in self.tablespaces.symmetric_difference(&theirs.tablespaces) {
            let detail = match theirs.tablespaces.contains(path) {
                true => "missing",
                false => "it is not on the stock server",
            };
            on_one_side(report, path, detail);
        }
    }

    fn read(
        &mut self,
        stream: &mut dyn Read,
        theirs: &DataDirectory,
        report: &mut Verification,
    ) -> Result<()> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let path = entry.path().map_err(damaged)?.to_string_lossy().into_owned();
            if entry.header().entry_type() != tar::EntryType::Regular {
                let path = path.trim_end_matches('/');
                if Path::new(path).parent() == Some(Path::new(TABLESPACES)) {
                    self.tablespaces.insert(path.to_owned());
                }
                continue;
            }
            if path == RELATIONS_ENTRY {
                let mut text = String::new();
                entry.read_to_string(&mut text).map_err(damaged)?;
                self.add_relations(&text)?;
            } else if let Ok(file) = parse_relation_path(&path) {
                // Main forks that are here are copies of init forks.
                if file.tag.fork == ForkNumber::Init {
                    *self.relations.entry(file.tag).or_default() += blocks(entry.size());
                }
            } else if path == CONTROL_FILE_PATH {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(damaged)?;
                if theirs.has_stubs() {
                    counters::compare_whole(&bytes, theirs, report)?;
                } else {
                    counters::compare(&bytes, theirs, report)?;
                }
            } else if is_compared(&path) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(damaged)?;
                compare_file(&path, &bytes, theirs, report)?;
                self.seen.insert(path);
            }
        }
        Ok(())
    }

    fn add_relations(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            let parsed = line.rsplit_once(' ').and_then(|(path, bytes)| {
                Some((parse_relation_path(path).ok()?, bytes.parse::<u64>().ok()?))
            });
            let (file, bytes) = parsed
                .ok_or_else(|| damaged(io::Error::other(format!("{line:?} names no relation"))))?;
            *self.relations.entry(file.tag).or_default() += blocks(bytes);
        }
        Ok(())
    }
}

fn blocks(bytes: u64) -> u32 {
    u32::try_from(bytes / BLCKSZ as u64).unwrap_or(u32::MAX)
}

/// WAL and settings are made for a compute, which is another server.
fn is_compared(path: &str) -> bool {
    let made = ["PG_VERSION", "postgresql.auto.conf"];
    !made.contains(&path) && !path.starts_with("pg_wal/")
}

fn counted<'r>(report: &'r mut Verification, path: &str) -> &'r mut Count {
    if ["pg_xact/", "pg_multixact/", "pg_commit_ts/"].iter().any(|dir| path.starts_with(dir)) {
        &mut report.slru_segments
    } else {
        &mut report.files
    }
}

fn compare_file(
    path: &str,
    ours: &[u8],
    theirs: &DataDirectory,
    report: &mut Verification,
) -> Result<()> {
    let detail = if theirs.files.contains(path) {
        let (theirs, absent) = theirs.read_file_over(path, ours)?;
        report.pages.absent += absent;
        if path == REPLICATION_ORIGINS_PATH && origins(ours)? == origins(&theirs)? {
            counted(report, path).compared += 1;
            return Ok(());
        }
        let at = ours.iter().zip(&theirs).position(|(our, their)| our != their);
        match at {
            Some(at) => Some(format!("differs from byte {at} on")),
            None if ours.len() != theirs.len() => {
                Some(format!("{} bytes, and {} on the stock server", ours.len(), theirs.len()))
            }
            None => None,
        }
    } else {
        Some("it is not on the stock server".to_owned())
    };
    counted(report, path).compared += 1;
    if let Some(detail) = detail {
        let file = theirs.files.contains(path).then(|| theirs.read_file(path)).transpose()?;
        if differ_in_forgotten(path, Some(ours), file.as_deref(), theirs)? {
            report.permit(Permitted::ForgottenCommitTimestamps, 1);
            return Ok(());
        }
        match file {
            Some(_) => {
                counted(report, path).different += 1;
                report.describe(Difference::of_file(path, detail));
            }
            None => on_one_side(report, path, &detail),
        }
    }
    Ok(())
}

/// Adds a difference: only one side has the file, or the tablespace's folder, at `path`.
fn on_one_side(report: &mut Verification, path: &str, detail: &str) {
    let difference = Difference::of_file(path, detail.to_owned());
    match Subject::of_path(path) {
        Some(subject) => report.differs(Counter::Files, subject, difference),
        None => {
            counted(report, path).different += 1;
            report.describe(difference);
        }
    }
}

/// Their order in the file means nothing. One at 0/0 has no progress and is as good as none: a session
/// that is set up for an origin makes it, without a record.
fn origins(file: &[u8]) -> Result<ReplicationOrigins> {
    let mut origins = replication_origins::decode(file).map_err(|error| Error::Corrupt {
        path: REPLICATION_ORIGINS_PATH.into(),
        detail: error.to_string(),
    })?;
    origins.retain(|_, remote_lsn| *remote_lsn != Lsn::INVALID);
    Ok(origins)
}

fn damaged(error: io::Error) -> Error {
    Error::Connection {
        what: "page server".to_owned(),
        detail: format!("the base backup is damaged or was cut off: {error}"),
    }
}
