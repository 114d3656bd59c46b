//! Taking in a stock server's WAL: what records do to storage, and all that a timeline does with WAL before it is
//! synced: its file, decoding, the index, layers in the background.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/stock/mod.rs"]
mod stock;

use std::fs;
use std::hint::black_box;
use std::process::Command;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pageserver::ingest::changes_of;
use pageserver::layer::import::DataDirectory;
use pageserver::repository::Repository;
use postgres_formats::Lsn;
use postgres_formats::wal::{DecodedRecord, WalStreamDecoder};
use postgres_testing::{Cluster, scratch_dir, text};
use walredo_pool::CustomManagers;

const CACHE_BYTES: u64 = 64 << 20;
const PIECE: usize = 128 << 10;

fn ingest(criterion: &mut Criterion) {
    let mut cluster = Cluster::init("wal_keep_size = '1GB'\nautovacuum = off");
    let scratch = scratch_dir("zenith-ingest-");
    let main = "main".parse().unwrap();
    let base = DataDirectory::open(&cluster.data_dir()).unwrap().end;
    let id = Repository::init_from_pgdata(scratch.path(), &cluster.data_dir(), &main).unwrap();
    cluster.start();
    cluster.pgbench(&["-i", "-q", "-s", "1"]);
    cluster.pgbench(&["-n", "-c", "2", "-t", "5000"]);
    cluster.sql("create index on pgbench_accounts (bid, aid)");
    cluster.stop();
    let end = DataDirectory::open(&cluster.data_dir()).unwrap().end;

    let open = || {
        let copy = scratch_dir("zenith-ingest-");
        let from = format!("{}/.", text(scratch.path()));
        let done = Command::new("cp").args(["-a", &from, text(copy.path())]).status().unwrap();
        assert!(done.success());
        let opened = stock::open(copy, CACHE_BYTES);
        let timeline = opened.repository.timeline(id).unwrap();
        (opened, timeline)
    };
    let (_opened, timeline) = open();
    let size = timeline.cluster().segment_size;
    let begin = timeline.restart_receiving().unwrap();
    let wal = wal(&cluster, begin, end, size);
    let mut decoder = WalStreamDecoder::new(begin, size, None);
    decoder.feed(begin, &wal).unwrap();
    let mut records = Vec::new();
    while let Some(record) = decoder.next_record().unwrap() {
        records.push(record);
    }
    assert!(base <= begin && records.len() > 10_000);

    let mut group = criterion.benchmark_group("ingest");
    group.sample_size(10).throughput(Throughput::Bytes(wal.len() as u64));
    group.bench_function("changes of records", |b| {
        b.iter(|| {
            for record in &records {
                let decoded = DecodedRecord::parse(&record.bytes).unwrap();
                let changes = changes_of(record, &decoded, CustomManagers::default());
                black_box(changes.unwrap());
            }
        });
    });
    group.bench_function("WAL into a timeline", |b| {
        b.iter_batched(
            open,
            |(opened, timeline)| {
                let mut lsn = timeline.restart_receiving().unwrap();
                for piece in wal.chunks(PIECE) {
                    timeline.receive_wal(lsn, piece).unwrap();
                    lsn = lsn.checked_add(piece.len() as u64).unwrap();
                }
                timeline.sync_wal().unwrap();
                (opened, timeline)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The server's WAL from an LSN to another.
fn wal(
    cluster: &Cluster,
    begin: Lsn,
    end: Lsn,
    size: postgres_formats::lsn::WalSegmentSize,
) -> Vec<u8> {
    let mut wal = Vec::new();
    let mut at = begin;
    while at < end {
        let segment = at.segment(size);
        let name = segment.file_name(1, size);
        let bytes = fs::read(cluster.data_dir().join("pg_wal").join(name)).unwrap();
        let from = at.segment_offset(size) as usize;
        let left = end.distance_from(at).unwrap() as usize;
        wal.extend(&bytes[from..bytes.len().min(from + left)]);
        at = begin.checked_add(wal.len() as u64).unwrap();
    }
    wal
}

criterion_group!(benches, ingest);
criterion_main!(benches);
