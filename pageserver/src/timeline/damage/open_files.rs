//! Many layers, of which few are open at a time.

use std::fs;
use std::path::Path;

use super::sample::{Sample, page};
use crate::layer::freezer::LayerOptions;
use crate::timeline::Needed;

const OPEN_MAX: usize = 3;

/// How many files in the folder this process has open.
fn open_in(dir: &Path) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(dir))).count()
}

#[test]
fn layers_of_which_few_are_open_are_read_merged_and_removed() {
    let options = LayerOptions { open_files_max: OPEN_MAX, cache_bytes: 0, ..Default::default() };
    let mut sample = Sample::new(20_000);
    let timeline = sample.open_with(options);
    for content in 1..=12 {
        sample.write_page(content, 100);
        sample.give(&timeline);
        timeline.freeze().unwrap();
        if content == 6 {
            timeline.make_image(sample.end()).unwrap();
        }
    }
    let layers = sample.dir.path().join("layers");
    // The first releases' image is not one of them.
    let few = || assert!(open_in(&layers) <= OPEN_MAX + 1, "{}", open_in(&layers));
    let check = || {
        for (n, end) in sample.ends.iter().enumerate() {
            assert_eq!(page(&timeline, *end).unwrap()[50], n as u8 + 1);
        }
    };
    check();
    few();
    // Whoever has begun to read what is merged, or collected, reads on.
    let (deltas, images) = timeline.history.read().layers();
    assert_eq!((deltas.len(), images.len()), (12, 1));
    assert!(timeline.merge_deltas(sample.start..sample.ends[5]).unwrap());
    check();
    let removal = timeline.collect(&[Needed::since(sample.end())]).unwrap().unwrap();
    assert_eq!(removal.finish().layers.len(), 1);
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 1 + 6 + 1);
    for delta in &deltas {
        delta.verify().unwrap();
    }
    assert_eq!(open_in(&layers), 1 + OPEN_MAX + 6);
    drop((deltas, images));
    few();
    assert_eq!(page(&timeline, sample.end()).unwrap()[50], 12);
    drop(timeline);
    assert_eq!(open_in(&layers), 0);
}
