//! `Begin`: where stock PostgreSQL's recovery begins.
//!
//! Best with the checkpoint of the root's base image, for then nothing of ours takes part. That needs
//! all WAL. Where some was removed, recovery can begin at any record from which on the WAL is kept: at
//! that LSN the page server knows all files, each page exactly as redo would have left it, and a
//! checkpoint can be made that says so. It is put behind the last record, since PostgreSQL wants
//! it at or behind the place where redo begins, which is all that it needs to be. What the check proves is
//! then what has happened from there on.

use postgres_formats::Lsn;
use postgres_formats::lsn::SegmentNumber;
use postgres_formats::wal::{RecordHeader, WalRecord, WalStreamDecoder, rmgr};

use super::MaterializeError;
use super::lineage::Lineage;
use super::source::Source;

/// Where recovery begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// With the checkpoint record that the root's base image belongs to.
    Checkpoint(Lsn),
    /// With this record. Its start is at or behind where everything can be asked for.
    Record(Lsn),
}

/// Chooses. `since` is the oldest LSN from which on the page server answers; `None`: it is not to be
/// asked.
pub(super) fn choose(
    lineage: &Lineage,
    lsn: Lsn,
    since: Option<Lsn>,
) -> Result<Begin, MaterializeError> {
    let source = Source::open(lineage, lineage.wal_start(), lsn);
    let oldest = source.oldest()?;
    if let Some(checkpoint) = lineage.checkpoint
        && (oldest <= checkpoint || lsn <= checkpoint)
        && lineage.image.is_there()
    {
        return Ok(Begin::Checkpoint(checkpoint));
    }
    let Some(since) = since else {
        return Err(MaterializeError::WalRemoved { start: lineage.start, oldest });
    };
    match first_behind(lineage, oldest, since.max(lineage.start), lsn)? {
        Some(record) => Ok(Begin::Record(record)),
        None => {
            let oldest = Source::open(lineage, lineage.wal_start(), lineage.wal_end()?).oldest()?;
            Err(MaterializeError::OutOfReach { lsn, oldest: oldest.max(since) })
        }
    }
}

/// The first record that begins at `wanted` or later and ends at `lsn` or before; the WAL is there from
/// `oldest` on.
fn first_behind(
    lineage: &Lineage,
    oldest: Lsn,
    wanted: Lsn,
    lsn: Lsn,
) -> Result<Option<Lsn>, MaterializeError> {
    if wanted.max(oldest) >= lsn {
        return Ok(None);
    }
    let size = lineage.cluster.segment_size;
    // Not before: of a segment in which a timeline was forked the ancestor's part may be gone.
    let source = Source::open(lineage, oldest, lsn);
    let start = source.record_before(wanted, oldest, lsn)?;
    let mut decoder = WalStreamDecoder::new(start, size, Some(lineage.cluster.system_id));
    let mut number = start.segment(size);
    while number.start(size) < lsn {
        let bytes = source.segment(number)?;
        let begins = number.start(size);
        let to = lsn.min(begins.saturating_add(size.bytes()));
        let from = decoder.expected_lsn().max(begins);
        let offset = |at: Lsn| at.distance_from(begins).unwrap_or(0) as usize;
        decoder.feed(from, bytes.get(offset(from)..offset(to)).unwrap_or_default())?;
        while let Some(record) = decoder.next_record()? {
            if record.start >= wanted && !gives_one_up(&record) {
                return Ok(Some(record.start));
            }
        }
        number = SegmentNumber(number.0 + 1);
    }
    Ok(None)
}

/// Whether a record says that the one before it was never completed. PostgreSQL insists on having met
/// that one (`XLOG_OVERWRITE_CONTRECORD` in `xlogrecovery_redo`, `access/transam/xlogrecovery.c`).
fn gives_one_up(record: &WalRecord) -> bool {
    RecordHeader::decode(&record.bytes).is_ok_and(|header| {
        header.rmid == rmgr::XLOG && header.rmgr_info() == rmgr::xlog::OVERWRITE_CONTRECORD
    })
}
