//! A server that crashed in the middle of a record gives it up and goes on: the decoder follows.

#![allow(clippy::unwrap_used)]

use std::fs;

use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};
use postgres_formats::wal::{
    DecodedRecord, WalDecodeErrorKind, WalRecord, WalStreamDecoder, reassemble,
};
use postgres_formats::{Lsn, wal};
use postgres_testing::{Cluster, give_to_account, text};

/// The first WAL segment, where everything here happens, and the decoder's view of it.
fn decode(cluster: &Cluster) -> (Vec<u8>, Vec<WalRecord>) {
    let control = control_file(cluster);
    let path = cluster.wal_segments().remove(0);
    let bytes = fs::read(path).unwrap();
    let start = Lsn::new(control.xlog_seg_size.bytes());
    let mut decoder =
        WalStreamDecoder::new(start, control.xlog_seg_size, Some(control.system_identifier));
    decoder.feed(start, &bytes).unwrap();
    let mut records = Vec::new();
    loop {
        match decoder.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => break,
            Err(error) => {
                assert!(error.is_end_of_wal(), "{error}");
                break;
            }
        }
    }
    (bytes, records)
}

#[test]
fn a_record_lost_in_a_crash_is_passed_over() {
    let mut cluster = Cluster::init("autovacuum = off\nwal_level = logical");
    cluster.start();
    cluster.sql("create table t (i int); checkpoint");
    cluster.sql("select pg_logical_emit_message(true, 'x', repeat('0123456789', 10000))");
    let data = cluster.data_dir();
    cluster.run("pg_ctl", &["-w", "-s", "-m", "immediate", "-D", text(&data), "stop"]);

    // Two pages of the record reached the disk, and nothing behind them.
    let (mut bytes, records) = decode(&cluster);
    let message = records.iter().find(|record| record.bytes.len() > 100_000).unwrap();
    let size = control_file(&cluster).xlog_seg_size;
    let cut = message.start.page_start().saturating_add(2 * 8192);
    bytes[cut.segment_offset(size) as usize..].fill(0);
    let path = cluster.wal_segments().remove(0);
    fs::write(&path, &bytes).unwrap();
    give_to_account(&path);
    let (_, before_crash) = decode(&cluster);
    assert!(before_crash.iter().all(|record| record.start < message.start));

    cluster.start();
    cluster.sql("insert into t values (1)");
    cluster.stop();

    let (bytes, records) = decode(&cluster);
    assert_eq!(records[..before_crash.len()], before_crash);
    let note = &records[before_crash.len()];
    assert_eq!(note.start, cut.normalized(size));
    let note = DecodedRecord::parse(&note.bytes).unwrap();
    assert_eq!((note.header.rmid, note.header.info), (0, 0xD0));
    assert_eq!(note.header.prev, before_crash.last().unwrap().start);
    assert_eq!(note.main_data[..8], message.start.as_u64().to_le_bytes());
    assert_eq!(records.last().unwrap().start, control_file(&cluster).check_point);

    let again =
        reassemble(message.start, &bytes[message.start.segment_offset(size) as usize..], size);
    let kind = WalDecodeErrorKind::Overwritten { at: cut };
    assert_eq!(again, Err(wal::WalDecodeError { lsn: message.start, kind }));
}

fn control_file(cluster: &Cluster) -> ControlFile {
    ControlFile::decode(&fs::read(cluster.data_dir().join(CONTROL_FILE_PATH)).unwrap()).unwrap()
}
