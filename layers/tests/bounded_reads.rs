//! How much of a large file is read: to open it next to nothing, then only what is asked for.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::Write;

use layers::{BlockCache, Builder, Compression, KeyRange, Lsn, Reader};
use support::*;

const KEYS: u32 = 60_000;

fn key(n: u32) -> Vec<u8> {
    format!("{n:0>40}").into_bytes()
}

/// 80 MiB, in a file: each second number is a key, with a value of a page's size for some.
fn large_file() -> File {
    let mut file = tempfile::tempfile().unwrap();
    let options = options(Compression::None, 4 * 1024);
    let mut builder = Builder::new(&mut file, delta(1..10), &options).unwrap();
    let value = noise(1, 1_400);
    for n in 0..KEYS {
        builder.add(&key(n * 2), Lsn::new(5), 1, &value).unwrap();
    }
    builder.finish(KeyRange::ALL).unwrap();
    file.flush().unwrap();
    file
}

#[test]
fn a_large_file_is_read_where_it_is_asked_for() {
    let cache = BlockCache::new(8 << 20);
    let source = Counting::new(large_file());
    let length = source.inner.metadata().unwrap().len();
    assert!(length > 80_000_000);
    let reader = Reader::open(&source, OWNER, &cache).unwrap();
    let opened = source.take();
    assert!(opened <= 5 * 1024, "{opened} bytes were read to open a file");

    // A key: the filter and the leaf of the way, and the block.
    assert_eq!(get(&reader, &key(60_000), 9).unwrap().len(), 1);
    let first = source.take();
    assert!(first < 20 * 1024, "{first} bytes were read for a key");
    // The next one on the same way: the block, if it is not the same.
    assert_eq!(get(&reader, &key(60_002), 9).unwrap().len(), 1);
    let second = source.take();
    assert!(second < 6 * 1024, "{second} bytes were read for the next key");

    // Keys that are not there: the filters once, and then nothing, but for those that pass.
    for n in 0..KEYS {
        assert_eq!(get(&reader, &key(n * 2 + 1), 9).unwrap(), []);
    }
    let all_filters = source.take();
    assert!(all_filters < length / 20, "{all_filters} bytes were read for absent keys");
    // What lies outside of the file's positions is known without any reading.
    assert_eq!(get(&reader, &key(4), 4).unwrap(), []);
    assert_eq!(source.take(), 0);

    // A scan reads what it gives out.
    let range = KeyRange::new(key(1_000), key(2_000));
    assert_eq!(scan(&reader, range).unwrap().len(), 500);
    let scanned = source.take();
    assert!(scanned < 900_000, "{scanned} bytes were read for 700,000");
    assert!(cache.stats().bytes <= 8 << 20);
}

/// Versions are read as they are asked for.
#[test]
fn older_versions_are_not_read_before_they_are_asked_for() {
    let model: Model =
        (1..2_000).map(|lsn| ((b"key".to_vec(), lsn), (0, noise(lsn, 1_000)))).collect();
    let file = build(delta(1..2_000), &options(Compression::None, 4 * 1024), &model);
    let source = Counting::new(&file[..]);
    let reader = Reader::open(&source, OWNER, &BlockCache::new(1 << 20)).unwrap();
    source.take();
    let mut versions = reader.get(b"key", Lsn::new(1_000));
    for lsn in (998..=1_000).rev() {
        assert_eq!(versions.next().unwrap().unwrap().lsn, Lsn::new(lsn));
    }
    let read = source.take();
    assert!(read < 20 * 1024, "{read} bytes were read for three versions");
    assert_eq!(versions.count(), 997);
}

/// A range that ends where a block ends, and a version that cannot have an older one, need no block more.
#[test]
fn no_block_is_read_for_what_the_index_knows() {
    let model: Model = (0..8_u8).map(|n| ((vec![n], 5), (0, noise(n.into(), 4_000)))).collect();
    let file = build(image(5), &options(Compression::None, 4 * 1024), &model);
    let source = Counting::new(&file[..]);
    let reader = Reader::open(&source, OWNER, &BlockCache::new(1 << 20)).unwrap();
    source.take();
    assert_eq!(scan(&reader, KeyRange::new([2], [4])).unwrap().len(), 2);
    let read = source.take();
    assert!((8_000..10_000).contains(&read), "{read} bytes were read for two blocks");
    assert_eq!(get(&reader, &[6], 5).unwrap().len(), 1);
    let read = source.take();
    assert!((4_000..5_000).contains(&read), "{read} bytes were read for a block and the filter");
}

#[test]
fn neighbours_are_read_together_once() {
    for cache_bytes in [8 << 20, 0] {
        let cache = BlockCache::new(cache_bytes);
        let source = Counting::new(large_file());
        let reader = Reader::open(&source, OWNER, &cache).unwrap();
        let reads = || source.reads.swap(0, std::sync::atomic::Ordering::Relaxed);
        reads();
        let keys: Vec<_> = (0..300).map(|n| key(40_000 + n * 2)).collect();
        let mut way = reader.walk();
        way.read_ahead(&keys[299]);
        for key in &keys {
            let newest = way.get(key, Lsn::new(9)).unwrap().next();
            assert_eq!(newest.unwrap().unwrap().lsn, Lsn::new(5));
        }
        // More than 100 blocks: the filter, two leaves, and a call for each 64 blocks of a leaf.
        let made = reads();
        assert!(made <= 8, "{made} calls for 300 keys side by side");
        let read = source.take();
        assert!(read < 600_000, "{read} bytes for 300 keys of 1,400 bytes");
    }
}
