//! How much memory is taken: no more for a large file than for a small one, and no more for damaged
//! bytes than for good ones.

#![allow(clippy::unwrap_used)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;

use layers::{BlockCache, Builder, Compression, KeyRange, Lsn, Reader};
use support::*;

const MIB: usize = 1 << 20;

thread_local! {
    /// Bytes that this thread has allocated and not given back, and the most there were of them.
    static BYTES: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn count(added: usize, removed: usize) {
    let _ = BYTES.try_with(|bytes| {
        let (now, most) = bytes.get();
        let now = (now + added).saturating_sub(removed);
        bytes.set((now, most.max(now)));
    });
}

// SAFETY: everything is left to the system's allocator. The counters are cells without a destructor
// that are made without allocating, so counting never comes back here.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new may be there at once.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most bytes that `action` has allocated at a time.
fn peak<T>(action: impl FnOnce() -> T) -> (T, usize) {
    let before = BYTES.get().0;
    BYTES.set((before, before));
    let result = action();
    (result, BYTES.get().1 - before)
}

#[test]
fn building_does_not_need_more_for_more_entries() {
    let value = noise(1, 700);
    let (bytes, peak) = peak(|| {
        let options = options(Compression::Lz4, 32 * 1024);
        let mut builder = Builder::new(io::sink(), delta(1..10), &options).unwrap();
        for n in 0..120_000_u32 {
            let key = [&[b'k'; 40][..], &n.to_be_bytes()].concat();
            builder.add(&key, Lsn::new(5), 0, &value).unwrap();
        }
        builder.finish(KeyRange::ALL).unwrap().0.raw_bytes
    });
    assert!(bytes > 80_000_000);
    assert!(peak < MIB, "{peak} bytes for a file of {bytes}");
}

#[test]
fn a_scan_has_a_block_in_memory() {
    let value = noise(1, 700);
    let options = options(Compression::None, 32 * 1024);
    let mut builder = Builder::new(Vec::new(), delta(1..10), &options).unwrap();
    for n in 0..20_000_u32 {
        builder.add(&n.to_be_bytes(), Lsn::new(5), 0, &value).unwrap();
    }
    let (_, file) = builder.finish(KeyRange::ALL).unwrap();
    let cache = BlockCache::new(1 << 16);
    let reader = Reader::open(&file[..], OWNER, &cache).unwrap();
    let (count, scanned) = peak(|| reader.scan(KeyRange::ALL).map(Result::unwrap).count());
    assert_eq!(count, 20_000);
    assert!(scanned < MIB / 2, "{scanned} bytes for a scan");
    let (_, verified) = peak(|| reader.verify().map(|_| ()).unwrap());
    assert!(verified < MIB / 2, "{verified} bytes to verify");
}

#[test]
fn a_long_value_is_in_memory_less_than_three_times() {
    let value = vec![b'x'; 24 * MIB + 5];
    for compression in [Compression::None, Compression::Lz4] {
        let mut file = Vec::with_capacity(32 * MIB);
        let (_, peak_build) = peak(|| {
            let options = options(compression, 32 * 1024);
            let mut builder = Builder::new(&mut file, delta(1..10), &options).unwrap();
            builder.add(b"key", Lsn::new(1), 0, &value).unwrap();
            builder.finish(KeyRange::ALL).unwrap();
        });
        assert!(peak_build < 5 * MIB, "{peak_build} bytes besides the value");
        let reader = open(&file).unwrap();
        let (found, peak_get) = peak(|| reader.get(b"key", Lsn::MAX).next().unwrap().unwrap());
        assert!(found.value == value);
        assert!(peak_get < 3 * value.len(), "{peak_get} bytes for a value of {}", value.len());
    }
}

/// A length in a block's header, with a checksum that is right for it.
#[test]
fn a_wrong_length_is_refused_before_memory_is_taken() {
    let mut model = Model::new();
    model.insert((b"key".to_vec(), 5), (0, vec![1; 100]));
    model.insert((b"long".to_vec(), 5), (0, vec![2; 5_000]));
    let file = build(delta(1..10), &options(Compression::Lz4, 256), &model);
    for (field, codec) in [(4, None), (8, None), (4, Some(0)), (4, Some(1)), (4, Some(2))] {
        for block in blocks(&file) {
            let mut damaged = file.clone();
            for length in [u32::MAX, 1 << 31, 1 << 30] {
                damaged[block + field..block + field + 4].copy_from_slice(&length.to_le_bytes());
                if let Some(codec) = codec {
                    damaged[block + 1] = codec;
                }
                seal_block(&mut damaged, &file, block);
                let (result, peak) = peak(|| {
                    let reader = open(&damaged)?;
                    reader.verify()?;
                    scan(&reader, KeyRange::ALL)
                });
                assert!(result.is_err());
                assert!(peak < MIB, "{peak} bytes for a length of {length}");
            }
        }
    }
}

/// Where blocks begin, by their lengths.
fn blocks(file: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut offset = 80;
    while offset < file.len() - 248 {
        offsets.push(offset);
        offset += 16 + stored_bytes(file, offset);
    }
    offsets
}

fn stored_bytes(file: &[u8], block: usize) -> usize {
    u32::from_le_bytes(file[block + 8..block + 12].try_into().unwrap()) as usize
}

/// Makes the checksum of a block right, which has the content that it had in `original`.
fn seal_block(file: &mut [u8], original: &[u8], block: usize) {
    let end = block + 16 + stored_bytes(original, block);
    let mut checksum = crc32c::crc32c(&FILE.0);
    checksum = crc32c::crc32c_append(checksum, &(block as u64).to_le_bytes());
    checksum = crc32c::crc32c_append(checksum, &file[block..block + 12]);
    checksum = crc32c::crc32c_append(checksum, &file[block + 16..end]);
    file[block + 12..block + 16].copy_from_slice(&checksum.to_le_bytes());
}
