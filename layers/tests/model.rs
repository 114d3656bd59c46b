//! Files against a plain map with the same entries: random keys, values, block sizes and codecs.

#![allow(clippy::unwrap_used)]

mod support;

use layers::{BlockCache, Compression, KeyRange, LayerKind, Options, Reader};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use support::*;

const LSNS: std::ops::Range<u64> = 1_000..2_000;

/// Few letters and ready-made beginnings: keys that share much, follow each other closely, and begin
/// with each other.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![
        Just(Vec::new()),
        Just(b"base/5/1259.0.".to_vec()),
        Just(b"base/5/1259.0.0000000000000000000000000000000000000000".to_vec()),
        Just(vec![0xFF; 30]),
    ];
    let letter = prop_oneof![Just(0_u8), Just(1), Just(b'a'), Just(0xFF), any::<u8>()];
    (prefix, vec(letter, 0..10)).prop_map(|(mut key, rest)| {
        key.extend(rest);
        key.truncate(64);
        key
    })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        2 => (any::<u8>(), 0..3_000_usize).prop_map(|(byte, length)| vec![byte; length]),
        1 => (any::<u64>(), 200..5_000_usize).prop_map(|(seed, length)| noise(seed, length)),
        // As long as a block, and one byte to either side.
        1 => (255..258_usize).prop_map(|length| noise(1, length)),
    ]
}

/// Some keys with one version, some with many.
fn model() -> impl Strategy<Value = Model> {
    let versions = prop_oneof![
        btree_map(LSNS, (any::<u8>(), value()), 1..3),
        btree_map(LSNS, (any::<u8>(), value()), 20..60),
        btree_map(prop_oneof![Just(LSNS.start), Just(LSNS.end - 1)], (any::<u8>(), value()), 1..3),
    ];
    btree_map(key(), versions, 0..30).prop_map(|keys| {
        keys.into_iter()
            .flat_map(|(key, versions)| {
                versions.into_iter().map(move |(lsn, version)| ((key.clone(), lsn), version))
            })
            .collect()
    })
}

fn any_options() -> impl Strategy<Value = Options> {
    let block_bytes = prop_oneof![Just(256_usize), Just(1_000), Just(32 * 1024)];
    (0..COMPRESSIONS.len(), block_bytes)
        .prop_map(|(which, block_bytes)| options(COMPRESSIONS[which], block_bytes))
}

fn any_cache() -> impl Strategy<Value = BlockCache> {
    prop_oneof![Just(0), Just(4_096), Just(1 << 20)].prop_map(BlockCache::new)
}

fn ranges() -> impl Strategy<Value = Vec<KeyRange>> {
    let range =
        (key(), proptest::option::of(key())).prop_map(|(start, end)| KeyRange { start, end });
    vec(range, 8)
}

fn check(
    model: &Model,
    reader: &Reader<&[u8]>,
    ranges: &[KeyRange],
    absent: &[Vec<u8>],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(scan(reader, KeyRange::ALL).unwrap(), entries(model));
    for range in ranges {
        let expected = entries(model.iter().filter(|((key, _), _)| range.contains(key)));
        prop_assert_eq!(scan(reader, range.clone()).unwrap(), expected);
    }
    for (key, lsn) in model.keys() {
        for border in [lsn - 1, *lsn, lsn + 1] {
            prop_assert_eq!(
                get(reader, key, border).unwrap(),
                expected_versions(model, key, border)
            );
        }
    }
    for key in model.keys().map(|(key, _)| key).chain(absent) {
        for border in [0, LSNS.start - 1, LSNS.end, u64::MAX] {
            prop_assert_eq!(
                get(reader, key, border).unwrap(),
                expected_versions(model, key, border)
            );
        }
        let of_key = entries(model.range((key.clone(), 0)..=(key.clone(), u64::MAX)));
        prop_assert_eq!(scan(reader, KeyRange::of_key(key)).unwrap(), of_key);
    }
    check_walks(model, reader, absent)
}

/// Walks through all keys and some that are not there: in order, as somebody does who knows where it ends, or
/// believes to know it, and in any order.
fn check_walks(
    model: &Model,
    reader: &Reader<&[u8]>,
    absent: &[Vec<u8>],
) -> Result<(), TestCaseError> {
    let mut keys: Vec<&[u8]> =
        model.keys().map(|(key, _)| key).chain(absent).map(Vec::as_slice).collect();
    keys.sort_unstable();
    let of_model = |range: &KeyRange| {
        let mut there = model.keys().map(|(key, _)| key).filter(|key| range.contains(key));
        let first = there.next().cloned();
        let last = there.next_back().cloned().or(first.clone());
        first.zip(last).map(<[_; 2]>::from)
    };
    for (first, last) in keys.iter().zip(keys.iter().rev()) {
        for range in [KeyRange::ALL, KeyRange::of_key(last), KeyRange::new(*first, *last)] {
            prop_assert_eq!(reader.key_bounds(&range).unwrap(), of_model(&range));
        }
    }
    let (Some(last), middle) = (keys.last().copied(), keys[keys.len() / 2]) else { return Ok(()) };
    for lsn in [LSNS.start - 1, LSNS.start, LSNS.start + 7, LSNS.start + 500, u64::MAX] {
        let walks = [
            (reader.walk(), None),
            (reader.walk(), Some(last)),
            (reader.walk(), Some(middle)),
            (reader.walk().without_filters(), Some(last)),
        ];
        for (mut way, ahead) in walks {
            ahead.into_iter().for_each(|last| way.read_ahead(last));
            let backwards = keys.iter().rev().step_by(3);
            for key in keys.iter().chain(backwards) {
                let expected = expected_versions(model, key, lsn);
                prop_assert_eq!(walk(&mut way, key, lsn).unwrap(), expected);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_delta_layer_is_the_map_it_was_made_from(
        model in model(),
        options in any_options(),
        cache in any_cache(),
        ranges in ranges(),
        absent in vec(key(), 10),
    ) {
        let (summary, file) = build_with_summary(delta(LSNS), &options, &model);
        let reader = Reader::open(&file[..], OWNER, &cache).unwrap();
        prop_assert_eq!(reader.verify().unwrap(), &summary);
        prop_assert_eq!(reader.summary(), &summary);
        prop_assert_eq!(reader.kind(), LayerKind::Delta);
        let mut keys = model.keys().map(|(key, _)| key).collect::<Vec<_>>();
        keys.dedup();
        prop_assert_eq!(summary.entry_count, model.len() as u64);
        prop_assert_eq!(summary.key_count, keys.len() as u64);
        prop_assert_eq!(summary.file_bytes, file.len() as u64);
        let lsns = model.keys().map(|(_, lsn)| *lsn);
        let expected = lsns.clone().min().zip(lsns.max());
        let found = summary.entry_lsns.map(|lsns| (lsns.start().as_u64(), lsns.end().as_u64()));
        prop_assert_eq!(found, expected);
        // Twice, the second time with what is in the cache by then.
        for _ in 0..2 {
            check(&model, &reader, &ranges, &absent)?;
        }
    }

    #[test]
    fn an_image_layer_is_the_map_it_was_made_from(
        values in btree_map(key(), (any::<u8>(), value()), 0..60),
        options in any_options(),
        cache in any_cache(),
        ranges in ranges(),
        absent in vec(key(), 10),
    ) {
        let lsn = LSNS.start + 7;
        let model: Model =
            values.into_iter().map(|(key, version)| ((key, lsn), version)).collect();
        let file = build(image(lsn), &options, &model);
        let reader = Reader::open(&file[..], OWNER, &cache).unwrap();
        reader.verify().unwrap();
        prop_assert_eq!(reader.kind(), LayerKind::Image);
        check(&model, &reader, &ranges, &absent)?;
    }
}

/// What is given out was made ready, wherever it stands, and the file is found as it is.
#[test]
fn values_are_made_ready_as_they_are_read() {
    let model: Model = (0..300_u64)
        .map(|n| {
            ((format!("{n:03}").into_bytes(), LSNS.start + n), (n as u8, noise(n, n as usize * 9)))
        })
        .collect();
    let ready: Model = model
        .iter()
        .map(|((key, lsn), (kind, value))| {
            let value = value.iter().map(|byte| byte.wrapping_add(kind ^ key[2])).collect();
            ((key.clone(), *lsn), (*kind, value))
        })
        .collect();
    let file = build(delta(LSNS), &options(Compression::Lz4, 1_000), &model);
    let finish = |key: &[u8], kind: u8, value: &mut [u8]| {
        value.iter_mut().for_each(|byte| *byte = byte.wrapping_add(kind ^ key[2]));
    };
    let reader = open(&file).unwrap().finishing(finish);
    for _ in 0..2 {
        assert_eq!(scan(&reader, KeyRange::ALL).unwrap(), entries(&ready));
        let mut way = reader.walk();
        way.read_ahead(b"3");
        for (key, _) in ready.keys() {
            let expected = expected_versions(&ready, key, u64::MAX);
            assert_eq!(get(&reader, key, u64::MAX).unwrap(), expected);
            assert_eq!(walk(&mut way, key, u64::MAX).unwrap(), expected);
        }
    }
    reader.verify().unwrap();
    assert_eq!(scan(&open(&file).unwrap(), KeyRange::ALL).unwrap(), entries(&model));
}

/// More keys than one leaf's filter takes, blocks and nodes of all levels, and a key whose versions are
/// spread over many leaves.
#[test]
fn a_tree_of_several_levels() {
    let mut model = Model::new();
    for n in 0..30_000_u32 {
        let key = format!("{:0>50}", n * 2).into_bytes();
        model.insert((key, LSNS.start + u64::from(n % 900)), (1, noise(n.into(), 150)));
    }
    let often = format!("{:0>50}", 20_000).into_bytes();
    for lsn in LSNS {
        model.insert((often.clone(), lsn), (2, noise(lsn, 180)));
    }
    let file = build(delta(LSNS), &options(Compression::None, 256), &model);
    let reader = open(&file).unwrap();
    reader.verify().unwrap();
    assert_eq!(scan(&reader, KeyRange::ALL).unwrap(), entries(&model));
    for lsn in [0, LSNS.start - 1, LSNS.start, 1_001, 1_500, LSNS.end - 1, u64::MAX] {
        assert_eq!(get(&reader, &often, lsn).unwrap(), expected_versions(&model, &often, lsn));
    }
    let mut way = reader.walk();
    for n in (0..60_000).step_by(397) {
        let key = format!("{n:0>50}").into_bytes();
        assert_eq!(
            get(&reader, &key, u64::MAX).unwrap(),
            expected_versions(&model, &key, u64::MAX)
        );
        assert_eq!(
            walk(&mut way, &key, u64::MAX).unwrap(),
            expected_versions(&model, &key, u64::MAX)
        );
        let range = KeyRange::new(key.clone(), format!("{:0>50}", n + 99).into_bytes());
        let expected = entries(model.iter().filter(|((key, _), _)| range.contains(key)));
        assert_eq!(scan(&reader, range).unwrap(), expected);
    }
}

/// More than one leaf because of the number of keys, not of blocks.
#[test]
fn many_keys_in_large_blocks() {
    let mut model = Model::new();
    for n in 0..90_000_u32 {
        model.insert((n.to_be_bytes().to_vec(), LSNS.start), (0, Vec::new()));
    }
    let file = build(delta(LSNS), &options(Compression::Lz4, 1 << 20), &model);
    let reader = open(&file).unwrap();
    assert_eq!(reader.verify().unwrap().key_count, 90_000);
    assert_eq!(scan(&reader, KeyRange::ALL).unwrap(), entries(&model));
    for n in (0..90_000_u32).step_by(701) {
        assert_eq!(get(&reader, &n.to_be_bytes(), u64::MAX).unwrap().len(), 1);
    }
}

/// Values that are cut into several pieces, beside and between short ones.
#[test]
fn values_of_many_pieces() {
    const MIB: usize = 1 << 20;
    for compression in COMPRESSIONS {
        let mut model = Model::new();
        let lengths = [MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 17, 0, 5];
        for (n, length) in lengths.into_iter().enumerate() {
            let value = if n % 2 == 0 { noise(9, length) } else { vec![n as u8; length] };
            model.insert((b"key".to_vec(), LSNS.start + n as u64), (n as u8, value));
            model.insert((vec![n as u8], LSNS.start), (0, vec![1; 30_000]));
        }
        let file = build(delta(LSNS), &options(compression, 32 * 1024), &model);
        let reader = open(&file).unwrap();
        reader.verify().unwrap();
        assert_eq!(scan(&reader, KeyRange::ALL).unwrap(), entries(&model));
        assert_eq!(
            get(&reader, b"key", u64::MAX).unwrap(),
            expected_versions(&model, b"key", u64::MAX)
        );
    }
}

#[test]
fn an_empty_file_has_nothing() {
    let (summary, file) = build_with_summary(delta(LSNS), &Options::default(), &Model::new());
    assert_eq!((summary.entry_count, summary.entry_lsns), (0, None));
    let reader = open(&file).unwrap();
    reader.verify().unwrap();
    assert_eq!(scan(&reader, KeyRange::ALL).unwrap(), []);
    assert_eq!(get(&reader, b"", u64::MAX).unwrap(), []);
}
