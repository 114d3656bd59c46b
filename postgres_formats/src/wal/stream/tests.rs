//! The decoder against WAL laid out by `WalWriter`; against PostgreSQL's own it is tested in
//! `tests/real_wal.rs`.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::wal::page_header::XLP_LONG_HEADER;
use crate::wal::{
    Reassembled, WalDecodeErrorKind, WalOrigin, WalWriter, encode_record, reassemble,
    record_within_page,
};

const SEG: u32 = 1 << 20;

fn origin() -> WalOrigin {
    WalOrigin { system_id: SystemId(77), tli: 1, seg_size: WalSegmentSize::new(SEG).unwrap() }
}

fn heap_header() -> RecordHeader {
    RecordHeader { tot_len: 0, xid: 700, prev: Lsn::INVALID, info: 0, rmid: 10, crc: 0 }
}

/// A record's body: one piece of main data of `len` bytes.
fn body(len: usize) -> Vec<u8> {
    let mut body = if len < 256 {
        vec![255, len as u8]
    } else {
        [&[254][..], &(len as u32).to_le_bytes()].concat()
    };
    body.extend((0..len).map(|i| (i % 251) as u8));
    body
}

fn switch_header() -> RecordHeader {
    RecordHeader { rmid: 0, info: 0x40, ..heap_header() }
}

/// WAL with records whose main data has the given lengths; `None` is a segment switch.
fn write(start: Lsn, lengths: &[Option<usize>]) -> (WalWriter, Vec<(Lsn, Lsn)>) {
    let mut writer = WalWriter::new(start, Lsn::new(8), origin());
    let mut places = Vec::new();
    for length in lengths {
        match length {
            Some(len) => places.push(writer.append(heap_header(), &body(*len))),
            None => {
                let (start, _) = writer.append(switch_header(), &[]);
                writer.fill_segment();
                places.push((start, writer.position()));
            }
        }
    }
    (writer, places)
}

fn decoder(start: Lsn) -> WalStreamDecoder {
    WalStreamDecoder::new(start, origin().seg_size, Some(origin().system_id))
}

/// Feeds `bytes` in pieces of `piece` bytes and returns all records and how it ended.
fn decode(start: Lsn, bytes: &[u8], piece: usize) -> (Vec<WalRecord>, Option<WalDecodeError>) {
    let mut decoder = decoder(start);
    let mut records = Vec::new();
    for chunk in bytes.chunks(piece) {
        if let Err(error) = decoder.feed(decoder.expected_lsn(), chunk) {
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

fn places(records: &[WalRecord]) -> Vec<(Lsn, Lsn)> {
    records.iter().map(|record| (record.start, record.end)).collect()
}

#[test]
fn records_come_out_as_they_went_in() {
    let lengths = [Some(10), Some(9000), Some(0), None, Some(3_000_000), Some(255), Some(256)];
    let (writer, expected) = write(Lsn::new(0x1000000), &lengths);
    let (records, error) = decode(writer.start(), writer.bytes(), usize::MAX);
    assert_eq!(error, None);
    assert_eq!(places(&records), expected);
    assert_eq!(records[1].bytes[24..], body(9000));
    assert_eq!(records[4].bytes[24..], body(3_000_000));
    assert_eq!(records[3].end, Lsn::new(0x1100000));
}

#[test]
fn a_record_can_fill_its_page_exactly() {
    // Header 24, data header 5: the record ends with the page, or one alignment unit before.
    let room = 8192 - 40 - 24 - 5;
    let (writer, expected) = write(Lsn::new(0x1000000), &[Some(room), Some(5), Some(room - 8)]);
    assert_eq!(expected[0].1, Lsn::new(0x1002000));
    assert_eq!(expected[1].0, Lsn::new(0x1002018));
    let (records, error) = decode(writer.start(), writer.bytes(), usize::MAX);
    assert_eq!((places(&records), error), (expected, None));
}

#[test]
fn next_start_is_behind_the_page_header_and_behind_a_switch() {
    let (writer, _) = write(Lsn::new(0x1000000), &[Some(8192 - 40 - 29), None]);
    let mut decoder = decoder(writer.start());
    assert_eq!(decoder.next_record_start(), Lsn::new(0x1000028));
    decoder.feed(writer.start(), writer.bytes()).unwrap();
    decoder.next_record().unwrap().unwrap();
    assert_eq!(decoder.next_record_start(), Lsn::new(0x1002018));
    decoder.next_record().unwrap().unwrap();
    assert_eq!(decoder.next_record_start(), Lsn::new(0x1100028));
    assert_eq!(decoder.next_record(), Ok(None));
    assert_eq!(decoder.expected_lsn(), Lsn::new(0x1100000));
}

#[test]
fn wal_that_ends_in_a_record_is_not_an_error() {
    let (writer, expected) = write(Lsn::new(0x1000000), &[Some(10), Some(20000)]);
    for len in 0..writer.bytes().len() - 8 {
        let (records, error) = decode(writer.start(), &writer.bytes()[..len], usize::MAX);
        assert_eq!(error, None, "at {len}");
        assert!(expected.starts_with(&places(&records)));
    }
}

#[test]
fn zeros_and_stale_pages_are_the_end_of_wal() {
    let (writer, _) = write(Lsn::new(0x1000000), &[Some(100)]);
    let mut bytes = writer.bytes().to_vec();
    bytes.resize(8192, 0);
    let (records, error) = decode(writer.start(), &bytes, usize::MAX);
    assert_eq!(records.len(), 1);
    assert!(error.unwrap().is_end_of_wal());

    // A record that should go on, but the next page is empty or from an earlier use.
    let (writer, _) = write(Lsn::new(0x1000000), &[Some(10000)]);
    let old = origin().page_header(Lsn::new(0x2000), 0).encode();
    for (tail, kind) in [
        (vec![0; 24], WalDecodeErrorKind::EmptyPage),
        (old, WalDecodeErrorKind::StalePage { found: Lsn::new(0x2000) }),
    ] {
        let bytes = [&writer.bytes()[..8192], &tail].concat();
        let (records, error) = decode(writer.start(), &bytes, usize::MAX);
        assert_eq!(records, []);
        let error = error.unwrap();
        assert!(error.is_end_of_wal());
        assert_eq!(error, WalDecodeError { lsn: Lsn::new(0x1002000), kind });
    }
}

#[test]
fn damage_is_told_from_the_end() {
    let (writer, expected) = write(Lsn::new(0x1000000), &[Some(100), Some(9000), Some(100)]);
    let check = |offset: usize, value: &[u8], lsn: Lsn| {
        let mut bytes = writer.bytes().to_vec();
        bytes[offset..offset + value.len()].copy_from_slice(value);
        let (_, error) = decode(writer.start(), &bytes, usize::MAX);
        let error = error.unwrap();
        assert_eq!(error.lsn, lsn);
        assert!(!error.is_end_of_wal());
        error.kind
    };
    use WalDecodeErrorKind as Kind;
    let page2 = Lsn::new(0x1002000);
    assert!(matches!(check(60, &[0xEE], Lsn::new(0x1000028)), Kind::BadCrc { .. }));
    assert!(matches!(check(0, &[0x13], Lsn::new(0x1000000)), Kind::BadMagic { .. }));
    assert!(matches!(check(24, &[1], Lsn::new(0x1000000)), Kind::WrongSystemId { .. }));
    assert!(matches!(check(34, &[1], Lsn::new(0x1000000)), Kind::WrongGeometry { .. }));
    assert!(matches!(check(8192 + 2, &[0], page2), Kind::WrongRemainder { found: 0, .. }));
    assert!(matches!(check(8192 + 16, &[1], page2), Kind::WrongRemainder { .. }));
    assert!(matches!(check(8192 + 2, &[0x41], page2), Kind::BadPageFlags { .. }));
    assert!(matches!(check(8192 + 2, &[3], page2), Kind::BadPageFlags { .. }));
    assert!(matches!(check(8192 + 12, &[9], page2), Kind::WrongPageAddress { .. }));
    assert!(matches!(check(8192 + 4, &[0], page2), Kind::TimelineWentBack { .. }));
    let second = expected[1].0;
    let at = second.distance_from(writer.start()).unwrap() as usize;
    assert!(matches!(check(at + 8, &[1], second), Kind::WrongPrev { .. }));
    assert!(matches!(check(at, &[1, 0, 0, 0], second), Kind::BadLength(1)));
    assert!(matches!(check(at, &[0xFF; 4], second), Kind::BadLength(u32::MAX)));
    assert!(matches!(check(at + 17, &[50], second), Kind::BadResourceManager(50)));
}

#[test]
fn errors_repeat_and_gaps_are_refused() {
    let mut decoder = decoder(Lsn::new(0x1000000));
    assert!(decoder.feed(Lsn::new(0x1000008), &[1]).is_err());
    decoder.feed(Lsn::new(0x1000000), &[0; 64]).unwrap();
    let error = decoder.next_record().unwrap_err();
    assert_eq!(decoder.next_record(), Err(error.clone()));
    assert_eq!(decoder.feed(decoder.expected_lsn(), &[0]), Err(error));
}

/// A crash left a record incomplete; recovery wrote a note where it should have gone on.
#[test]
fn a_given_up_record_is_passed_over() {
    for (wrong, at_page) in [(false, 1), (true, 1), (false, 2), (false, 128)] {
        let start = Lsn::new(0x1000000);
        let (writer, expected) = write(start, &[Some(100), Some(2_000_000)]);
        let cut = at_page * 8192;
        let page = start.saturating_add(cut as u64);
        let abandoned = expected[1].0.as_u64() + u64::from(wrong);
        let note = [&[255, 16][..], &abandoned.to_le_bytes(), &12345u64.to_le_bytes()].concat();
        let header =
            RecordHeader { rmid: 0, info: 0xD0, xid: 0, prev: expected[0].0, ..heap_header() };
        let mut tail = WalWriter::new(page, expected[0].0, origin());
        let (note_start, _) = tail.append_bytes(&encode_record(header, &note));
        let (after_start, _) = tail.append(heap_header(), &body(10));
        let mut tail_bytes = tail.bytes().to_vec();
        tail_bytes[2] |= XLP_FIRST_IS_OVERWRITE_CONTRECORD as u8;
        assert_eq!(tail_bytes[2] & XLP_LONG_HEADER as u8 != 0, at_page == 128);
        let bytes = [&writer.bytes()[..cut], &tail_bytes].concat();
        for piece in [1, 24, usize::MAX] {
            let (records, error) = decode(start, &bytes, piece);
            let starts: Vec<Lsn> = records.iter().map(|record| record.start).collect();
            if wrong {
                assert_eq!(starts, [expected[0].0]);
                let kind = WalDecodeErrorKind::BadOverwriteNote { abandoned: expected[1].0 };
                assert_eq!(error, Some(WalDecodeError { lsn: note_start, kind }));
            } else {
                assert_eq!((starts, error), (vec![expected[0].0, note_start, after_start], None));
            }
        }
        if wrong {
            continue;
        }
        let raw_start = expected[1].0.distance_from(start).unwrap() as usize;
        let again = reassemble(expected[1].0, &bytes[raw_start..], origin().seg_size);
        let kind = WalDecodeErrorKind::Overwritten { at: page };
        assert_eq!(again, Err(WalDecodeError { lsn: expected[1].0, kind }));
    }
}

#[test]
fn a_record_can_be_read_again_by_its_start() {
    let lengths = [Some(10), Some(9000), Some(8000), Some(0), None, Some(300_000), Some(7)];
    let (writer, expected) = write(Lsn::new(0x1000000), &lengths);
    let (records, _) = decode(writer.start(), writer.bytes(), usize::MAX);
    assert_eq!(places(&records), expected);
    for record in &records {
        let at = record.start.distance_from(writer.start()).unwrap() as usize;
        let mut len = 0;
        let mut rounds = 0;
        loop {
            let raw = &writer.bytes()[at..at + len];
            match reassemble(record.start, raw, origin().seg_size).unwrap() {
                Reassembled::Complete(again) => {
                    assert_eq!(&again, record);
                    break;
                }
                Reassembled::NeedMore(more) => {
                    assert!(more > len);
                    len = more;
                    rounds += 1;
                }
            }
        }
        assert!(rounds <= 2, "{rounds} rounds");

        let page_at = at - record.start.page_offset() as usize;
        let page = writer.bytes().get(page_at..page_at + XLOG_BLCKSZ as usize);
        let page = Bytes::copy_from_slice(page.unwrap_or(&writer.bytes()[page_at..]));
        let fits = at + record.bytes.len() <= page_at + XLOG_BLCKSZ as usize;
        let is_switch = RecordHeader::decode(&record.bytes).unwrap().is_switch();
        let found = record_within_page(record.start, &page);
        assert_eq!(found.as_ref(), (fits && !is_switch).then_some(record));
        // One that is damaged or cut off is not found.
        if found.is_some() {
            let end = record.start.page_offset() as usize + record.bytes.len();
            assert_eq!(record_within_page(record.start, &page.slice(..end - 1)), None);
            let mut damaged = page.to_vec();
            damaged[end - 1] ^= 1;
            assert_eq!(record_within_page(record.start, &damaged.into()), None);
        }
    }
}

fn lengths() -> impl Strategy<Value = Vec<Option<usize>>> {
    let length = prop_oneof![
        8 => (0usize..300).prop_map(Some),
        3 => (7000usize..9000).prop_map(Some),
        1 => (20_000usize..40_000).prop_map(Some),
        1 => Just(None),
    ];
    prop::collection::vec(length, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_size_of_pieces_does_not_matter(lengths in lengths(), start in 0u64..16384, piece in 1usize..9000) {
        let start = Lsn::new(0x10F_C000 + start).normalized(origin().seg_size);
        let (writer, expected) = write(start, &lengths);
        let (at_once, error) = decode(start, writer.bytes(), usize::MAX);
        prop_assert_eq!(error, None);
        prop_assert_eq!(places(&at_once), expected);
        prop_assert_eq!(&decode(start, writer.bytes(), piece), &(at_once.clone(), None));
        let head = &writer.bytes()[..writer.bytes().len().min(100_000)];
        prop_assert_eq!(decode(start, head, 1), decode(start, head, usize::MAX));
    }

    #[test]
    fn damaged_wal_gives_no_wrong_record(
        lengths in lengths(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        piece in 1usize..9000,
    ) {
        let (writer, _) = write(Lsn::new(0x1000000), &lengths);
        let (good, _) = decode(writer.start(), writer.bytes(), usize::MAX);
        let mut bytes = writer.bytes().to_vec();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let (records, error) = decode(writer.start(), &bytes, usize::MAX);
        prop_assert!(good.starts_with(&records));
        prop_assert_eq!(decode(writer.start(), &bytes, piece), (records, error));
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..20_000), start in 0u64..9000) {
        let start = Lsn::new(0x1000000 + start).normalized(origin().seg_size);
        decode(start, &bytes, 997);
        let _ = reassemble(start, &bytes, origin().seg_size);
        let bytes = Bytes::from(bytes);
        let _ = record_within_page(start, &bytes);
        let _ = crate::wal::DecodedRecord::parse(&bytes);
    }
}

/// Found by the fuzz target `wal_stream`: the header of a record over several pages was only looked at
/// when bytes came after those that had it.
#[test]
fn a_wrong_header_is_found_with_the_bytes_that_have_it() {
    let start = Lsn::new(3 * u64::from(SEG) + 8192 - 2000);
    let (writer, _) = write(start, &[Some(10_000)]);
    let mut bytes = writer.bytes().to_vec();
    // xl_prev: a record behind this one.
    bytes[8..16].copy_from_slice(&(start.as_u64() + 800).to_le_bytes());
    let (records, error) = decode(start, &bytes[..1000], 1000);
    assert!(records.is_empty());
    assert!(matches!(error.map(|error| error.kind), Some(WalDecodeErrorKind::WrongPrev { .. })));
}
