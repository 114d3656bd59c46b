//! WAL that is damaged or missing on disk.

use std::fs;
use std::time::Duration;

use postgres_formats::Lsn;

use super::sample::{SEGMENT_BYTES, Sample, origin, page};
use crate::stop::{Place, StopKind};
use crate::timeline::GetPageError;
use crate::timeline::error::TimelineError;
use crate::timeline::{Needed, Timeline};

/// Records of different sizes around the end of a segment, some over several pages.
fn small() -> Sample {
    let mut sample = Sample::new(704);
    for (content, len) in [(1, 50), (2, 200), (3, 300), (4, 100), (5, 30)] {
        sample.write_page(content, len);
        sample.write_noop(40);
    }
    sample
}

fn stop_of(timeline: &Timeline) -> (Lsn, StopKind) {
    let stop = timeline.stop().expect("a stop");
    assert_eq!(stop.place, Place::OnDisk);
    assert_eq!(stop.lsn, timeline.last_record_lsn());
    (stop.lsn, stop.kind)
}

/// Where bytes may be anything: padding behind records, and in page headers; a flag that tells only
/// backup programs something; the length of a rest where none is.
fn is_checked(sample: &Sample, lsn: Lsn, bit: u8) -> bool {
    let seg_size = origin(1, 7).seg_size;
    let page = lsn.page_start();
    let in_page = lsn.page_offset();
    if in_page < page.page_header_size(seg_size) {
        let goes_on = !sample.ends.contains(&page.normalized(seg_size));
        return match in_page {
            2 => bit & 4 == 0,
            16..20 => goes_on,
            20..24 => false,
            _ => true,
        };
    }
    let bytes = sample.wal_from(lsn);
    let end = sample.ends.iter().find(|end| **end > lsn).unwrap();
    // The last bytes of a record here are never zero, but for its padding.
    let left = end.distance_from(lsn).unwrap() as usize;
    left >= 8 || bytes[..left].iter().any(|byte| *byte != 0)
}

#[test]
fn whatever_byte_is_flipped_everything_before_it_stays_readable() {
    let sample = small().on_disk();
    let end = sample.end();
    let good = sample.open();
    let pages = sample.pages(&good, end);
    assert_eq!(pages.iter().flatten().count(), pages.len(), "every page is there");
    drop(good);
    let mut stops = 0;
    let bytes = sample.wal_from(sample.start).len() as u64;
    for (number, lsn) in (0..bytes).map(|n| sample.start.saturating_add(n)).enumerate() {
        let bit = 1 << (number % 8);
        let (path, at) = sample.place(lsn);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= bit;
        fs::write(&path, &damaged).unwrap();

        let timeline = sample.open();
        let last = timeline.last_record_lsn();
        if is_checked(&sample, lsn, bit) {
            let (stop, kind) = stop_of(&timeline);
            assert_eq!(stop, sample.good_before(lsn), "{lsn}");
            assert!(matches!(kind, StopKind::Damaged | StopKind::Foreign | StopKind::Missing));
            stops += 1;
        }
        let readable = sample.pages(&timeline, last);
        assert!(readable == pages[..readable.len()], "{lsn}");
        assert_eq!(timeline.state_at(last).unwrap().base, last);
        if timeline.stop().is_some() {
            let error = timeline.wait_lsn(end, Duration::from_secs(60)).unwrap_err().to_string();
            assert!(error.contains(&format!("stopped at {last}: ")), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged, "{lsn}: nothing is changed");
        }
        // Mended, it goes on without being opened again.
        fs::write(&path, &whole).unwrap();
        timeline.look_again_as(&mut timeline.writer.lock());
        assert_eq!(timeline.stop(), None, "{lsn}");
        assert_eq!(timeline.last_record_lsn(), end, "{lsn}");
        assert!(sample.pages(&timeline, end) == pages, "{lsn}");
    }
    assert!(stops > bytes * 8 / 10, "{stops} of {bytes}");
}

/// A history over four segments.
fn long() -> Sample {
    let mut sample = Sample::new(20_000);
    for content in 1..=20 {
        sample.write_page(content, 100);
        sample.write_noop(100_000);
    }
    sample
}

#[test]
fn segments_that_are_gone_or_cut_short() {
    let sample = long().on_disk();
    let segments: Vec<u64> = (1..=3).collect();
    let good: Vec<_> = segments.iter().map(|n| fs::read(sample.segment(*n)).unwrap()).collect();
    let pages = sample.pages(&sample.open(), sample.end());
    for number in segments {
        for (mark, cut) in [(true, None), (true, Some(5000)), (false, None), (false, Some(5000))] {
            let path = sample.segment(number);
            let whole = &good[number as usize - 1];
            let mark_path = sample.dir.path().join("wal/flushed");
            let mark_bytes = fs::read(&mark_path).unwrap();
            if !mark {
                fs::remove_file(&mark_path).unwrap();
            }
            match cut {
                None => fs::remove_file(&path).unwrap(),
                Some(len) => fs::write(&path, &whole[..len]).unwrap(),
            }
            let timeline = sample.open();
            let last = timeline.last_record_lsn();
            // Without the mark, nobody can know of what was in the last segment.
            if mark || number < 3 {
                let place = stop_of(&timeline);
                assert_eq!(place, (last, StopKind::Missing), "{number} {cut:?}");
                let text = timeline.stop().unwrap().to_string();
                assert!(text.contains(path.to_str().unwrap()) || number == 1, "{text}");
            }
            let readable = sample.pages(&timeline, last);
            assert!(readable == pages[..readable.len()]);
            if number > 1 {
                assert!(!readable.is_empty());
            }
            fs::write(&path, whole).unwrap();
            fs::write(&mark_path, mark_bytes).unwrap();
            timeline.look_again();
            let mended = sample.open();
            assert_eq!((mended.stop(), mended.last_record_lsn()), (None, sample.end()));
        }
    }
}

#[test]
fn pages_of_zeros_and_of_elsewhere() {
    let sample = long().on_disk();
    let path = sample.segment(2);
    let good = fs::read(&path).unwrap();
    let page = 64 * 8192..65 * 8192;
    for fill in [vec![0; 8192], good[80 * 8192..81 * 8192].to_vec(), good[..8192].to_vec()] {
        let mut bad = good.clone();
        bad[page.clone()].copy_from_slice(&fill);
        fs::write(&path, &bad).unwrap();
        let timeline = sample.open();
        let damage = Lsn::new(2 * u64::from(SEGMENT_BYTES) + 64 * 8192);
        assert_eq!(stop_of(&timeline), (sample.good_before(damage), StopKind::Damaged));
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
}

#[test]
fn what_a_crash_leaves_is_no_damage() {
    let sample = long().on_disk();
    let end = sample.end();
    let (path, at) = sample.place(end);
    let good = fs::read(&path).unwrap();
    for tail in [vec![0; 5000], vec![0xEE; 5000], sample.wal_from(sample.start)[..5000].to_vec()] {
        let mut torn = good[..at].to_vec();
        torn.extend_from_slice(&tail);
        fs::write(&path, &torn).unwrap();
        let timeline = sample.open();
        assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, end));
        timeline.restart_receiving().unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), at);
    }
}

#[test]
fn branches_before_the_damage_work_and_those_behind_say_why_not() {
    let sample = long().on_disk();
    let pages = sample.pages(&sample.open(), sample.end());
    let path = sample.segment(2);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[500_000] ^= 1;
    fs::write(&path, &bad).unwrap();

    let parent = sample.open();
    let stop = parent.last_record_lsn();
    assert!(stop > sample.ends[5] && stop < sample.ends[30]);
    let before = sample.open_branch(&parent, sample.ends[5], 2);
    assert_eq!(before.stop(), None);
    assert_eq!(page(&before, before.start_lsn()), pages[5]);
    assert!(before.restart_receiving().is_ok());

    let behind = sample.open_branch(&parent, sample.ends[30], 3);
    let why = behind.stop().unwrap();
    assert_eq!((why.lsn, why.kind, why.place), (stop, StopKind::Ancestor, Place::OnDisk));
    let text = why.to_string();
    for part in [parent.id().to_string(), stop.to_string(), "checksum".to_owned()] {
        assert!(text.contains(&part), "{text}");
    }
    assert_eq!(page(&behind, sample.ends[5]), pages[5], "what is there is served");
    assert_eq!(page(&behind, sample.ends[30]), None);
    assert!(matches!(behind.end_lsn(), Err(TimelineError::Stopped(_))));
    assert!(behind.restart_receiving().is_err(), "it has nothing to stand on");

    fs::write(&path, &good).unwrap();
    parent.look_again_as(&mut parent.writer.lock());
    assert_eq!(behind.restart_receiving().unwrap(), sample.ends[30]);
    assert_eq!(behind.stop(), None);
    assert_eq!(page(&behind, sample.ends[30]), pages[30]);
}

#[test]
fn what_goes_bad_later_is_an_error_of_its_own() {
    let sample = long().on_disk();
    let timeline = sample.open();
    let (path, at) = sample.place(sample.ends[21]);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[at + 60] ^= 1;
    fs::write(&path, &bad).unwrap();
    let request = |n: usize| {
        let page = crate::timeline::PageRequest::rel(
            super::sample::rel(),
            postgres_formats::BlockNumber(0),
            sample.ends[n],
        );
        timeline.get_page(page, Duration::ZERO)
    };
    let error = request(22).unwrap_err();
    assert!(error.is_corruption());
    let text = error.to_string();
    assert!(text.contains(&sample.ends[21].to_string()), "{text}");
    assert!(matches!(error, GetPageError::Timeline(TimelineError::DamagedWal { .. })));
    let error = timeline.state_at(sample.ends[22]).unwrap_err();
    assert!(error.is_damaged_wal() && error.to_string().contains(&sample.ends[21].to_string()));
    // The others are not concerned, and it goes on with new WAL.
    assert!(request(20).is_ok() && request(24).is_ok());
    assert_eq!((timeline.stop(), timeline.last_record_lsn()), (None, sample.end()));
    // A file put in its place is noticed.
    fs::write(path.with_extension("copy"), &good).unwrap();
    fs::rename(path.with_extension("copy"), &path).unwrap();
    assert!(request(22).is_ok());
    assert!(timeline.state_at(sample.ends[22]).is_ok());
}

#[test]
fn nothing_stands_on_history_that_was_removed() {
    let mut sample = Sample::new(3000);
    let timeline = sample.open();
    for content in [1, 2, 3] {
        sample.write_page(content, 100);
        sample.give(&timeline);
        timeline.freeze().unwrap();
    }
    assert!(timeline.make_image(sample.end()).unwrap());
    let kept = [Needed::point(sample.ends[0]), Needed::since(sample.end())];
    let removal = timeline.collect(&kept).unwrap().unwrap();
    assert_eq!(removal.finish().layers.len(), 2);
    for (n, is_there) in [(0, true), (1, false), (2, true)] {
        let branch = sample.try_open_branch(&timeline, sample.ends[n], 10 + n as u8);
        assert_eq!(branch.is_ok(), is_there, "{n}");
        if let Ok(branch) = branch {
            assert_eq!(page(&branch, sample.ends[n]).unwrap()[50], 1 + n as u8);
        }
    }
}

#[test]
fn that_redo_cannot_be_had_is_no_damage() {
    let mut sample = Sample::new(3000);
    sample.write_page(1, 100);
    let change = sample.write_change();
    let timeline = sample.open();
    sample.give(&timeline);
    let request = crate::timeline::PageRequest::rel(
        super::sample::rel(),
        postgres_formats::BlockNumber(0),
        change,
    );
    let error = timeline.get_page(request, Duration::ZERO).unwrap_err();
    assert!(matches!(error, GetPageError::Make { .. }), "{error}");
    assert!(!error.is_corruption(), "{error}");
}

#[test]
fn times_and_the_end_are_not_guessed() {
    let sample = long().on_disk();
    fs::remove_file(sample.segment(2)).unwrap();
    let timeline = sample.open();
    assert!(matches!(timeline.end_lsn(), Err(TimelineError::Stopped(_))));
    let far = postgres_formats::Timestamp::from_unix_micros(1 << 52);
    assert!(matches!(timeline.lsn_at(far), Err(TimelineError::Stopped(_))));
    // Without the folder there is nothing to be known at all.
    fs::rename(sample.dir.path().join("wal"), sample.dir.path().join("lost")).unwrap();
    let timeline = sample.open();
    assert_eq!(stop_of(&timeline), (sample.start, StopKind::Missing));
}
