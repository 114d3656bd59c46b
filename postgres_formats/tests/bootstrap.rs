//! A stock server starts, without recovery, from WAL and a control file that we made: at the end
//! of its own WAL and at every awkward position there is, one after the other on the same data.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use postgres_formats::Lsn;
use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::wal::synth::{bootstrap_wal, shutdown_checkpoint};
use postgres_formats::wal::{WalRecord, WalStreamDecoder};
use postgres_testing::{Cluster, give_to_account, text};

/// Bytes that the checkpoint record takes, alignment included.
const RECORD: u64 = 120;

#[test]
fn a_server_starts_from_made_wal_at_any_position() {
    let mut cluster = Cluster::init("autovacuum = off\nwal_keep_size = '1GB'");
    cluster.start();
    cluster.sql("create table t as select 0 i");
    cluster.stop();
    let control = control_file(&cluster);
    let seg_size = control.xlog_seg_size;

    // Right behind the server's own last record.
    let (mut prev, mut end) = last_record(&cluster, control.check_point);
    assert_eq!(prev, control.check_point);
    for (rows, place) in (1..).zip(PLACES) {
        let base = place(end, seg_size);
        assert!(base >= end && base == base.normalized(seg_size), "{base} {end}");
        replace_wal(&cluster, base, prev);
        fs::remove_file(cluster.dir().join("log")).unwrap();
        cluster.start();
        assert_eq!(cluster.sql("select count(*) from t"), rows.to_string());
        cluster.sql("insert into t select max(i) + 1 from t");
        // Over the end of the page at least.
        cluster.sql("insert into t select -1 from generate_series(1, 300)");
        cluster.sql("delete from t where i = -1");
        cluster.sql("vacuum t");
        cluster.stop();
        let log = cluster.log();
        assert!(log.contains("database system was shut down at"), "{log}");
        assert!(!log.contains("recovery") && !log.contains("redo starts"), "{log}");

        let records = decode_from(&cluster, base);
        assert_eq!(records[0].start, base);
        assert!(records.len() > 300);
        compare_with_waldump(&cluster, base, &records);
        (prev, end) = last_record(&cluster, base);
    }
}

type Place = fn(Lsn, WalSegmentSize) -> Lsn;

/// Where to begin next, given the end of the WAL so far.
const PLACES: [Place; 10] = [
    // At the end: in the middle of a page and of a segment.
    |end, _| end,
    // At the beginning of a segment.
    |end, size| next_segment(end, size).normalized(size),
    // On a segment's first page.
    |end, size| next_segment(end, size).saturating_add(1000),
    // At the beginning of a page inside a segment.
    |end, size| next_page(end).saturating_add(5 * 8192).normalized(size),
    // So that the record goes on on the next page.
    |end, _| next_page(end).saturating_add(8192 - 64),
    // With only the record's length left on the page.
    |end, _| next_page(end).saturating_add(8192 - 8),
    // So that the record ends with the page.
    |end, _| next_page(end).saturating_add(8192 - RECORD),
    // So that the record goes on in the next segment.
    |end, size| Lsn::new(next_segment(end, size).as_u64() - 64),
    |end, size| Lsn::new(next_segment(end, size).as_u64() - 8),
    // So that the record ends with the segment.
    |end, size| Lsn::new(next_segment(end, size).as_u64() - RECORD),
];

fn next_page(lsn: Lsn) -> Lsn {
    lsn.page_start().saturating_add(8192)
}

fn next_segment(lsn: Lsn, size: WalSegmentSize) -> Lsn {
    let next = lsn.segment(size).0 + 1;
    Lsn::new(next * size.bytes())
}

/// Replaces all WAL and the control file with what we make for `base`.
fn replace_wal(cluster: &Cluster, base: Lsn, prev: Lsn) {
    let mut control = control_file(cluster);
    let (system, size) = (control.system_identifier, control.xlog_seg_size);
    let wal_dir = cluster.data_dir().join("pg_wal");
    for path in cluster.wal_segments() {
        fs::remove_file(path).unwrap();
    }
    let state = control.check_point_copy;
    for (number, bytes) in bootstrap_wal(base, prev, &state, system, 1, size) {
        write(&wal_dir.join(number.file_name(1, size)), &bytes);
    }
    control.set_shut_down(base, shutdown_checkpoint(base, 1, &state));
    write(&cluster.data_dir().join(CONTROL_FILE_PATH), &control.encode());
}

/// Decodes all WAL from `start` on.
fn decode_from(cluster: &Cluster, start: Lsn) -> Vec<WalRecord> {
    let control = control_file(cluster);
    let size = control.xlog_seg_size;
    let mut decoder = WalStreamDecoder::new(start, size, Some(control.system_identifier));
    let mut records = Vec::new();
    loop {
        match decoder.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {
                let at = decoder.expected_lsn();
                let name = at.segment(size).file_name(1, size);
                let Ok(bytes) = fs::read(cluster.data_dir().join("pg_wal").join(name)) else {
                    break;
                };
                decoder.feed(at, &bytes[at.segment_offset(size) as usize..]).unwrap();
            }
            Err(error) => {
                assert!(error.is_end_of_wal(), "{error}");
                break;
            }
        }
    }
    records
}

/// Start of the last record and where the next one would begin.
fn last_record(cluster: &Cluster, from: Lsn) -> (Lsn, Lsn) {
    let records = decode_from(cluster, from);
    let last = records.last().unwrap();
    (last.start, last.end.normalized(control_file(cluster).xlog_seg_size))
}

/// pg_waldump finds the same records: from the base on, and from the segment's beginning on.
fn compare_with_waldump(cluster: &Cluster, base: Lsn, records: &[WalRecord]) {
    let size = control_file(cluster).xlog_seg_size;
    let wal_dir = cluster.data_dir().join("pg_wal");
    let first = base.segment(size).file_name(1, size);
    let last = records.last().unwrap().start.segment(size).file_name(1, size);
    let expected: Vec<Lsn> = records.iter().map(|record| record.start).collect();
    for args in [
        &["-p", text(&wal_dir), "-s", &base.to_string()][..],
        &["-p", text(&wal_dir), &first, &last],
    ] {
        // It fails at the end, where there is no further record.
        let dump = cluster.try_run("pg_waldump", args);
        let text = String::from_utf8_lossy(&dump.stdout);
        let starts: Vec<Lsn> = text
            .lines()
            .map(|line| line.split_once("lsn: ").unwrap().1.split_once(',').unwrap().0)
            .map(|lsn| lsn.parse().unwrap())
            .collect();
        assert_eq!(starts, expected, "{args:?}: {}", String::from_utf8_lossy(&dump.stderr));
    }
}

fn control_file(cluster: &Cluster) -> ControlFile {
    ControlFile::decode(&fs::read(cluster.data_dir().join(CONTROL_FILE_PATH)).unwrap()).unwrap()
}

/// Writes a file that the server can read.
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    give_to_account(path);
}
