//! Commit timestamps: ten bytes for each transaction.
//!
//! Source: PostgreSQL `backend/access/transam/commit_ts.c`, `xact_redo_commit` in `xact.c`. What
//! counts is what redo does: a transaction that was replicated without the time of its commit at the
//! origin has none in its record, though the server that replicated it takes its own.

use postgres_formats::slru::COMMIT_TS_ENTRY_SIZE;
use postgres_formats::wal::records::xact::XactEnd;
use postgres_formats::{PageImage, SlruKind, TransactionId};

use super::clog_page::{ended, pages_of};
use crate::ingest::change::{Change, Changes};

/// A new version of each page on which a transaction or subtransaction of the record stands, if it
/// is a commit: aborts have no timestamps.
pub(in crate::ingest) fn push_times(xid: TransactionId, end: &XactEnd, changes: &mut Changes) {
    if end.commit {
        let pages = pages_of(SlruKind::CommitTs, xid, end);
        changes.list.extend(pages.into_iter().map(|page| Change::CommitTimestamps { page }));
    }
}

/// Sets time and origin of every transaction of the record that stands on page `number`; false if
/// there are none.
pub(super) fn apply(
    origin: Option<u16>,
    xid: TransactionId,
    end: &XactEnd,
    number: u32,
    page: &mut PageImage,
) -> bool {
    if !end.commit {
        return false;
    }
    let time = end.origin.map_or(end.time, |origin| origin.time);
    let mut applied = false;
    for xid in ended(xid, end).filter(|xid| SlruKind::CommitTs.page_of(xid.0) == number) {
        let index = xid.0 % SlruKind::CommitTs.entries_per_page();
        let at = (index * COMMIT_TS_ENTRY_SIZE) as usize;
        page[at..at + 8].copy_from_slice(&time.to_le_bytes());
        page[at + 8..at + 10].copy_from_slice(&origin.unwrap_or(0).to_le_bytes());
        applied = true;
    }
    applied
}
