//! What the tests have in common: entries as a plain map, and files made from it.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use layers::{
    BlockCache, Builder, Compression, Entry, FileId, KeyRange, LayerKind, LayerSpec, Lsn, Options,
    Owner, ReadAt, ReadError, Reader, Summary, Versions, Walk,
};

/// Entries as the specification has them: by key and then by position.
pub type Model = BTreeMap<(Vec<u8>, u64), (u8, Vec<u8>)>;

pub const OWNER: Owner = Owner(*b"owner of a layer");
pub const FILE: FileId = FileId(*b"some random file");

pub const COMPRESSIONS: [Compression; 5] = [
    Compression::None,
    Compression::Lz4,
    Compression::Zstd { level: 1 },
    Compression::Adaptive,
    Compression::Zstd { level: 3 },
];

pub fn delta(lsns: std::ops::Range<u64>) -> LayerSpec {
    LayerSpec {
        file: FILE,
        owner: OWNER,
        kind: LayerKind::Delta,
        lsns: Lsn::new(lsns.start)..Lsn::new(lsns.end),
    }
}

pub fn image(lsn: u64) -> LayerSpec {
    LayerSpec { kind: LayerKind::Image, ..delta(lsn..lsn + 1) }
}

pub fn options(compression: Compression, block_bytes: usize) -> Options {
    Options { compression, block_bytes }
}

pub fn build_with_summary(spec: LayerSpec, options: &Options, model: &Model) -> (Summary, Vec<u8>) {
    let mut builder = Builder::new(Vec::new(), spec, options).unwrap();
    for ((key, lsn), (kind, value)) in model {
        builder.add(key, Lsn::new(*lsn), *kind, value).unwrap();
    }
    builder.finish(KeyRange::ALL).unwrap()
}

pub fn build(spec: LayerSpec, options: &Options, model: &Model) -> Vec<u8> {
    build_with_summary(spec, options, model).1
}

/// Opens a file with a cache of its own.
pub fn open(file: &[u8]) -> Result<Reader<&[u8]>, ReadError> {
    Reader::open(file, OWNER, &BlockCache::new(1 << 20))
}

pub fn entries<'a>(
    model: impl IntoIterator<Item = (&'a (Vec<u8>, u64), &'a (u8, Vec<u8>))>,
) -> Vec<Entry> {
    model
        .into_iter()
        .map(|((key, lsn), (kind, value))| Entry {
            key: Bytes::copy_from_slice(key),
            lsn: Lsn::new(*lsn),
            kind: *kind,
            value: Bytes::copy_from_slice(value),
        })
        .collect()
}

pub fn scan<R: ReadAt>(reader: &Reader<R>, keys: KeyRange) -> Result<Vec<Entry>, ReadError> {
    reader.scan(keys).collect()
}

/// Versions of a key, newest first, in the form of entries.
pub fn get<R: ReadAt>(reader: &Reader<R>, key: &[u8], lsn: u64) -> Result<Vec<Entry>, ReadError> {
    entries_of(key, reader.get(key, Lsn::new(lsn)))
}

/// The same on a way through many keys.
pub fn walk<R: ReadAt>(
    walk: &mut Walk<'_, R>,
    key: &[u8],
    lsn: u64,
) -> Result<Vec<Entry>, ReadError> {
    entries_of(key, walk.get(key, Lsn::new(lsn))?)
}

fn entries_of<R: ReadAt>(key: &[u8], versions: Versions<'_, R>) -> Result<Vec<Entry>, ReadError> {
    versions
        .map(|version| {
            let version = version?;
            Ok(Entry {
                key: Bytes::copy_from_slice(key),
                lsn: version.lsn,
                kind: version.kind,
                value: version.value,
            })
        })
        .collect()
}

/// What `get` should give.
pub fn expected_versions(model: &Model, key: &[u8], lsn: u64) -> Vec<Entry> {
    entries(model.range((key.to_vec(), 0)..=(key.to_vec(), lsn)).rev())
}

/// Counts what is read.
pub struct Counting<T> {
    pub inner: T,
    pub bytes: AtomicU64,
    pub reads: AtomicU64,
}

impl<T> Counting<T> {
    pub fn new(inner: T) -> Counting<T> {
        Counting { inner, bytes: AtomicU64::new(0), reads: AtomicU64::new(0) }
    }

    /// Bytes read since it was asked last.
    pub fn take(&self) -> u64 {
        self.bytes.swap(0, Relaxed)
    }
}

impl<T: ReadAt> ReadAt for Counting<T> {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.bytes.fetch_add(buffer.len() as u64, Relaxed);
        self.reads.fetch_add(1, Relaxed);
        self.inner.read_exact_at(offset, buffer)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
}

/// Bytes that do not compress, the same each time.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
