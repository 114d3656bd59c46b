//! Files of format version 1, as they were written when it was made: every later release reads them.
//!
//! They are made anew only when the format version is raised, in addition to those kept:
//! `ZENITH_WRITE_SAMPLES=1 cargo test -p layers --test sample`, then commit the files under a new name.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use layers::{BlockCache, Compression, KeyRange, LayerKind, Lsn, Reader};
use support::*;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)
}

/// Enough long keys, which share nothing, for an index of two levels.
fn many_keys() -> Model {
    let mut model = little();
    for n in 0..122 {
        model.insert((noise(n, 64), 0x0100_0028 + n), (n as u8, vec![n as u8; 24]));
    }
    model
}

/// Several versions, a long value, the shortest and the longest key.
fn little() -> Model {
    let mut model = Model::new();
    for n in 0..40_u32 {
        let key = [&b"key-"[..], &n.to_be_bytes()].concat();
        for version in 0..1 + u64::from(n % 3) {
            let value = vec![b'v'; if n % 50 == 7 { 100 } else { (n % 11) as usize }];
            model.insert((key.clone(), 0x0100_0028 + version * 0x48), (version as u8, value));
        }
    }
    model.insert((Vec::new(), 0x0100_0028), (7, vec![5; 700]));
    model.insert((vec![0xFF; 64], 0x0200_0000), (8, Vec::new()));
    model
}

fn lsns() -> std::ops::Range<u64> {
    0x0100_0028..0x0200_0001
}

fn keys() -> KeyRange {
    KeyRange { start: Vec::new(), end: Some([&[0xFF; 64][..], &[0]].concat()) }
}

fn made(
    spec: layers::LayerSpec,
    compression: Compression,
    model: &Model,
    keys: KeyRange,
) -> Vec<u8> {
    let options = options(compression, 256);
    let mut builder = layers::Builder::new(Vec::new(), spec, &options).unwrap();
    for ((key, lsn), (kind, value)) in model {
        builder.add(key, Lsn::new(*lsn), *kind, value).unwrap();
    }
    builder.finish(keys).unwrap().1
}

/// The sample of this name. Made first, if that is asked for.
fn sample(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    if std::env::var_os("ZENITH_WRITE_SAMPLES").is_some() {
        std::fs::write(path(name), make()).unwrap();
    }
    let file = std::fs::read(path(name)).unwrap();
    assert_eq!(file[8..12], 1_u32.to_le_bytes(), "{name} is a file of version 1");
    file
}

/// Level of the root, as FORMAT.md says where to find it.
fn root_level(file: &[u8]) -> u8 {
    let field = file.len() - 248 + 32;
    let root = u64::from_le_bytes(file[field..field + 8].try_into().unwrap());
    file[root as usize + 16]
}

fn check_delta(file: &[u8], model: &Model) {
    let reader = Reader::open(file, OWNER, &BlockCache::new(1 << 20)).unwrap();
    let summary = reader.verify().unwrap();
    assert_eq!(summary.entry_count, model.len() as u64);
    assert_eq!((reader.kind(), reader.file_id()), (LayerKind::Delta, FILE));
    assert_eq!(reader.lsns(), Lsn::new(lsns().start)..Lsn::new(lsns().end));
    assert_eq!(reader.keys(), &keys());
    assert_eq!(scan(&reader, KeyRange::ALL).unwrap(), entries(model));
    for (key, _) in model.keys() {
        assert_eq!(get(&reader, key, u64::MAX).unwrap(), expected_versions(model, key, u64::MAX));
    }
}

/// Also written today as it was then, byte by byte, because no compressor has a say.
#[test]
fn a_delta_layer_without_compression() {
    let model = many_keys();
    let make = || made(delta(lsns()), Compression::None, &model, keys());
    let file = sample("v1-delta-none.layer", make);
    assert_eq!(root_level(&file), 1);
    check_delta(&file, &model);
    assert!(make() == file, "what is written is no longer what was written");
}

#[test]
fn a_delta_layer_with_lz4() {
    let make = || made(delta(lsns()), Compression::Lz4, &little(), keys());
    check_delta(&sample("v1-delta-lz4.layer", make), &little());
}

#[test]
fn a_delta_layer_with_zstd() {
    let make = || made(delta(lsns()), Compression::Zstd { level: 1 }, &little(), keys());
    check_delta(&sample("v1-delta-zstd.layer", make), &little());
}

#[test]
fn an_image_layer() {
    let model: Model = (0..9_u8).map(|n| ((vec![n], 0x300), (1, vec![n; 100]))).collect();
    let make = || made(image(0x300), Compression::Zstd { level: 1 }, &model, KeyRange::ALL);
    let file = sample("v1-image-zstd.layer", make);
    let reader = Reader::open(&file[..], OWNER, &BlockCache::new(1 << 20)).unwrap();
    reader.verify().unwrap();
    assert_eq!((reader.kind(), reader.keys()), (LayerKind::Image, &KeyRange::ALL));
    assert_eq!(scan(&reader, KeyRange::ALL).unwrap(), entries(&model));
}
