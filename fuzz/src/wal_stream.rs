//! WAL as it comes from a server or a segment file: page headers, continuation, records.
//!
//! How the bytes are cut into pieces makes no difference to what is decoded; and each record that
//! comes out is found again at its start by `reassemble`.

use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::wal::rmgr;
use postgres_formats::wal::{
    Reassembled, RecordHeader, WalDecodeError, WalOrigin, WalRecord, WalStreamDecoder, WalWriter,
    reassemble,
};
use postgres_formats::{Lsn, SystemId};

const SYSTEM: SystemId = SystemId(0x1122_3344_5566_7788);
/// Small segments, so that inputs go over their ends.
const SEGMENT_BYTES: u32 = 1 << 20;
/// Where the WAL begins: two pages before the end of a segment.
const START: Lsn = Lsn::new((3 << 20) - 2 * 8192);

/// The first byte says how large the pieces are; the others are WAL from `START` on.
pub fn run(input: &[u8]) {
    let Some((&step, wal)) = input.split_first() else { return };
    let whole = decode(wal, wal.len().max(1));
    let pieces = decode(wal, usize::from(step) * 31 + 1);
    assert_eq!(whole, pieces, "what is decoded depends on how the bytes were cut");
    let (records, _) = whole;
    let mut before = None;
    for record in &records {
        assert!(record.start < record.end, "a record ends where it begins");
        assert!(before.is_none_or(|end| end <= record.start), "records overlap");
        before = Some(record.end);
        let from = record.start.distance_from(START).unwrap() as usize;
        match reassemble(record.start, &wal[from..], segment_size()) {
            Ok(Reassembled::Complete(again)) => assert_eq!(&again, record),
            other => panic!("the record at {} is not found again: {other:?}", record.start),
        }
    }
}

fn segment_size() -> WalSegmentSize {
    WalSegmentSize::new(SEGMENT_BYTES).unwrap()
}

fn decode(wal: &[u8], step: usize) -> (Vec<WalRecord>, Option<WalDecodeError>) {
    let mut decoder = WalStreamDecoder::new(START, segment_size(), Some(SYSTEM));
    let mut records = Vec::new();
    for piece in wal.chunks(step) {
        if let Err(error) = decoder.feed(decoder.expected_lsn(), piece) {
            return (records, Some(error));
        }
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
    }
    (records, None)
}

/// Records of many lengths, over pages and a segment's end; with a switch to the next segment.
pub fn seeds() -> Vec<Vec<u8>> {
    [7_usize, 100, 2_000, 9_000, 30_000].into_iter().map(seed).collect()
}

fn seed(length: usize) -> Vec<u8> {
    let origin = WalOrigin { system_id: SYSTEM, tli: 1, seg_size: segment_size() };
    let mut writer = WalWriter::new(START, Lsn::new(START.as_u64() - 64), origin);
    let header =
        |rmid, info| RecordHeader { tot_len: 0, xid: 7, prev: Lsn::new(0), info, rmid, crc: 0 };
    for n in 0..6 {
        let body = crate::wal_record::body_of_main_data(&vec![n; length / usize::from(n + 1)]);
        writer.append(header(rmgr::XLOG, rmgr::xlog::NOOP), &body);
    }
    if length == 7 {
        writer.append(header(rmgr::XLOG, rmgr::xlog::SWITCH), &[]);
        writer.fill_segment();
        writer.append(header(rmgr::XLOG, rmgr::xlog::NOOP), &[]);
    }
    let mut input = vec![length as u8];
    input.extend_from_slice(writer.bytes());
    input
}
