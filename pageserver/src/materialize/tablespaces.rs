//! Tablespaces are kept inside the data directory.
//!
//! A record of `CREATE TABLESPACE` names a folder of the machine on which it ran, and redo makes a
//! link to it. On that same machine recovery would then work on the files of the server that wrote
//! the WAL. So the record is given the empty name, which to PostgreSQL 15 means a tablespace "in
//! place": a plain folder in `pg_tblspc`. Pages know nothing of either.

use postgres_formats::Lsn;
use postgres_formats::wal::{DecodedRecord, WalRecord, record_crc, rmgr};

/// Where `xl_rmid` and `xl_crc` are in a record (`access/xlogrecord.h`).
pub(super) const RMID_AT: usize = 17;
const CRC_AT: usize = 20;
/// Size in bytes of `ts_id`, which the name follows (`xl_tblspc_create_rec`, `commands/tablespace.h`).
const NAME_AT: usize = 4;

/// Start and new bytes, if `record` makes a tablespace elsewhere.
pub(super) fn kept_inside(record: &WalRecord, decoded: &DecodedRecord) -> Option<(Lsn, Vec<u8>)> {
    let name = decoded.main_data.get(NAME_AT..)?;
    let creates = decoded.header.rmid == rmgr::TBLSPC
        && decoded.header.info & rmgr::RMGR_INFO_MASK == rmgr::tblspc::CREATE
        && name.first().is_some_and(|byte| *byte != 0);
    if !creates {
        return None;
    }
    // The main data are the end of a record.
    let mut bytes = record.bytes.to_vec();
    let at = bytes.len().checked_sub(name.len())?;
    bytes.get_mut(at..)?.fill(0);
    let crc = record_crc(&bytes)?;
    bytes.get_mut(CRC_AT..CRC_AT + 4)?.copy_from_slice(&crc.to_le_bytes());
    Some((record.start, bytes))
}
