//! Commit timestamps of transactions that nobody may ask for any more.
//!
//! A server that stops tracking them removes the files, but not what its recovery holds in buffers
//! (`DeactivateCommitTs`): the next checkpoint brings these pages back. If they are tracked again
//! later, the counters in `pg_control` keep everybody off what is older.

use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};
use postgres_formats::slru::{
    COMMIT_TS_ENTRY_SIZE, SLRU_PAGES_PER_SEGMENT, SlruKind, parse_segment_file_name,
};
use postgres_formats::{BLCKSZ, TransactionId};

use super::directory::DataDirectory;
use crate::error::{Error, Result};

/// Whether two segments of commit timestamps differ only in such as the stock server does not give
/// away, or not at all. `None`: there is no file, which is as good as zeros.
pub(super) fn differ_in_forgotten(
    path: &str,
    ours: Option<&[u8]>,
    theirs: Option<&[u8]>,
    directory: &DataDirectory,
) -> Result<bool> {
    let folder = SlruKind::CommitTs.dir();
    let name = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
    let Some(segment) = name.and_then(parse_segment_file_name) else { return Ok(false) };
    let control =
        ControlFile::decode(&directory.read_file(CONTROL_FILE_PATH)?).map_err(|error| {
            Error::Corrupt { path: CONTROL_FILE_PATH.into(), detail: error.to_string() }
        })?;
    let oldest = control.check_point_copy.oldest_commit_ts_xid;
    let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
    Ok(remembered(segment, ours, oldest) == remembered(segment, theirs, oldest))
}

/// The segment with zeros for everything older than `oldest`, without zeros at its end.
fn remembered(segment: u32, bytes: &[u8], oldest: TransactionId) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let per_page = SlruKind::CommitTs.entries_per_page();
    let first_page = segment.wrapping_mul(SLRU_PAGES_PER_SEGMENT);
    for (page_number, page) in (first_page..).zip(bytes.chunks_mut(BLCKSZ)) {
        let entries = page.chunks_exact_mut(COMMIT_TS_ENTRY_SIZE as usize);
        for (xid, entry) in (page_number.wrapping_mul(per_page)..).zip(entries) {
            if TransactionId(xid).precedes(oldest) {
                entry.fill(0);
            }
        }
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_is_left_out() {
        let mut bytes = vec![0; 2 * BLCKSZ];
        // Entry 8 of the second page: transaction 827.
        bytes[BLCKSZ + 80] = 1;
        assert_eq!(remembered(0, &bytes, TransactionId(828)), []);
        assert_eq!(remembered(0, &bytes, TransactionId(827)).len(), BLCKSZ + 81);
        assert_eq!(remembered(0, &bytes, TransactionId::INVALID).len(), BLCKSZ + 81);
        assert_eq!(remembered(1, &bytes, TransactionId(828)).len(), BLCKSZ + 81);
    }
}
