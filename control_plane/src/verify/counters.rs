//! The counters in `pg_control`: which transaction, object and multixact come next, and the oldest
//! that count.

use postgres_formats::checkpoint::CheckPoint;
use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};

use super::directory::DataDirectory;
use super::report::{Difference, Permitted, Verification};
use crate::error::{Error, Result};

/// Compares them; `ours` is the control file of a base backup.
pub(super) fn compare(
    ours: &[u8],
    theirs: &DataDirectory,
    report: &mut Verification,
) -> Result<()> {
    let theirs = theirs.read_file(CONTROL_FILE_PATH)?;
    let (ours, theirs) = (checkpoint(ours)?, checkpoint(&theirs)?);
    report.files.compared += 1;
    let mut different = Vec::new();
    if ours.oldest_multi_db != theirs.oldest_multi_db {
        if ours.oldest_multi == theirs.oldest_multi {
            report.permit(Permitted::OldestMultixactDatabase, 1);
        } else {
            different.push(format!(
                "database of the oldest multixact {}, {} on the stock server",
                ours.oldest_multi_db, theirs.oldest_multi_db
            ));
        }
    }
    let differing = counters(&ours)
        .into_iter()
        .zip(counters(&theirs))
        .filter(|(our, their)| our != their)
        .map(|((name, our), (_, their))| format!("{name} {our}, {their} on the stock server"));
    different.extend(differing);
    if !different.is_empty() {
        report.files.different += 1;
        report.describe(Difference::of_file(CONTROL_FILE_PATH, different.join("; ")));
    }
    Ok(())
}

/// Fields of it that stand for settings of the server that wrote it.
const PARAMETERS: [&str; 8] = [
    "wal_level",
    "wal_log_hints",
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_xacts",
    "max_locks_per_xact",
    "track_commit_timestamp",
];

/// Compares all of it with that of a compute that was stopped cleanly. What must differ is left out:
/// where the last checkpoint is and when it was, for a base backup brings one of its own at its LSN,
/// and the counter of unlogged changes, which is the compute's own.
pub(super) fn compare_whole(
    ours: &[u8],
    theirs: &DataDirectory,
    report: &mut Verification,
) -> Result<()> {
    let theirs = decoded(&theirs.read_file(CONTROL_FILE_PATH)?)?;
    let mut ours = decoded(ours)?;
    let own = ours.clone();
    ours.time = theirs.time;
    ours.check_point = theirs.check_point;
    ours.check_point_copy.redo = theirs.check_point_copy.redo;
    ours.check_point_copy.time = theirs.check_point_copy.time;
    ours.unlogged_lsn = theirs.unlogged_lsn;
    if own.encode() != ours.encode() {
        report.permit(Permitted::OwnCheckpoint, 1);
    }
    report.files.compared += 1;
    if ours.encode() == theirs.encode() {
        return Ok(());
    }
    let (ours, theirs) = (format!("{ours:#?}"), format!("{theirs:#?}"));
    let lines = ours.lines().map(str::trim).zip(theirs.lines().map(str::trim));
    let differing: Vec<_> =
        lines.filter(|(our, their)| our != their && our.contains(": ")).collect();
    let is_parameter = |line: &str| PARAMETERS.iter().any(|name| line.starts_with(name));
    if !differing.is_empty() && differing.iter().all(|(our, _)| is_parameter(our)) {
        report.permit(Permitted::ServerParameters, 1);
        return Ok(());
    }
    let lines = differing.iter().map(|(our, their)| format!("{our} and not {their}"));
    let lines: Vec<String> = lines.collect();
    report.files.different += 1;
    report.describe(Difference::of_file(CONTROL_FILE_PATH, lines.join("; ")));
    Ok(())
}

/// The control file of a compute.
pub(super) fn decoded(file: &[u8]) -> Result<ControlFile> {
    ControlFile::decode(file).map_err(|error| Error::Corrupt {
        path: CONTROL_FILE_PATH.into(),
        detail: error.to_string(),
    })
}

fn checkpoint(file: &[u8]) -> Result<CheckPoint> {
    Ok(decoded(file)?.check_point_copy)
}

fn counters(state: &CheckPoint) -> [(&'static str, u64); 8] {
    [
        ("next transaction", state.next_xid.0),
        ("next object", state.next_oid.0.into()),
        ("next multixact", state.next_multi.0.into()),
        ("next multixact member", state.next_multi_offset.into()),
        ("oldest transaction", state.oldest_xid.0.into()),
        ("database of the oldest transaction", state.oldest_xid_db.0.into()),
        ("oldest multixact", state.oldest_multi.0.into()),
        // The oldest one is not compared: it moves without a record where no file goes, and only
        // checkpoints tell, of which recovery believes just the one that it begins with.
        ("newest transaction with a commit timestamp", state.newest_commit_ts_xid.0.into()),
    ]
}
