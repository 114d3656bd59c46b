//! The decoders against a real PostgreSQL 15: everything that `pg_waldump` says about the WAL of a
//! varied workload must come out the same, and files on disk must verify.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};
use postgres_formats::lsn::SegmentNumber;
use postgres_formats::page_checksum::verify;
use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, parse_relation_path, relation_path};
use postgres_formats::wal::{
    DecodedRecord, ImageCompression, Reassembled, WalRecord, WalStreamDecoder, reassemble, rmgr,
};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, PageImage, RelTag};
use postgres_testing::{Cluster, text};

/// Every kind of index, a little of everything else that makes peculiar records.
const WORKLOAD: &str = "
    create table t (id int primary key, a int, b text, p point);
    insert into t select i, i % 100, repeat(md5(i::text), 3), point(i, i % 77)
        from generate_series(1, 10000) i;
    create index on t using hash (a);
    create index on t using gist (p);
    create index on t using spgist (p);
    create index on t using brin (id);
    create index on t using gin (string_to_array(b, 'a'));
    update t set b = b || 'x' where id % 7 = 0;
    delete from t where id % 11 = 0;
    vacuum t;
    select pg_switch_wal();
    select count(length(pg_logical_emit_message(false, 'big', repeat('0123456789', 1700000))::text));
    create table dropped (i int);
    insert into dropped values (1);
    drop table dropped;
    begin; insert into t values (-1); savepoint s; insert into t values (-2); rollback to s; commit;
    create database copied template template0 strategy file_copy;
";

#[test]
fn everything_a_server_writes_is_read_as_postgresql_reads_it() {
    let mut cluster = Cluster::init(
        "wal_level = logical\nwal_keep_size = '4GB'\nmax_wal_size = '4GB'\nautovacuum = off",
    );
    cluster.start();
    for statement in WORKLOAD.split(";\n") {
        cluster.sql(statement);
    }
    cluster.pgbench(&["-i", "-q"]);
    cluster.pgbench(&["-c", "2", "-t", "300", "-n"]);
    for method in ["off", "pglz", "lz4", "zstd"] {
        cluster.sql(&format!("alter system set wal_compression = {method}"));
        cluster.sql("select pg_reload_conf()");
        // A new session, for the setting to be in force. The index is logged as page images and
        // not touched again.
        cluster.sql(&format!("create index image_{method} on t (b, id)"));
        cluster.sql("checkpoint");
        cluster.sql("update pgbench_accounts set abalance = abalance + 1 where aid % 50 = 0");
    }
    let indexes =
        cluster.sql("select relfilenode from pg_class where relname like 'image_%' order by oid");
    let indexes: Vec<u32> = indexes.lines().map(|line| line.parse().unwrap()).collect();
    cluster.stop();

    let records = decode_wal(&cluster);
    compare_with_waldump(&cluster, &records);
    read_each_record_again(&cluster, &records);
    compare_restored_images(&cluster, &records, &indexes);
    verify_every_page(&cluster.data_dir());
    check_control_file(&cluster);
}

/// All WAL of the cluster in one piece.
fn read_wal(cluster: &Cluster) -> (Lsn, Vec<u8>) {
    let control = control_file(cluster);
    let mut wal = Vec::new();
    let first = SegmentNumber(1);
    for number in first.0.. {
        let name = SegmentNumber(number).file_name(1, control.xlog_seg_size);
        match fs::read(cluster.data_dir().join("pg_wal").join(name)) {
            Ok(bytes) => wal.extend(bytes),
            Err(_) => break,
        }
    }
    (first.start(control.xlog_seg_size), wal)
}

fn decode_wal(cluster: &Cluster) -> Vec<WalRecord> {
    let control = control_file(cluster);
    let (start, wal) = read_wal(cluster);
    let mut decoder =
        WalStreamDecoder::new(start, control.xlog_seg_size, Some(control.system_identifier));
    let mut records = Vec::new();
    'wal: for piece in wal.chunks(128 * 1024) {
        decoder.feed(decoder.expected_lsn(), piece).unwrap();
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.is_end_of_wal(), "{error}");
                    break 'wal;
                }
            }
        }
    }
    // The last record is the checkpoint of the shutdown.
    assert_eq!(records.last().unwrap().start, control.check_point);
    assert!(records.iter().any(|record| record.bytes.len() > 16 << 20), "no long record");
    records
}

fn compare_with_waldump(cluster: &Cluster, records: &[WalRecord]) {
    let control = control_file(cluster);
    let wal_dir = cluster.data_dir().join("pg_wal");
    let last = records.last().unwrap().start.segment(control.xlog_seg_size);
    let last = last.file_name(1, control.xlog_seg_size);
    let first = SegmentNumber(1).file_name(1, control.xlog_seg_size);
    // At the end of the WAL it reports that there is no further record, and fails.
    let dump = cluster.try_run("pg_waldump", &["-p", text(&wal_dir), &first, &last]);
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    let mut expected_start = None;
    let mut lines = dump.lines();
    for record in records {
        let line = lines.next().unwrap();
        let decoded = DecodedRecord::parse(&record.bytes).unwrap();
        let header = decoded.header;
        let field = |name: &str| {
            let rest = line.split_once(name).unwrap().1;
            rest.trim_start().split([',', ' ']).next().unwrap()
        };
        let padded = |lsn: Lsn| format!("{:X}/{:08X}", lsn.as_u64() >> 32, lsn.as_u64() as u32);
        assert_eq!(field("rmgr: "), rmgr::name(header.rmid).unwrap(), "{line}");
        assert_eq!(field("lsn: "), padded(record.start), "{line}");
        assert_eq!(field("prev "), padded(header.prev), "{line}");
        assert_eq!(field("tx: "), header.xid.to_string(), "{line}");
        let total = line.split_once("len (rec/tot):").unwrap().1.split_once('/').unwrap().1;
        let total = total.split_once(',').unwrap().0.trim();
        assert_eq!(total, record.bytes.len().to_string(), "{line}");
        assert!(line.ends_with(&block_references(&decoded)), "{decoded:?}\n{line}");
        assert_eq!(*expected_start.get_or_insert(record.start), record.start);
        expected_start = Some(record.end.normalized(control.xlog_seg_size));
    }
    assert_eq!(lines.next(), None);
    assert!(records.len() > 20_000, "{} records", records.len());
}

/// The end of pg_waldump's line about a record.
fn block_references(decoded: &DecodedRecord) -> String {
    let mut text = String::new();
    for block in &decoded.blocks {
        write!(text, ", blkref #{}: rel {}", block.id, block.rel.locator()).unwrap();
        if block.rel.fork != ForkNumber::Main {
            write!(text, " fork {}", block.rel.fork).unwrap();
        }
        write!(text, " blk {}", block.block).unwrap();
        match &block.image {
            None => {}
            Some(image) if image.apply => text.push_str(" FPW"),
            Some(_) => text.push_str(" FPW for WAL verification"),
        }
    }
    text
}

fn read_each_record_again(cluster: &Cluster, records: &[WalRecord]) {
    let seg_size = control_file(cluster).xlog_seg_size;
    let (start, wal) = read_wal(cluster);
    for record in records.iter().step_by(7).chain(records.iter().max_by_key(|r| r.bytes.len())) {
        let at = record.start.distance_from(start).unwrap() as usize;
        let mut len = 100;
        loop {
            match reassemble(record.start, &wal[at..at + len], seg_size).unwrap() {
                Reassembled::NeedMore(more) => len = more,
                Reassembled::Complete(again) => {
                    assert_eq!(&again, record);
                    break;
                }
            }
        }
    }
}

/// The pages of these indexes were only ever written as images, one compression method each: what
/// the images give must be what is on disk.
fn compare_restored_images(cluster: &Cluster, records: &[WalRecord], indexes: &[u32]) {
    let mut restored: HashMap<(RelTag, BlockNumber), (ImageCompression, PageImage)> =
        HashMap::new();
    let mut images = 0;
    for record in records {
        for block in DecodedRecord::parse(&record.bytes).unwrap().blocks {
            if let Some(image) = &block.image {
                let page = image.restore(record.end).unwrap();
                images += 1;
                if indexes.contains(&block.rel.rel.0) {
                    restored.insert((block.rel, block.block), (image.compression, page));
                }
            }
        }
    }
    assert!(images > 1000, "{images} images");
    let mut compared = HashMap::new();
    for ((rel, block), (compression, mut page)) in restored {
        let file = cluster.data_dir().join(relation_path(rel, 0));
        let on_disk = fs::read(file).unwrap();
        let at = block.0 as usize * BLCKSZ;
        let mut on_disk = PageImage::from_slice(&on_disk[at..at + BLCKSZ]).unwrap();
        // Building the page left remains in its unused middle, which are not logged.
        let lower = usize::from(u16::from_le_bytes([page[12], page[13]]));
        let upper = usize::from(u16::from_le_bytes([page[14], page[15]]));
        on_disk[lower..upper].fill(0);
        // The checksum is made when the page is written.
        page[8..10].copy_from_slice(&on_disk[8..10]);
        if page == on_disk {
            *compared.entry(format!("{compression:?}")).or_insert(0) += 1;
        } else {
            assert!(on_disk.lsn() > page.lsn(), "{rel} block {block} differs");
        }
    }
    for method in ["None", "Pglz", "Lz4", "Zstd"] {
        let pages = compared.get(method).copied().unwrap_or(0);
        assert!(pages > 50, "{pages} pages with {method}");
    }
}

fn verify_every_page(data: &Path) {
    let mut folders = vec![PathBuf::from("global")];
    for entry in fs::read_dir(data.join("base")).unwrap() {
        folders.push(Path::new("base").join(entry.unwrap().file_name()));
    }
    let (mut files, mut pages) = (0, 0);
    for folder in folders {
        for entry in fs::read_dir(data.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let Ok(file) = parse_relation_path(text(&path)) else { continue };
            assert_eq!(file.path(), text(&path));
            files += 1;
            let bytes = fs::read(data.join(&path)).unwrap();
            for (number, page) in bytes.chunks(BLCKSZ).enumerate() {
                let block = BlockNumber(file.segment * BLOCKS_PER_SEGMENT + number as u32);
                verify(&PageImage::from_slice(page).unwrap(), block).unwrap();
                pages += 1;
            }
        }
    }
    assert!(files > 900 && pages > 5000, "{files} files, {pages} pages");
}

fn check_control_file(cluster: &Cluster) {
    let bytes = fs::read(cluster.data_dir().join(CONTROL_FILE_PATH)).unwrap();
    let mut control = ControlFile::decode(&bytes).unwrap();
    assert_eq!(control.encode(), bytes);
    let data = cluster.data_dir();
    let said = cluster.run("pg_controldata", &[text(&data)]);
    let said: HashMap<&str, &str> =
        said.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
    let copy = control.check_point_copy;
    for (name, value) in [
        ("Database system identifier", control.system_identifier.to_string()),
        ("Database cluster state", "shut down".to_owned()),
        ("Latest checkpoint location", control.check_point.to_string()),
        ("Latest checkpoint's REDO location", copy.redo.to_string()),
        ("Latest checkpoint's NextXID", copy_next_xid(&control)),
        ("Latest checkpoint's NextOID", copy.next_oid.to_string()),
        ("Latest checkpoint's NextMultiXactId", copy.next_multi.to_string()),
        ("Latest checkpoint's oldestXID", copy.oldest_xid.to_string()),
        ("Latest checkpoint's oldestXID's DB", copy.oldest_xid_db.to_string()),
        ("Latest checkpoint's oldestMultiXid", copy.oldest_multi.to_string()),
        ("wal_level setting", "logical".to_owned()),
        ("max_connections setting", control.parameters.max_connections.to_string()),
        ("max_locks_per_xact setting", control.parameters.max_locks_per_xact.to_string()),
        ("Bytes per WAL segment", control.xlog_seg_size.bytes().to_string()),
        ("Data page checksum version", control.data_checksum_version.to_string()),
    ] {
        assert_eq!(said.get(name), Some(&value.as_str()), "{name}");
    }
    // A file of our own making is accepted too.
    let made = ControlFile::for_new_cluster(control.system_identifier);
    control.set_shut_down(control.check_point, copy);
    assert_eq!(control.encode()[204..252], made.encode()[204..252]);
    assert_eq!(Bytes::from(control.encode()), Bytes::from(bytes));
}

fn copy_next_xid(control: &ControlFile) -> String {
    let next = control.check_point_copy.next_xid;
    format!("{}:{}", next.epoch(), next.xid())
}

fn control_file(cluster: &Cluster) -> ControlFile {
    ControlFile::decode(&fs::read(cluster.data_dir().join(CONTROL_FILE_PATH)).unwrap()).unwrap()
}
