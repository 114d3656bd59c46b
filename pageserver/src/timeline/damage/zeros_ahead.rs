//! Zeros behind the end of WAL, as they are while commits wait: what a page server leaves that is killed, and
//! what damage looks like there.

use std::fs;

use postgres_formats::Lsn;

use super::sample::Sample;
use crate::stop::StopKind;
use crate::timeline::Timeline;

/// Records around the end of a segment, some over several pages.
fn small() -> Sample {
    let mut sample = Sample::new(704);
    for (content, len) in [(1, 50), (2, 200), (3, 300), (4, 100), (5, 30)] {
        sample.write_page(content, len);
        sample.write_noop(40);
    }
    sample.write_noop(20_000);
    sample.write_page(6, 200);
    sample
}

/// Gives `bytes` as to a server whose commits wait, in pieces.
fn give_awaited(timeline: &Timeline, mut at: Lsn, bytes: &[u8], piece: usize) {
    timeline.commits_wait(true);
    for piece in bytes.chunks(piece) {
        timeline.receive_wal(at, piece).unwrap();
        timeline.sync_wal().unwrap();
        at = at.saturating_add(piece.len() as u64);
    }
}

/// How many bytes are behind `end` in its file; all of them are zeros.
fn zeros_behind(sample: &Sample, end: Lsn) -> usize {
    let (path, at) = sample.place(end);
    let file = fs::read(path).unwrap_or_default();
    let behind = file.get(at..).unwrap_or_default();
    assert!(behind.iter().all(|byte| *byte == 0));
    behind.len()
}

#[test]
fn a_kill_at_any_byte_leaves_all_that_came() {
    let sample = small();
    let bytes = sample.wal_from(sample.start).to_vec();
    let wal = sample.dir.path().join("wal");
    let mut with_zeros = 0;
    for upto in (1..3000).chain((3000..bytes.len()).step_by(501)) {
        let end = sample.start.saturating_add(upto as u64);
        let timeline = sample.open();
        let from = timeline.restart_receiving().unwrap();
        give_awaited(&timeline, from, &bytes[..upto], [400, 150, 1000][upto % 3]);
        assert_eq!(timeline.positions().received, end);
        let good = timeline.last_record_lsn();
        // Of a record that is whole padding may be missing.
        let missing = good.distance_from(end).map_or(0, |missing| missing as usize);
        assert!(bytes[upto..upto + missing].iter().all(|byte| *byte == 0));
        assert_eq!(good, sample.good_before(end.saturating_add(missing as u64)));
        drop(timeline);
        with_zeros += usize::from(zeros_behind(&sample, end) > 0);
        // As at the next start.
        let timeline = sample.open();
        assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, good), "{end}");
        let from = timeline.restart_receiving().unwrap();
        assert_eq!(from.normalized(timeline.cluster().segment_size), good);
        assert_eq!(zeros_behind(&sample, from), 0, "{end}");
        if upto % 10 == 0 {
            give_awaited(&timeline, from, sample.wal_from(from), 700);
            timeline.commits_wait(false);
            assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
            assert_eq!(zeros_behind(&sample, sample.end()), 0);
        }
        fs::remove_dir_all(&wal).unwrap();
        fs::create_dir(&wal).unwrap();
    }
    assert!(with_zeros > 2000, "{with_zeros}");
}

#[test]
fn zeros_in_place_of_what_was_durable_are_damage() {
    let sample = small();
    let timeline = sample.open();
    let from = timeline.restart_receiving().unwrap();
    give_awaited(&timeline, from, sample.wal_from(from), 300);
    drop(timeline);
    let end = sample.end();
    assert!(zeros_behind(&sample, end) > 0);
    let whole = sample.files();
    let (path, behind) = sample.place(end);
    let good = fs::read(&path).unwrap();
    let length = good.len();
    // A hole of a few bytes, of a page, and all to the end, as if zeros went on from there.
    for (at, to) in [
        (100, 108),
        (8192, 16_384),
        (behind - 150, behind - 90),
        (behind - 8, length),
        (40, length),
    ] {
        let mut bad = good.clone();
        bad[at..to].fill(0);
        assert!(bad != good);
        fs::write(&path, &bad).unwrap();
        let timeline = sample.open();
        let stop = timeline.stop().expect("a stop");
        assert_eq!((stop.kind, stop.lsn), (StopKind::Damaged, timeline.last_record_lsn()));
        assert!(stop.lsn < end && stop.to_string().contains("though it was durable"), "{stop}");
        timeline.restart_receiving().unwrap();
        assert_eq!(fs::read(&path).unwrap(), bad, "nothing is changed");
        // It is sent again.
        let from = timeline.restart_receiving().unwrap();
        give_awaited(&timeline, from, sample.wal_from(from), 300);
        timeline.commits_wait(false);
        assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, end));
        assert_eq!(zeros_behind(&sample, end), 0);
        drop(timeline);
        let wal = sample.dir.path().join("wal");
        fs::remove_dir_all(&wal).unwrap();
        fs::create_dir(&wal).unwrap();
        for (name, content) in &whole {
            fs::write(wal.join(name), content).unwrap();
        }
    }
}

#[test]
fn a_failed_sync_of_zeros_is_made_good() {
    let sample = small();
    let timeline = sample.open();
    let from = timeline.restart_receiving().unwrap();
    let bytes = sample.wal_from(from);
    give_awaited(&timeline, from, &bytes[..2000], 300);
    let at = from.saturating_add(2000);
    timeline.receive_wal(at, &bytes[2000..2500]).unwrap();
    timeline.wal.fail_next_sync();
    timeline.sync_wal().unwrap_err();
    let from = timeline.restart_receiving().unwrap();
    assert_eq!(zeros_behind(&sample, from), 0, "they are not known to be durable");
    give_awaited(&timeline, from, sample.wal_from(from), 300);
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
    drop(timeline);
    let timeline = sample.open();
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
}
