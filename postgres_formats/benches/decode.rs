//! How fast does WAL become records, and records block references?
//!
//! 64 MiB of WAL with records of 60 to 250 bytes and every hundredth of 8 KiB, fed in pieces of
//! 128 KiB as a replication connection does. One thread.
//!
//! 2026-11-22, 2 virtual cores shared with other work: decode 1.9 GB/s (7.8 million records/s), with
//! block references 1.3 GB/s (5.3 million records/s), checksums 2.7 million pages/s.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::wal::{DecodedRecord, RecordHeader, WalOrigin, WalStreamDecoder, WalWriter};
use postgres_formats::{BlockNumber, PageImage};
use postgres_formats::{Lsn, SystemId, page_checksum};

const WAL_BYTES: usize = 64 << 20;
const PIECE: usize = 128 << 10;

/// A heap insertion: one block reference with data, a little main data.
fn body(data_len: usize) -> Vec<u8> {
    let mut body = vec![0, 0x20];
    body.extend((data_len as u16).to_le_bytes());
    for number in [1663u32, 5, 16384, 17] {
        body.extend(number.to_le_bytes());
    }
    body.extend([255, 3]);
    body.extend(vec![7; data_len + 3]);
    body
}

fn decode(criterion: &mut Criterion) {
    let origin = WalOrigin { system_id: SystemId(1), tli: 1, seg_size: WalSegmentSize::DEFAULT };
    let start = Lsn::new(0x100_0000);
    let mut writer = WalWriter::new(start, Lsn::new(8), origin);
    let header = RecordHeader { tot_len: 0, xid: 9, prev: start, info: 0, rmid: 10, crc: 0 };
    let mut number = 0;
    while writer.bytes().len() < WAL_BYTES {
        number += 1;
        let len = if number % 100 == 0 { 8000 } else { 16 + number * 37 % 190 };
        writer.append(header, &body(len));
    }
    let wal = writer.bytes();

    let mut group = criterion.benchmark_group("decode");
    group.sample_size(20).throughput(Throughput::Bytes(wal.len() as u64));
    for (name, parse) in [("records", false), ("records and their blocks", true)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut decoder =
                    WalStreamDecoder::new(start, origin.seg_size, Some(origin.system_id));
                let mut records = 0;
                for piece in wal.chunks(PIECE) {
                    decoder.feed(decoder.expected_lsn(), piece).unwrap();
                    while let Some(record) = decoder.next_record().unwrap() {
                        records += 1;
                        if parse {
                            black_box(DecodedRecord::parse(&record.bytes).unwrap());
                        }
                        black_box(record);
                    }
                }
                assert_eq!(records, number);
            });
        });
    }
    group.finish();
    let mut page = PageImage::from_slice(&wal[8192 * 3..8192 * 4]).unwrap();
    page[14..16].fill(1);
    criterion.bench_function("checksum of a page", |b| {
        b.iter(|| page_checksum::set_checksum(black_box(&mut page), BlockNumber(7)));
    });
}

criterion_group!(benches, decode);
criterion_main!(benches);
