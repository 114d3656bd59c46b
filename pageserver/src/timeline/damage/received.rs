//! WAL that is bad when it is received.

use std::time::Duration;

use postgres_formats::Lsn;
use postgres_formats::wal::{WalWriter, rmgr};

use super::sample::{Sample, files_in, origin, page};
use crate::seqwait::WaitError;
use crate::stop::{Place, StopKind};
use crate::timeline::{IngestError, Timeline};

fn small() -> Sample {
    let mut sample = Sample::new(704);
    for (content, len) in [(1, 50), (2, 200), (3, 300), (4, 100)] {
        sample.write_page(content, len);
    }
    sample.write_noop(9000);
    sample
}

/// Gives the timeline `bytes` in pieces, as far as it takes them.
fn give(timeline: &Timeline, bytes: &[u8], piece: usize) -> Result<(), IngestError> {
    let mut at = timeline.restart_receiving()?;
    for part in bytes.chunks(piece) {
        timeline.receive_wal(at, part)?;
        timeline.sync_wal()?;
        at = at.saturating_add(part.len() as u64);
    }
    Ok(())
}

#[test]
fn a_flipped_bit_is_not_kept_and_the_good_one_is_taken() {
    let mut sample = small();
    // Stands where a length that was flipped still ends somewhere.
    sample.write_noop(9000);
    let end = sample.ends[sample.ends.len() - 2];
    let bytes = sample.wal_from(sample.start).to_vec();
    let before_last = end.distance_from(sample.start).unwrap() as usize;
    // What there is of every kind is in the first part, and some of the rest of a long record.
    let places = (0..1500).step_by(3).chain((1500..before_last).step_by(500));
    for (number, at) in places.enumerate() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (number % 8);
        let lsn = sample.start.saturating_add(at as u64);
        let timeline = sample.open();
        let taken = give(&timeline, &bad, [13, 500, 100_000][number % 3]);
        let good = sample.good_before(lsn);
        let last = timeline.last_record_lsn();
        if taken.is_ok() && last < end {
            // A record said to be longer than all there is: nothing more is known yet.
            assert_eq!(last, good);
        }
        let positions = timeline.positions();
        assert!(positions.durable <= last, "{lsn}");
        if let Err(error) = &taken {
            assert_eq!(last, good, "{lsn}: {error}");
            let stop = timeline.stop().unwrap();
            assert_eq!((stop.lsn, stop.place), (good, Place::Received), "{lsn}");
            assert!(matches!(stop.kind, StopKind::Damaged | StopKind::Foreign), "{stop}");
            // Nothing of it is left, even if the process ends here.
            let raw: Vec<u8> = files_in(&sample.dir.path().join("wal"))
                .into_iter()
                .filter(|(name, _)| name != "flushed")
                .flat_map(|(number, file)| match number.ends_with('1') {
                    true => file[sample.place(sample.start).1..].to_vec(),
                    false => file,
                })
                .collect();
            assert!(bytes.starts_with(&raw), "{lsn}");
            let pages = sample.pages(&timeline, last);
            drop(timeline);
            let again = sample.open();
            assert_eq!((again.stop(), again.last_record_lsn()), (None, good), "{lsn}");
            assert!(sample.pages(&again, good) == pages);
            again.restart_receiving().unwrap();
            assert!(
                give(&again, &bad[good.distance_from(sample.start).unwrap() as usize..], 300)
                    .is_err()
                    || again.last_record_lsn() == good
            );
            sample.give(&again);
            assert_eq!((again.stop(), again.last_record_lsn()), (None, sample.end()));
        } else {
            sample.give(&timeline);
            assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
        }
        // The next one begins from nothing again.
        let wal = sample.dir.path().join("wal");
        std::fs::remove_dir_all(&wal).unwrap();
        std::fs::create_dir(&wal).unwrap();
    }
}

#[test]
fn gaps_foreign_segments_and_other_timelines() {
    let sample = small();
    let end = sample.end();
    let timeline = sample.open();
    let from = timeline.restart_receiving().unwrap();
    let error = timeline.receive_wal(from.saturating_add(8), sample.wal_from(from)).unwrap_err();
    assert!(matches!(error, IngestError::Gap { .. }));
    assert_eq!(timeline.stop().unwrap().kind, StopKind::Missing);
    let waited = timeline.wait_lsn(end, Duration::from_secs(60)).unwrap_err();
    let WaitError::Stopped { stop, .. } = &waited else { panic!("{waited}") };
    assert_eq!(stop.lsn, sample.start);

    for (tli, system_id) in [(2, 7), (1, 8)] {
        let mut other = WalWriter::new(
            sample.start,
            sample.manifest().state.prev_record,
            origin(tli, system_id),
        );
        let (writer, mine) = (small().writer, sample.writer.bytes().len());
        // The same records on pages of another origin.
        let mut sample_of_other = small();
        sample_of_other.writer = writer;
        std::mem::swap(&mut sample_of_other.writer, &mut other);
        for (content, len) in [(1, 50), (2, 200), (3, 300), (4, 100)] {
            sample_of_other.write_page(content, len);
        }
        let bytes = sample_of_other.writer.bytes();
        assert!(bytes.len() <= mine);
        let from = timeline.restart_receiving().unwrap();
        let skip = from.distance_from(sample.start).unwrap() as usize;
        let error = timeline.receive_wal(from, &bytes[skip..]).unwrap_err();
        assert_eq!(error.stop_kind(), StopKind::Foreign, "{error}");
        let stop = timeline.stop().unwrap();
        assert_eq!((stop.kind, stop.place), (StopKind::Foreign, Place::Received));
        assert!(stop.lsn.segment(origin(1, 7).seg_size).0 == 1, "before the segment's header");
    }
    sample.give(&timeline);
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, end));
}

#[test]
fn a_record_that_is_not_understood_waits_for_one_who_does() {
    let mut sample = small();
    let good = sample.end();
    sample.write_nonsense();
    let bytes = sample.wal_from(sample.start).to_vec();
    let timeline = sample.open();
    let error = give(&timeline, &bytes, 1000).unwrap_err();
    assert_eq!(error.stop_kind(), StopKind::NotUnderstood);
    assert_eq!(timeline.stop().unwrap().lsn, good);
    drop(timeline);
    // It is asked for again after a restart, by a program that may know it.
    let timeline = sample.open();
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, good));
    // One that was kept by an earlier program is left alone.
    let wal =
        crate::wal::store::WalStore::new(sample.dir.path().join("wal"), origin(1, 7).seg_size, 1);
    wal.write(good, sample.wal_from(good)).unwrap();
    let files = sample.files();
    let timeline = sample.open();
    let stop = timeline.stop().unwrap();
    assert_eq!((stop.lsn, stop.kind, stop.place), (good, StopKind::NotUnderstood, Place::OnDisk));
    assert!(timeline.restart_receiving().is_err());
    assert_eq!(sample.files(), files);
}

#[test]
fn a_record_of_an_unknown_kind_is_named_and_nothing_behind_it_is_taken() {
    for (rmid, info, name) in
        [(200, 0x10, "resource manager 200 record 0x10"), (rmgr::CLOG, 0x50, "CLOG record 0x50")]
    {
        let mut sample = small();
        let good = sample.end();
        sample.write_empty(rmid, info);
        sample.write_page(0x77, 100);
        let bytes = sample.wal_from(sample.start).to_vec();
        let timeline = sample.open();
        give(&timeline, &bytes, bytes.len()).unwrap_err();
        let stop = timeline.stop().unwrap();
        assert_eq!((stop.lsn, stop.kind, stop.state()), (good, StopKind::NotUnderstood, "stopped"));
        assert!(stop.text().contains(&format!("{name} at {good}")), "{stop}");
        // What came before is readable, durable and acknowledged, and no more than that.
        assert!(sample.pages(&timeline, good).iter().all(Option::is_some));
        assert_eq!(page(&timeline, sample.end()), None);
        assert_eq!(timeline.sync_wal().unwrap(), good);
        assert_eq!(timeline.restart_receiving().unwrap(), good);
    }
}

#[test]
fn a_server_without_more_wal_ends_a_stop() {
    let sample = small();
    let timeline = sample.open();
    let half = sample.ends[2].distance_from(sample.start).unwrap() as usize;
    let mut bytes = sample.wal_from(sample.start)[..half].to_vec();
    bytes.extend_from_slice(&[0xEE; 100]);
    assert!(give(&timeline, &bytes, 1 << 20).is_err());
    timeline.source_ends_at(sample.end());
    assert!(timeline.stop().is_some());
    timeline.source_ends_at(sample.ends[2]);
    assert_eq!(timeline.stop(), None);
    assert!(give(&timeline, &[0xEE; 100], 1 << 20).is_err());
    timeline.source_is_gone();
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.ends[2]));
    assert!(timeline.wait_lsn(Lsn::new(1), Duration::ZERO).is_ok());
}
