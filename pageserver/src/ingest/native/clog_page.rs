//! The commit log: two bits for each transaction.
//!
//! Source: PostgreSQL `access/clog.h`, `backend/access/transam/clog.c`.

use std::iter;

use postgres_formats::wal::DecodedRecord;
use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::records::xact::XactEnd;
use postgres_formats::{PageImage, SlruKind, TransactionId};
use smallvec::SmallVec;

use crate::ingest::change::{Change, Changes};
use crate::key::PageKey;

/// `TRANSACTION_STATUS_COMMITTED`
const COMMITTED: u8 = 1;
/// `TRANSACTION_STATUS_ABORTED`
const ABORTED: u8 = 2;

/// The top-level transaction, or the subtransaction that was rolled back, that the record ends.
pub(in crate::ingest) fn ending_xid(
    dec: &DecodedRecord,
    end: &XactEnd,
) -> Result<TransactionId, RecordContentError> {
    let xid = end.prepared_xid.unwrap_or(TransactionId(dec.header.xid));
    if xid == TransactionId::INVALID {
        return Err(RecordContentError::BadValue { what: "transaction that ends", value: 0 });
    }
    Ok(xid)
}

/// The transactions that the record ends: this one and its subtransactions.
pub(super) fn ended(xid: TransactionId, end: &XactEnd) -> impl Iterator<Item = TransactionId> {
    iter::once(xid).chain(end.subxacts.iter().copied())
}

/// A new version of each page on which a transaction or subtransaction of the record stands.
pub(in crate::ingest) fn push_status(xid: TransactionId, end: &XactEnd, changes: &mut Changes) {
    let pages = pages_of(SlruKind::Clog, xid, end);
    changes.list.extend(pages.into_iter().map(|page| Change::NativePage {
        key: PageKey::Slru { kind: SlruKind::Clog, page },
        will_init: false,
        must_exist: false,
    }));
}

/// The pages of `kind` on which the transactions of the record stand.
pub(super) fn pages_of(kind: SlruKind, xid: TransactionId, end: &XactEnd) -> SmallVec<[u32; 4]> {
    // Ids are assigned in ascending order, so that there are few pages, in runs.
    let mut pages: SmallVec<[u32; 4]> = SmallVec::new();
    for xid in ended(xid, end) {
        let page = kind.page_of(xid.0);
        if pages.last() != Some(&page) && !pages.contains(&page) {
            pages.push(page);
        }
    }
    pages
}

/// Sets the status of every transaction of the record that stands on page `number`; false if there
/// are none. Subtransactions go straight to their final status: the intermediate one that
/// PostgreSQL uses is for readers at the same moment.
pub(super) fn apply(xid: TransactionId, end: &XactEnd, number: u32, page: &mut PageImage) -> bool {
    let status = if end.commit { COMMITTED } else { ABORTED };
    let mut applied = false;
    for xid in ended(xid, end).filter(|xid| SlruKind::Clog.page_of(xid.0) == number) {
        let index = xid.0 % SlruKind::Clog.entries_per_page();
        let shift = index % 4 * 2;
        let byte = &mut page[(index / 4) as usize];
        *byte = *byte & !(0b11 << shift) | status << shift;
        applied = true;
    }
    applied
}
