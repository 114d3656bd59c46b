//! WAL that PostgreSQL can start from, at any position.
//!
//! A server that was shut down cleanly begins by reading one record: the checkpoint that
//! `pg_control` points to. [`bootstrap_wal`] makes the segment with just that record, at the
//! position where a branch or a compute begins. Stock PostgreSQL then starts without any recovery
//! and goes on writing behind it, in the middle of a page or segment as well.
//!
//! The positions before it, from the segment's beginning, are given the form of the rest of one
//! long record, so that tools that read a segment from its beginning find their way:
//!
//! ```text
//! segment start                                    base
//! | header, N bytes go on | .. page | header, n bytes go on | .. | checkpoint | zeros ..
//! ```

use super::record_header::RecordHeader;
use super::rmgr;
use super::writer::{WalOrigin, WalWriter, encode_record};
use crate::checkpoint::{CHECKPOINT_SIZE, CheckPoint};
use crate::lsn::{SegmentNumber, WalSegmentSize, XLOG_BLCKSZ};
use crate::{Lsn, SystemId, TransactionId};

const XLR_BLOCK_ID_DATA_SHORT: u8 = 255;

/// What the shutdown checkpoint at `base` says, if `state` is what the counters are there. This is
/// what [`bootstrap_wal`] writes; `pg_control` must have the same copy.
pub fn shutdown_checkpoint(base: Lsn, tli: u32, state: &CheckPoint) -> CheckPoint {
    CheckPoint {
        redo: base,
        this_tli: tli,
        prev_tli: tli,
        // PostgreSQL fills it in only for checkpoints of a running server.
        oldest_active_xid: TransactionId::INVALID,
        ..*state
    }
}

/// The bytes of an `XLOG_CHECKPOINT_SHUTDOWN` record that follows the record at `prev`.
pub fn shutdown_checkpoint_record(prev: Lsn, checkpoint: &CheckPoint) -> Vec<u8> {
    checkpoint_record(rmgr::xlog::CHECKPOINT_SHUTDOWN, prev, checkpoint)
}

/// The bytes of an `XLOG_CHECKPOINT_ONLINE` record that follows the record at `prev`. Recovery that
/// begins with it replays all from `checkpoint.redo` on, this record included, which then only moves
/// counters forward (`xlog_redo`).
pub fn online_checkpoint_record(prev: Lsn, checkpoint: &CheckPoint) -> Vec<u8> {
    checkpoint_record(rmgr::xlog::CHECKPOINT_ONLINE, prev, checkpoint)
}

fn checkpoint_record(info: u8, prev: Lsn, checkpoint: &CheckPoint) -> Vec<u8> {
    let header = RecordHeader { tot_len: 0, xid: 0, prev, info, rmid: rmgr::XLOG, crc: 0 };
    let data_header = [XLR_BLOCK_ID_DATA_SHORT, CHECKPOINT_SIZE as u8];
    encode_record(header, &[&data_header[..], &checkpoint.encode()].concat())
}

/// The WAL segments, whole, of a cluster that was shut down at `base`: one, or two if the record
/// goes over the end of the first.
///
/// `base` is normalised, as the start of a record always is; `prev` is the start of the record
/// before it, `state` the state of the counters there. The record is the one of
/// [`shutdown_checkpoint`].
pub fn bootstrap_wal(
    base: Lsn,
    prev: Lsn,
    state: &CheckPoint,
    system_id: SystemId,
    tli: u32,
    seg_size: WalSegmentSize,
) -> Vec<(SegmentNumber, Vec<u8>)> {
    let base = base.normalized(seg_size);
    let origin = WalOrigin { system_id, tli, seg_size };
    let mut writer = WalWriter::new(base, prev, origin);
    let checkpoint = shutdown_checkpoint(base, tli, state);
    writer.append_bytes(&shutdown_checkpoint_record(prev, &checkpoint));

    let first = base.segment(seg_size);
    let start = first.start(seg_size);
    let end = writer.position();
    let used = end.distance_from(start).unwrap_or(0);
    let segments = used.div_ceil(seg_size.bytes()).max(1);
    let mut wal = vec![0; (segments * seg_size.bytes()) as usize];
    let mut put = |at: Lsn, bytes: &[u8]| {
        let offset = at.distance_from(start).unwrap_or(0) as usize;
        wal[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(base, writer.bytes());
    lead_in(origin, base).into_iter().for_each(|(page, header)| put(page, &header));
    let second = wal.split_off(seg_size.bytes() as usize);
    let mut named = vec![(first, wal)];
    if !second.is_empty() {
        named.push((SegmentNumber(first.0 + 1), second));
    }
    named
}

/// The headers of the pages from the beginning of the segment up to the one that `base`, which is
/// normalised, lies on: as if all between them was the rest of one record that ends at `base`.
pub fn lead_in(origin: WalOrigin, base: Lsn) -> Vec<(Lsn, Vec<u8>)> {
    let size = origin.seg_size;
    let start = base.segment(size).start(size);
    let mut headers = Vec::new();
    // From the last page backwards, for each header counts what goes on up to `base`.
    let mut page = base.page_start();
    let mut remaining = 0;
    let mut until = base;
    loop {
        let data = page.saturating_add(page.page_header_size(size));
        remaining += until.distance_from(data).unwrap_or(0) as u32;
        headers.push((page, origin.page_header(page, remaining).encode()));
        if page == start {
            return headers;
        }
        until = page;
        page = Lsn::new(page.as_u64() - XLOG_BLCKSZ);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wal::{PageHeader, WalStreamDecoder, XLP_FIRST_IS_CONTRECORD};

    const SEG: u32 = 1 << 20;

    fn seg_size() -> WalSegmentSize {
        WalSegmentSize::new(SEG).unwrap()
    }

    fn state() -> CheckPoint {
        CheckPoint {
            next_xid: crate::FullTransactionId(1000),
            oldest_active_xid: TransactionId(9),
            ..CheckPoint::default()
        }
    }

    #[test]
    fn the_record_is_at_the_base_wherever_that_is() {
        let seg = 0x200_0000;
        for (offset, segments) in [
            (0x28, 1),
            (0x30, 1),
            (0x2018, 1),
            (0x2020, 1),
            (0x3FF8, 1),         // crosses into the next page
            (0x4000 - 120, 1),   // fills the page
            (0x100000 - 120, 1), // fills the segment
            (0x100000 - 112, 2), // crosses into the next segment
            (0x100000 - 8, 2),
        ] {
            let base = Lsn::new(seg + offset);
            let prev = Lsn::new(seg - 100);
            let wal = bootstrap_wal(base, prev, &state(), SystemId(5), 1, seg_size());
            assert_eq!(wal.len(), segments, "{base}");
            let mut decoder =
                WalStreamDecoder::new(base, seg_size(), Some(SystemId(5))).with_prev(prev);
            let (number, bytes) = &wal[0];
            assert_eq!(number.start(seg_size()), Lsn::new(seg));
            assert_eq!(bytes.len(), SEG as usize);
            decoder.feed(base, &bytes[offset as usize..]).unwrap();
            if let Some((number, bytes)) = wal.get(1) {
                decoder.feed(number.start(seg_size()), bytes).unwrap();
            }
            let record = decoder.next_record().unwrap().unwrap();
            assert_eq!(record.start, base);
            let said = CheckPoint::decode(&record.bytes[26..]).unwrap();
            assert_eq!(said, shutdown_checkpoint(base, 1, &state()));
            assert_eq!((said.redo, said.oldest_active_xid), (base, TransactionId::INVALID));
            match decoder.next_record() {
                Ok(None) => assert_eq!(record.end, Lsn::new(seg + u64::from(SEG))),
                Ok(Some(record)) => panic!("{record:?}"),
                Err(error) => assert!(error.is_end_of_wal()),
            }
        }
    }

    /// Follows the page headers from the beginning of the segment, as `pg_waldump` does.
    #[test]
    fn page_headers_lead_to_the_base() {
        for offset in [0x28, 0x30, 0x2018, 0x2020, 0x3FF8, 0xFE018, 0xFFFF8] {
            let base = Lsn::new(0x200_0000 + offset);
            let wal = bootstrap_wal(base, Lsn::new(8), &state(), SystemId(5), 1, seg_size());
            let mut page = Lsn::new(0x200_0000);
            let found = loop {
                let at = page.segment_offset(seg_size()) as usize;
                let header = PageHeader::decode(&wal[0].1[at..]).unwrap();
                assert_eq!(header.page_address, page);
                assert_eq!(header.has(XLP_FIRST_IS_CONTRECORD), header.remaining > 0);
                let header_size = page.page_header_size(seg_size());
                if u64::from(header.remaining) >= XLOG_BLCKSZ - header_size {
                    page = page.saturating_add(XLOG_BLCKSZ);
                } else {
                    break page.saturating_add(header_size + u64::from(header.remaining));
                }
            };
            assert_eq!(found, base);
        }
    }
}
