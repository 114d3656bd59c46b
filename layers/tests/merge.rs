//! Several layers as one.

#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use layers::{BlockCache, Compression, Entry, FileId, KeyRange, Lsn, Merge, ReadError, Reader};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use support::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The union; of what several layers have, the first one's.
    #[test]
    fn layers_merge_like_maps(
        models in vec(
            btree_map((vec(0_u8..4, 0..3), 0_u64..6), (any::<u8>(), vec(any::<u8>(), 0..4)), 0..30),
            0..6,
        ),
        start in vec(0_u8..4, 0..3),
    ) {
        let cache = BlockCache::new(1 << 20);
        let files = models.iter().enumerate().map(|(n, model)| {
            let mut spec = delta(0..6);
            spec.file = FileId([n as u8; 16]);
            build(spec, &options(Compression::None, 256), model)
        });
        let files = files.collect::<Vec<_>>();
        let readers = files.iter().map(|file| Reader::open(&file[..], OWNER, &cache).unwrap());
        let readers = readers.collect::<Vec<_>>();
        let keys = KeyRange { start: start.clone(), end: None };
        let merged = Merge::new(readers.iter().map(|reader| reader.scan(keys.clone())));
        let merged = merged.collect::<Result<Vec<_>, _>>().unwrap();
        let mut expected = Model::new();
        for model in models.iter().rev() {
            expected.extend(model.clone());
        }
        expected.retain(|(key, _), _| *key >= start);
        prop_assert_eq!(merged, entries(&expected));
    }
}

/// Also if it is the very first entry that cannot be read, and other sources have more.
#[test]
fn an_error_ends_the_merge() {
    let entry = |lsn| Entry { key: Bytes::new(), lsn: Lsn::new(lsn), kind: 0, value: Bytes::new() };
    let broken = || Err(ReadError::Corrupt { offset: 1, what: "test" });
    for (good, expected) in [(0, 0), (1, 0), (2, 1)] {
        let first = (0..good).map(|lsn| Ok(entry(lsn * 2))).chain([broken(), Ok(entry(99))]);
        let second = (0..50).map(|lsn| Ok(entry(lsn * 2 + 1)));
        let sources: Vec<Box<dyn Iterator<Item = Result<Entry, ReadError>>>> =
            vec![Box::new(first), Box::new(second)];
        let mut merge = Merge::new(sources);
        let before = merge.by_ref().take_while(Result::is_ok).count();
        assert!(before >= expected);
        assert!(merge.next().is_none(), "something came after an error");
    }
}
