//! WAL that is damaged on disk and that the server still has; WAL that could not be synced.

use std::fs;

use super::sample::Sample;
use crate::stop::StopKind;
use crate::timeline::IngestError;

fn long() -> Sample {
    let mut sample = Sample::new(20_000);
    for content in 1..=20 {
        sample.write_page(content, 100);
        sample.write_noop(100_000);
    }
    sample
}

#[test]
fn what_the_server_sends_again_takes_the_place_of_the_damage() {
    let sample = long().on_disk();
    let end = sample.end();
    let pages = sample.pages(&sample.open(), end);
    let whole = sample.files();
    let path = sample.segment(2);
    let mut bad = fs::read(&path).unwrap();
    bad[500_000] ^= 1;
    fs::write(&path, &bad).unwrap();
    let damaged = sample.files();

    let timeline = sample.open();
    let stop = timeline.stop().unwrap().lsn;
    let from = timeline.restart_receiving().unwrap();
    assert_eq!(from.normalized(timeline.cluster().segment_size), stop);
    let bytes = sample.wal_from(from).to_vec();
    // Not before a whole good record has come is anything changed.
    timeline.receive_wal(from, &bytes[..30]).unwrap();
    assert_eq!(timeline.sync_wal().unwrap(), timeline.flushed_lsn());
    let at = from.saturating_add(30);
    let mut other = bytes[30..5000].to_vec();
    other[10] ^= 1;
    let bad_again = timeline.receive_wal(at, &other).is_err();
    assert!(bad_again || timeline.stop().is_some());
    assert_eq!(sample.files(), damaged);
    assert_eq!(timeline.stop().unwrap().lsn, stop);

    // Half of it, and a crash.
    let from = timeline.restart_receiving().unwrap();
    assert_eq!(sample.files(), damaged);
    timeline.receive_wal(from, &bytes[..250_000]).unwrap();
    timeline.sync_wal().unwrap();
    assert_eq!(timeline.stop(), None);
    let aside: Vec<_> = sample.files().into_iter().filter(|(n, _)| n.contains("aside")).collect();
    assert_eq!(aside.len(), 2, "from the damaged segment on");
    assert!(aside.iter().any(|(_, content)| *content == bad), "the damaged one as it was");
    let reached = timeline.last_record_lsn();
    drop(timeline);
    let timeline = sample.open();
    assert_eq!(timeline.last_record_lsn(), reached);
    // More had been durable, and is not forgotten until it is there again.
    assert_eq!(
        (timeline.stop().unwrap().lsn, timeline.stop().unwrap().kind),
        (reached, StopKind::Missing)
    );
    sample.give(&timeline);
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, end));
    assert!(sample.pages(&timeline, end) == pages);
    drop(timeline);
    let healed: Vec<_> = sample.files().into_iter().filter(|(n, _)| !n.contains("aside")).collect();
    assert_eq!(healed, whole);
    assert_eq!((sample.open().stop(), sample.open().last_record_lsn()), (None, end));
}

#[test]
fn a_missing_segment_is_received_again() {
    let sample = long().on_disk();
    let whole = sample.files();
    for number in [1, 2, 3, 4] {
        let Ok(()) = fs::remove_file(sample.segment(number)) else { continue };
        let timeline = sample.open();
        assert_eq!(timeline.stop().unwrap().kind, StopKind::Missing);
        sample.give(&timeline);
        assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
        drop(timeline);
        let mut files = sample.files();
        for (name, _) in files.extract_if(.., |(name, _)| name.contains("aside")) {
            fs::remove_file(sample.dir.path().join("wal").join(name)).unwrap();
        }
        assert_eq!(files, whole, "{number}");
    }
}

#[test]
fn wal_that_the_server_never_had_is_given_up_only_when_it_says_so() {
    let sample = long().on_disk();
    fs::remove_file(sample.segment(3)).unwrap();
    fs::remove_file(sample.segment(4)).ok();
    let timeline = sample.open();
    let stop = timeline.stop().unwrap();
    timeline.restart_receiving().unwrap();
    // It has not been asked for anything yet that would show that its history is this one.
    timeline.source_ends_at(stop.lsn);
    assert_eq!(timeline.stop(), Some(stop.clone()));
    let from = timeline.restart_receiving().unwrap();
    let next = *sample.ends.iter().find(|end| **end > stop.lsn).unwrap();
    let len = next.distance_from(from).unwrap() as usize;
    timeline.receive_wal(from, &sample.wal_from(from)[..len]).unwrap();
    timeline.sync_wal().unwrap();
    timeline.source_ends_at(next);
    drop(timeline);
    let timeline = sample.open();
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, next));
}

#[test]
fn a_failed_sync_is_made_good() {
    let sample = long();
    let timeline = sample.open();
    let from = timeline.restart_receiving().unwrap();
    let bytes = sample.wal_from(from);
    timeline.receive_wal(from, &bytes[..300_000]).unwrap();
    timeline.sync_wal().unwrap();
    let durable = timeline.positions().durable;
    timeline.receive_wal(from.saturating_add(300_000), &bytes[300_000..900_000]).unwrap();
    timeline.wal.fail_next_sync();
    assert!(matches!(timeline.sync_wal(), Err(IngestError::SyncFailed(_))));
    let stop = timeline.stop().unwrap();
    assert_eq!((stop.kind, stop.lsn), (StopKind::Disk, timeline.last_record_lsn()));
    assert_eq!(timeline.positions().durable, durable);
    let more = timeline.receive_wal(from.saturating_add(900_000), &bytes[900_000..]);
    assert!(matches!(more, Err(IngestError::SyncFailed(_))));
    // What is read back is not what was written: it must not be taken for durable.
    let (path, at) = sample.place(from.saturating_add(500_000));
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[at] ^= 1;
    fs::write(&path, &bad).unwrap();
    assert!(matches!(timeline.restart_receiving(), Err(IngestError::SyncFailed(_))));
    fs::write(&path, &good).unwrap();
    sample.give(&timeline);
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
    assert_eq!(timeline.flushed_lsn(), timeline.positions().received);
}

#[test]
fn a_failed_sync_within_the_unused_rest_of_a_segment_is_made_good() {
    let mut sample = Sample::new(700_000);
    sample.write_page(1, 100);
    let begun = sample.writer.bytes().len();
    sample.write_switch();
    let rest = sample.writer.bytes().len() - begun;
    sample.write_page(2, 100);
    let timeline = sample.open();
    let from = timeline.restart_receiving().unwrap();
    let bytes = sample.wal_from(from).to_vec();
    let (first, second) = (begun + rest / 3, begun + rest / 2);
    timeline.receive_wal(from, &bytes[..first]).unwrap();
    timeline.sync_wal().unwrap();
    timeline.receive_wal(from.saturating_add(first as u64), &bytes[first..second]).unwrap();
    timeline.wal.fail_next_sync();
    timeline.sync_wal().unwrap_err();
    sample.give(&timeline);
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
    drop(timeline);
    let timeline = sample.open();
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
}
