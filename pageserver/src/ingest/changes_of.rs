//! `changes_of`, the effects of one record.

use postgres_formats::replication_origins::DO_NOT_REPLICATE;
use postgres_formats::slru::SLRU_PAGES_PER_SEGMENT;
use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::records::clog::{self, ClogTruncate};
use postgres_formats::wal::records::commit_ts::{self, CommitTsTruncate};
use postgres_formats::wal::records::dbase::{DbaseCreateFileCopy, DbaseCreateWalLog, DbaseDrop};
use postgres_formats::wal::records::multixact::{self, MultiXactCreate, MultiXactTruncate};
use postgres_formats::wal::records::relmap::RelMapUpdate;
use postgres_formats::wal::records::replorigin::{self, OriginSet};
use postgres_formats::wal::records::smgr::{self, SmgrTruncate};
use postgres_formats::wal::records::tblspc::{self, TblspcCreate};
use postgres_formats::wal::records::xact::{XactEnd, XactPrepare};
use postgres_formats::wal::{DecodedRecord, WalRecord, rmgr};
use postgres_formats::{Lsn, ServerParameters, SlruKind};
use walredo_pool::CustomManagers;

use super::change::{Change, Changes};
use super::error::{IngestError, RecordName};
use super::native::{clog_page, commit_ts_page, multixact_page, truncation, visibility_map};
use super::slru_truncation::{SlruTruncation, TruncatedRange};
use super::understood;
use crate::key::PageKey;

/// What the record does to storage.
///
/// Pure: the same record always gives the same changes, whatever is stored. Changes say themselves
/// what happens to pages and relations that do not exist.
///
/// `custom`: the resource managers of extensions that PostgreSQL's redo knows here. Their records
/// do nothing but change the pages that they reference.
///
/// # Errors
///
/// The record is malformed although its checksum was right, or of a kind that is not known. Nothing can
/// be said about its effects.
pub fn changes_of(
    rec: &WalRecord,
    dec: &DecodedRecord,
    custom: CustomManagers,
) -> Result<Changes, IngestError> {
    let record = RecordName::of(rec, dec);
    let mut changes = Changes::default();
    push_pages(dec, &mut changes);
    let refused = |refusal| match refusal {
        Refusal::Content(source) => IngestError::Content { record, source },
        Refusal::UnknownKind => IngestError::UnknownKind { record },
    };
    match record.rmid {
        rmgr::HEAP | rmgr::HEAP2 => visibility_map::push_clears(record, dec, &mut changes)?,
        rmgr::XACT => push_xact(record, dec, &mut changes).map_err(refused)?,
        rmgr::SMGR => push_smgr(record, dec, &mut changes).map_err(refused)?,
        rmgr::CLOG => push_clog(record, dec, &mut changes).map_err(refused)?,
        rmgr::MULTIXACT => push_multixact(record, dec, &mut changes).map_err(refused)?,
        rmgr::DBASE => push_dbase(record, dec, &mut changes).map_err(refused)?,
        rmgr::RELMAP => push_relmap(record, dec, &mut changes).map_err(refused)?,
        rmgr::TBLSPC => push_tblspc(record, dec, &mut changes).map_err(refused)?,
        rmgr::COMMIT_TS => push_commit_ts(record, dec, &mut changes).map_err(refused)?,
        rmgr::XLOG if record.info == rmgr::xlog::PARAMETER_CHANGE => {
            changes.list.push(Change::Parameters(parameters(dec).map_err(refused)?));
        }
        rmgr::REPLORIGIN => push_replorigin(record, dec, &mut changes).map_err(refused)?,
        _ if understood::is_pages_only(record.rmid, record.info) => {}
        rmgr::CUSTOM_MIN.. if custom.contains(record.rmid) => {}
        rmgr::CUSTOM_MIN.. => return Err(IngestError::CustomResourceManager { record }),
        _ => return Err(IngestError::UnknownKind { record }),
    }
    Ok(changes)
}

/// Why the effects of a record cannot be told.
enum Refusal {
    Content(RecordContentError),
    UnknownKind,
}

impl From<RecordContentError> for Refusal {
    fn from(source: RecordContentError) -> Refusal {
        Refusal::Content(source)
    }
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
) -> Result<(), Refusal> {
    match record.info & rmgr::xact::OPMASK {
        rmgr::xact::COMMIT
        | rmgr::xact::ABORT
        | rmgr::xact::COMMIT_PREPARED
        | rmgr::xact::ABORT_PREPARED => {
            let end = XactEnd::parse(dec.header.info, &dec.main_data)?;
            let xid = clog_page::ending_xid(dec, &end)?;
            clog_page::push_status(xid, &end, changes);
            commit_ts_page::push_times(xid, &end, changes);
            let drops = end.dropped_rels.iter().map(|&rel| Change::RelDrop { rel });
            changes.list.extend(drops);
            if end.prepared_xid.is_some() {
                changes.list.push(Change::TwoPhaseFinish { xid });
            }
            changes.list.push(Change::XactEnd { xid, commit: end.commit, time: end.time });
            if let Some(origin) = end.origin {
                push_progress(dec, origin.lsn, changes);
            }
        }
        rmgr::xact::PREPARE => {
            let prepare = XactPrepare::parse(&dec.main_data)?;
            changes
                .list
                .push(Change::TwoPhasePrepare { xid: prepare.xid, data: dec.main_data.clone() });
            push_progress(dec, prepare.origin.lsn, changes);
        }
        _ if understood::is_pages_only(record.rmid, record.info) => {}
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

/// Progress of the origin that the record's transaction was replicated from, if it was.
fn push_progress(dec: &DecodedRecord, remote_lsn: Lsn, changes: &mut Changes) {
    if let Some(origin) = dec.origin.filter(|origin| *origin != DO_NOT_REPLICATE) {
        changes.list.push(Change::OriginProgress { origin, remote_lsn, force: false });
    }
}

fn push_replorigin(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    match record.info {
        rmgr::replorigin::SET => {
            let OriginSet { origin, remote_lsn, force } = OriginSet::parse(&dec.main_data)?;
            if origin != DO_NOT_REPLICATE {
                changes.list.push(Change::OriginProgress { origin, remote_lsn, force });
            }
        }
        rmgr::replorigin::DROP => {
            let origin = replorigin::parse_drop(&dec.main_data)?;
            changes.list.push(Change::OriginDrop { origin });
        }
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

fn push_smgr(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    match record.info {
        rmgr::smgr::CREATE => {
            changes.list.push(Change::RelCreate { rel: smgr::parse_create(&dec.main_data)? });
        }
        rmgr::smgr::TRUNCATE => {
            truncation::push_changes(&SmgrTruncate::parse(&dec.main_data)?, changes);
        }
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

fn push_clog(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
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
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

fn push_commit_ts(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    match record.info {
        rmgr::commit_ts::ZEROPAGE => {
            let page = commit_ts::parse_zero_page(&dec.main_data)?;
            push_zero_page(SlruKind::CommitTs, page, changes);
        }
        rmgr::commit_ts::TRUNCATE => {
            let truncate = CommitTsTruncate::parse(&dec.main_data)?;
            changes.list.push(Change::SlruTruncate(SlruTruncation {
                kind: SlruKind::CommitTs,
                range: TruncatedRange::BeforePage(truncate.page),
            }));
        }
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

/// The content of `PARAMETER_CHANGE`.
fn parameters(dec: &DecodedRecord) -> Result<ServerParameters, Refusal> {
    ServerParameters::decode_record(&dec.main_data)
        .map_err(|source| RecordContentError::Truncated { what: "parameters", source }.into())
}

fn push_multixact(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
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
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

fn push_dbase(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
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
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

fn push_relmap(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    match record.info {
        rmgr::relmap::UPDATE => {
            let update = RelMapUpdate::parse(&dec.main_data)?;
            changes.list.push(Change::RelMap {
                spc: update.spc,
                db: update.db,
                map: dec.main_data.slice_ref(update.map),
            });
        }
        _ => return Err(Refusal::UnknownKind),
    }
    Ok(())
}

fn push_tblspc(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    match record.info {
        rmgr::tblspc::CREATE => {
            let create = TblspcCreate::parse(&dec.main_data)?;
            changes.list.push(Change::TablespaceCreate {
                spc: create.spc,
                location: dec.main_data.slice_ref(create.path),
            });
        }
        rmgr::tblspc::DROP => {
            let spc = tblspc::parse_drop(&dec.main_data)?;
            changes.list.push(Change::TablespaceDrop { spc });
        }
        _ => return Err(Refusal::UnknownKind),
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
