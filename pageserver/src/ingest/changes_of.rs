//! `changes_of`, the effects of one record.

use postgres_formats::SlruKind;
use postgres_formats::slru::SLRU_PAGES_PER_SEGMENT;
use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::records::clog::{self, ClogTruncate};
use postgres_formats::wal::records::dbase::{DbaseCreateFileCopy, DbaseCreateWalLog, DbaseDrop};
use postgres_formats::wal::records::multixact::{self, MultiXactCreate, MultiXactTruncate};
use postgres_formats::wal::records::relmap::RelMapUpdate;
use postgres_formats::wal::records::smgr::{self, SmgrTruncate};
use postgres_formats::wal::records::tblspc::{self, TblspcCreate};
use postgres_formats::wal::records::xact::{XactEnd, XactPrepare};
use postgres_formats::wal::{DecodedRecord, WalRecord, rmgr};

use super::change::{Change, Changes};
use super::error::{IngestError, RecordName};
use super::native::{clog_page, multixact_page, truncation, visibility_map};
use super::slru_truncation::{SlruTruncation, TruncatedRange};
use super::understood;
use crate::key::PageKey;

/// What the record does to storage.
///
/// Pure: the same record always gives the same changes, whatever is stored. Changes say themselves
/// what happens to pages and relations that do not exist.
///
/// # Errors
///
/// The record is malformed although its checksum was right. Nothing can be said about its effects.
pub fn changes_of(rec: &WalRecord, dec: &DecodedRecord) -> Result<Changes, IngestError> {
    let record = RecordName::of(rec, dec);
    let mut changes = Changes::default();
    push_pages(dec, &mut changes);
    let content = |source| IngestError::Content { record, source };
    match record.rmid {
        rmgr::HEAP | rmgr::HEAP2 => visibility_map::push_clears(record, dec, &mut changes)?,
        rmgr::XACT => push_xact(record, dec, &mut changes).map_err(content)?,
        rmgr::SMGR => push_smgr(record, dec, &mut changes).map_err(content)?,
        rmgr::CLOG => push_clog(record, dec, &mut changes).map_err(content)?,
        rmgr::MULTIXACT => push_multixact(record, dec, &mut changes).map_err(content)?,
        rmgr::DBASE => push_dbase(record, dec, &mut changes).map_err(content)?,
        rmgr::RELMAP => push_relmap(record, dec, &mut changes).map_err(content)?,
        rmgr::TBLSPC => note_tblspc(record, dec, &mut changes).map_err(content)?,
        rmgr::COMMIT_TS => {
            changes.unsupported = Some(format!(
                "{record}: commit timestamps are not stored, \
                 track_commit_timestamp will show none for transactions up to here"
            ));
        }
        rmgr::REPLORIGIN => {
            changes.unsupported = Some(format!(
                "{record}: the progress of replication origins is not stored, \
                 a subscription on a branch would apply changes again"
            ));
        }
        _ if understood::is_pages_only(record.rmid, record.info) => {}
        _ => note_unknown(record, &mut changes),
    }
    Ok(changes)
}

/// A new version by PostgreSQL's redo of each page that the record references.
fn push_pages(dec: &DecodedRecord, changes: &mut Changes) {
    // Unlike other records, those of hint bits do nothing to a page without its image.
    let is_hint =
        dec.header.rmid == rmgr::XLOG && dec.header.rmgr_info() == rmgr::xlog::FPI_FOR_HINT;
    for block in &dec.blocks {
        if is_hint && block.image.is_none() {
            continue;
        }
        changes.list.push(Change::Page {
            rel: block.rel,
            block: block.block,
            will_init: block.replaces_page(),
        });
    }
}

fn push_xact(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), RecordContentError> {
    match record.info & rmgr::xact::OPMASK {
        rmgr::xact::COMMIT
        | rmgr::xact::ABORT
        | rmgr::xact::COMMIT_PREPARED
        | rmgr::xact::ABORT_PREPARED => {
            let end = XactEnd::parse(dec.header.info, &dec.main_data)?;
            let xid = clog_page::ending_xid(dec, &end)?;
            clog_page::push_status(xid, &end, changes);
            let drops = end.dropped_rels.iter().map(|&rel| Change::RelDrop { rel });
            changes.list.extend(drops);
            if end.prepared_xid.is_some() {
                changes.list.push(Change::TwoPhaseFinish { xid });
            }
            changes.list.push(Change::XactEnd { xid, commit: end.commit, time: end.time });
            if end.origin.is_some() {
                changes.unsupported = Some(format!(
                    "{record}: a replicated transaction, but the progress of replication origins \
                     is not stored, a subscription on a branch would apply changes again"
                ));
            }
        }
        rmgr::xact::PREPARE => {
            let prepare = XactPrepare::parse(&dec.main_data)?;
            changes
                .list
                .push(Change::TwoPhasePrepare { xid: prepare.xid, data: dec.main_data.clone() });
        }
        _ if understood::is_pages_only(record.rmid, record.info) => {}
        _ => note_unknown(record, changes),
    }
    Ok(())
}

fn push_smgr(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), RecordContentError> {
    match record.info {
        rmgr::smgr::CREATE => {
            changes.list.push(Change::RelCreate { rel: smgr::parse_create(&dec.main_data)? });
        }
        rmgr::smgr::TRUNCATE => {
            truncation::push_changes(&SmgrTruncate::parse(&dec.main_data)?, changes);
        }
        _ => note_unknown(record, changes),
    }
    Ok(())
}

fn push_clog(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), RecordContentError> {
    match record.info {
        rmgr::clog::ZEROPAGE => {
            push_zero_page(SlruKind::Clog, clog::parse_zero_page(&dec.main_data)?, changes);
        }
        rmgr::clog::TRUNCATE => {
            let truncate = ClogTruncate::parse(&dec.main_data)?;
            changes.list.push(Change::SlruTruncate(SlruTruncation {
                kind: SlruKind::Clog,
                range: TruncatedRange::BeforePage(truncate.page),
            }));
        }
        _ => note_unknown(record, changes),
    }
    Ok(())
}

fn push_multixact(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), RecordContentError> {
    let data = &dec.main_data;
    match record.info {
        rmgr::multixact::ZERO_OFF_PAGE => {
            push_zero_page(SlruKind::MultixactOffsets, multixact::parse_zero_page(data)?, changes);
        }
        rmgr::multixact::ZERO_MEM_PAGE => {
            push_zero_page(SlruKind::MultixactMembers, multixact::parse_zero_page(data)?, changes);
        }
        rmgr::multixact::CREATE_ID => {
            multixact_page::push_create(&MultiXactCreate::parse(data)?, changes);
        }
        rmgr::multixact::TRUNCATE_ID => {
            let truncate = MultiXactTruncate::parse(data)?;
            let member_segment =
                |member: u32| SlruKind::MultixactMembers.page_of(member) / SLRU_PAGES_PER_SEGMENT;
            changes.list.push(Change::SlruTruncate(SlruTruncation {
                kind: SlruKind::MultixactMembers,
                range: TruncatedRange::Segments {
                    first: member_segment(truncate.start_member),
                    end: member_segment(truncate.end_member),
                },
            }));
            // One step back: the page of the oldest multitransaction need not exist yet if none
            // newer was ever assigned, and must not count as the past then.
            let cutoff = SlruKind::MultixactOffsets.page_of(truncate.end_multi.previous().0);
            changes.list.push(Change::SlruTruncate(SlruTruncation {
                kind: SlruKind::MultixactOffsets,
                range: TruncatedRange::BeforePage(cutoff),
            }));
        }
        _ => note_unknown(record, changes),
    }
    Ok(())
}

fn push_dbase(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), RecordContentError> {
    let data = &dec.main_data;
    match record.info {
        rmgr::dbase::CREATE_FILE_COPY => {
            let create = DbaseCreateFileCopy::parse(data)?;
            changes.list.push(Change::DbCreate { spc: create.spc, db: create.db });
            changes.list.push(Change::DbCopy {
                from: (create.source_spc, create.source_db),
                to: (create.spc, create.db),
            });
        }
        rmgr::dbase::CREATE_WAL_LOG => {
            let create = DbaseCreateWalLog::parse(data)?;
            changes.list.push(Change::DbCreate { spc: create.spc, db: create.db });
        }
        rmgr::dbase::DROP => {
            let drop = DbaseDrop::parse(data)?;
            let db = drop.db;
            changes.list.extend(drop.tablespaces.into_iter().map(|spc| Change::DbDrop { spc, db }));
        }
        _ => note_unknown(record, changes),
    }
    Ok(())
}

fn push_relmap(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), RecordContentError> {
    match record.info {
        rmgr::relmap::UPDATE => {
            let update = RelMapUpdate::parse(&dec.main_data)?;
            changes.list.push(Change::RelMap {
                spc: update.spc,
                db: update.db,
                map: dec.main_data.slice_ref(update.map),
            });
        }
        _ => note_unknown(record, changes),
    }
    Ok(())
}

fn note_tblspc(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), RecordContentError> {
    match record.info {
        rmgr::tblspc::CREATE => {
            let create = TblspcCreate::parse(&dec.main_data)?;
            changes.unsupported = Some(format!(
                "{record}: tablespace {} at \"{}\" is created, but tablespaces are not stored yet: \
                 a compute cannot reach the relations in it",
                create.spc,
                create.path.escape_ascii()
            ));
        }
        rmgr::tblspc::DROP => {
            let spc = tblspc::parse_drop(&dec.main_data)?;
            changes.unsupported = Some(format!(
                "{record}: tablespace {spc} is dropped, but tablespaces are not stored yet"
            ));
        }
        _ => note_unknown(record, changes),
    }
    Ok(())
}

fn push_zero_page(kind: SlruKind, page: u32, changes: &mut Changes) {
    changes.list.push(Change::NativePage {
        key: PageKey::Slru { kind, page },
        will_init: true,
        must_exist: false,
    });
}

fn note_unknown(record: RecordName, changes: &mut Changes) {
    changes.unsupported = Some(format!(
        "{record}: records of this kind are not understood; only the pages that it references \
         are changed"
    ));
}
