//! Much WAL on disk that is indexed when the timeline is opened: layers are written meanwhile.

use std::fs;

use super::sample::{Sample, page};
use crate::layer::freezer::LayerOptions;
use crate::stop::StopKind;

/// Less than what is indexed at once, so that the stretches here are as long as that.
const STRETCH_BYTES: u64 = 64 << 10;
const CHUNK_BYTES: u64 = 1 << 20;

fn options() -> LayerOptions {
    LayerOptions { stretch_bytes: STRETCH_BYTES, image_percent: 0, ..LayerOptions::default() }
}

fn large() -> Sample {
    let mut sample = Sample::new(100_000);
    for n in 0..1000_u32 {
        sample.write_page((n % 251) as u8 + 1, 8000);
    }
    sample.on_disk()
}

#[test]
fn what_waits_to_be_written_is_bounded_where_memory_is_short() {
    let sample = large();
    let before = sample.open();
    let lsns: Vec<_> = sample.ends.iter().step_by(100).copied().collect();
    let pages: Vec<_> = lsns.iter().map(|lsn| page(&before, *lsn)).collect();
    let all = before.debt();
    assert!(all.wal_bytes > 7 * CHUNK_BYTES && all.waiting == 0, "{all:?}");
    drop(before);

    let timeline = sample.open_with(LayerOptions { memory_bytes: 1, ..options() });
    let debt = timeline.debt();
    assert!(debt.waiting <= 3, "{debt:?}");
    assert!(debt.wal_bytes < 4 * CHUNK_BYTES && debt.memory_bytes < all.memory_bytes, "{debt:?}");
    assert!(timeline.layers_written() >= 4, "{}", timeline.layers_written());
    let again: Vec<_> = lsns.iter().map(|lsn| page(&timeline, *lsn)).collect();
    assert!(again == pages && pages.iter().all(Option::is_some));
}

#[test]
fn a_burst_is_taken_in_before_layers_are_written() {
    let sample = large();
    let nobody_writes = LayerOptions { in_background: false, ..options() };
    let debt = sample.open_with(nobody_writes).debt();
    assert!(debt.waiting > 3 && !debt.is_slowed, "{debt:?}");
}

#[test]
fn layers_written_meanwhile_do_not_hide_that_durable_wal_is_damaged() {
    let sample = large();
    let bad = sample.ends[950];
    let (path, at) = sample.place(bad.saturating_add(100));
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let timeline = sample.open_with(LayerOptions { memory_bytes: 1, ..options() });
    let stop = timeline.stop().expect("a stop");
    assert_eq!((stop.lsn, stop.kind), (bad, StopKind::Damaged));
    assert!(timeline.layers_written() >= 4);
}
