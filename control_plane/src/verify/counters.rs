//! The counters in `pg_control`: which transaction, object and multixact come next, and the oldest
//! that count.

use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};

use super::directory::DataDirectory;
use super::report::{Difference, Verification};
use crate::error::{Error, Result};

/// Compares them; `ours` is the control file of a base backup.
pub(super) fn compare(
    ours: &[u8],
    theirs: &DataDirectory,
    report: &mut Verification,
) -> Result<()> {
    let theirs = theirs.read_file(CONTROL_FILE_PATH)?;
    let (ours, theirs) = (counters(ours)?, counters(&theirs)?);
    report.files.compared += 1;
    let different: Vec<String> = ours
        .iter()
        .zip(&theirs)
        .filter(|(our, their)| our != their)
        .map(|((name, our), (_, their))| format!("{name} {our}, {their} on the stock server"))
        .collect();
    if !different.is_empty() {
        report.files.different += 1;
        report.describe(Difference::of_file(CONTROL_FILE_PATH, different.join("; ")));
    }
    Ok(())
}

fn counters(file: &[u8]) -> Result<[(&'static str, u64); 8]> {
    let control = ControlFile::decode(file).map_err(|error| Error::Corrupt {
        path: CONTROL_FILE_PATH.into(),
        detail: error.to_string(),
    })?;
    let state = control.check_point_copy;
    Ok([
        ("next transaction", state.next_xid.0),
        ("next object", state.next_oid.0.into()),
        ("next multixact", state.next_multi.0.into()),
        ("next multixact member", state.next_multi_offset.into()),
        ("oldest transaction", state.oldest_xid.0.into()),
        ("database of the oldest transaction", state.oldest_xid_db.0.into()),
        ("oldest multixact", state.oldest_multi.0.into()),
        ("database of the oldest multixact", state.oldest_multi_db.0.into()),
    ])
}
