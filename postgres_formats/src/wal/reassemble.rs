//! `reassemble`: one record from the raw WAL bytes at its start, for reading a record again.

use bytes::Bytes;

use super::error::{WalDecodeError, WalDecodeErrorKind};
use super::record_header::{RECORD_HEADER_SIZE, RecordHeader, check_length, record_crc};
use super::stream::{WalRecord, WalStreamDecoder};
use crate::Lsn;
use crate::lsn::{WalSegmentSize, XLOG_BLCKSZ};

/// What the bytes gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reassembled {
    /// The whole record.
    Complete(WalRecord),
    /// The record is longer than the bytes given. Call again with this many raw bytes, which is
    /// always more than were given and at most a page header more than needed.
    NeedMore(usize),
}

/// Takes the record that begins at `start` out of `raw`, the WAL bytes from `start` on with their
/// page headers. Bytes behind the record are not looked at. Everything that the record itself says
/// is checked, but not whose cluster it is, nor that `xl_prev` is right.
pub fn reassemble(
    start: Lsn,
    raw: &[u8],
    seg_size: WalSegmentSize,
) -> Result<Reassembled, WalDecodeError> {
    let need_header = raw_len(start, RECORD_HEADER_SIZE as u32, seg_size);
    let Some(&tot_len) = raw.first_chunk() else { return Ok(Reassembled::NeedMore(need_header)) };
    let tot_len = u32::from_le_bytes(tot_len);
    check_length(tot_len).map_err(|kind| WalDecodeError { lsn: start, kind })?;
    let need = raw_len(start, tot_len, seg_size);

    // What there is of a record is checked before more is asked for: its length may be wrong.
    let mut decoder = WalStreamDecoder::new(start, seg_size, None);
    decoder.feed(start, raw.get(..need).unwrap_or(raw))?;
    let record = decoder.next_record()?;
    let first = record.as_ref().map_or(decoder.next_record_start(), |record| record.start);
    if first != start.normalized(seg_size) {
        let kind = WalDecodeErrorKind::Overwritten { at: first.page_start() };
        return Err(WalDecodeError { lsn: start, kind });
    }
    Ok(match record {
        Some(record) => Reassembled::Complete(record),
        None if raw.len() < need_header => Reassembled::NeedMore(need_header),
        None => Reassembled::NeedMore(need.max(raw.len() + 1)),
    })
}

/// The record that begins at `start`, if all of it lies within one page of WAL and holds what is checked
/// by [`reassemble`]. `page` is that page's bytes from its beginning on, perhaps not all of them; the
/// record shares their memory. `None` for any other record: ask `reassemble`, which knows why.
pub fn record_within_page(start: Lsn, page: &Bytes) -> Option<WalRecord> {
    let at = start.page_offset() as usize;
    let tot_len = u32::from_le_bytes(*page.get(at..)?.first_chunk()?);
    let end = at.checked_add(usize::try_from(tot_len).ok()?)?;
    let bytes = page.get(at..end).filter(|_| end <= XLOG_BLCKSZ as usize)?;
    let header = RecordHeader::decode(bytes).ok()?;
    header.check(start, None).ok()?;
    // A switch ends elsewhere.
    if header.is_switch() || record_crc(bytes)? != header.crc {
        return None;
    }
    let behind = start.checked_add(u64::from(tot_len))?;
    Some(WalRecord { start, end: behind.align_up(), bytes: page.slice(at..end) })
}

/// Bytes from the start of a record of `tot_len` bytes to its last byte, page headers included.
pub fn raw_len(start: Lsn, tot_len: u32, seg_size: WalSegmentSize) -> usize {
    let mut position = start;
    let mut left = u64::from(tot_len);
    loop {
        if position.page_offset() == 0 && position != start {
            position = position.saturating_add(position.page_header_size(seg_size));
        }
        let here = left.min(XLOG_BLCKSZ - position.page_offset());
        position = position.saturating_add(here);
        left -= here;
        if left == 0 {
            return position.distance_from(start).unwrap_or(0) as usize;
        }
    }
}
