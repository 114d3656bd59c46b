//! `apply`, the page versions that we make ourselves.
//!
//! PostgreSQL's redo changes some pages that a record does not reference: visibility map bits that
//! table records clear, what is left of the maps' last pages when a relation is truncated; and the
//! commit log and multitransactions are not reached through buffers at all. The effect on such a
//! page is derived from the record again whenever the page is read, so nothing but the record has
//! to be kept. Each module here also says which pages a record changes, beside the code that does.

pub(super) mod clog_page;
pub(super) mod commit_ts_page;
pub(super) mod multixact_page;
pub(super) mod truncation;
pub(super) mod visibility_map;

use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::records::clog::parse_zero_page as parse_zero_clog_page;
use postgres_formats::wal::records::commit_ts::parse_zero_page as parse_zero_commit_ts_page;
use postgres_formats::wal::records::multixact::{MultiXactCreate, parse_zero_page};
use postgres_formats::wal::records::smgr::SmgrTruncate;
use postgres_formats::wal::records::xact::XactEnd;
use postgres_formats::wal::{DecodedRecord, WalRecord, rmgr};
use postgres_formats::{BlockNumber, ForkNumber, Lsn, PageImage, RelTag, SlruKind};

use super::error::{IngestError, RecordName};
use crate::key::PageKey;

/// Makes the version of the page at `key` that [`Change::NativePage`](super::Change::NativePage)
/// or a related change announced, from the version before (zeros if the page is new). All effects that the record has
/// on this page are applied at once; applying it twice changes nothing more.
///
/// Pages of relations get the record's end as their LSN, unless they were never initialised. Those
/// of the commit log and of multitransactions have no LSN.
///
/// # Errors
///
/// `NotNative` if the record has no such effect on the page; otherwise the record is malformed. The
/// page may be changed in part then and must not be used.
pub fn apply(
    rec: &WalRecord,
    dec: &DecodedRecord,
    key: &PageKey,
    page: &mut PageImage,
) -> Result<(), IngestError> {
    let record = RecordName::of(rec, dec);
    let applied = match *key {
        PageKey::Rel { rel, block } => {
            let applied = apply_to_map(record, dec, rel, block, page)?;
            if applied {
                stamp(page, rec.end);
            }
            applied
        }
        PageKey::Slru { kind, page: number } => apply_to_slru(record, dec, kind, number, page)?,
    };
    if applied { Ok(()) } else { Err(IngestError::NotNative { record, key: *key }) }
}

/// Whether the record has an effect on this page of a map; if so, it is applied.
fn apply_to_map(
    record: RecordName,
    dec: &DecodedRecord,
    rel: RelTag,
    block: BlockNumber,
    page: &mut PageImage,
) -> Result<bool, IngestError> {
    match (record.rmid, record.info) {
        (rmgr::HEAP | rmgr::HEAP2, _) => {
            visibility_map::apply_clears(record, dec, rel, block, page)
        }
        (rmgr::SMGR, rmgr::smgr::TRUNCATE) => {
            let truncate = SmgrTruncate::parse(&dec.main_data)
                .map_err(|source| IngestError::Content { record, source })?;
            Ok(truncation::apply(&truncate, rel, block, page))
        }
        _ => Ok(false),
    }
}

/// Whether the record has an effect on this page of the kind's files; if so, it is applied.
fn apply_to_slru(
    record: RecordName,
    dec: &DecodedRecord,
    kind: SlruKind,
    number: u32,
    page: &mut PageImage,
) -> Result<bool, IngestError> {
    let data = &dec.main_data;
    let content = |source| IngestError::Content { record, source };
    let zeroed = match (kind, record.rmid, record.info) {
        (SlruKind::Clog, rmgr::CLOG, rmgr::clog::ZEROPAGE) => {
            parse_zero_clog_page(data).map_err(content)?
        }
        (SlruKind::MultixactOffsets, rmgr::MULTIXACT, rmgr::multixact::ZERO_OFF_PAGE)
        | (SlruKind::MultixactMembers, rmgr::MULTIXACT, rmgr::multixact::ZERO_MEM_PAGE) => {
            parse_zero_page(data).map_err(content)?
        }
        (SlruKind::CommitTs, rmgr::COMMIT_TS, rmgr::commit_ts::ZEROPAGE) => {
            parse_zero_commit_ts_page(data).map_err(content)?
        }
        // Which page this is depends on the next transaction then; only one is ever asked for.
        (SlruKind::CommitTs, rmgr::XLOG, rmgr::xlog::PARAMETER_CHANGE) => number,
        (SlruKind::Clog | SlruKind::CommitTs, rmgr::XACT, _) => {
            let end = match XactEnd::parse(record.info, data) {
                Err(RecordContentError::WrongKind { .. }) => return Ok(false),
                end => end.map_err(content)?,
            };
            let xid = clog_page::ending_xid(dec, &end).map_err(content)?;
            return Ok(match kind {
                SlruKind::Clog => clog_page::apply(xid, &end, number, page),
                _ => commit_ts_page::apply(dec.origin, xid, &end, number, page),
            });
        }
        (_, rmgr::MULTIXACT, rmgr::multixact::CREATE_ID) => {
            let create = MultiXactCreate::parse(data).map_err(content)?;
            return Ok(multixact_page::apply(&create, kind, number, page));
        }
        _ => return Ok(false),
    };
    if zeroed == number {
        page.fill(0);
    }
    Ok(zeroed == number)
}

/// Sets the page's LSN, as every change to an initialised page must; never backwards.
fn stamp(page: &mut PageImage, end: Lsn) {
    if !page.is_new() && page.lsn() < end {
        page.set_lsn(end);
    }
}

/// The map of a relation: the same relation, another fork.
fn sibling(rel: RelTag, fork: ForkNumber) -> RelTag {
    RelTag { fork, ..rel }
}
