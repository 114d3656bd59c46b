#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use postgres_formats::Oid;
use postgres_formats::relpath::BLOCKS_PER_SEGMENT;

use super::*;
use crate::presence;
use crate::segment_file::Object;
use crate::source::FetchError;

const DURABLE: Durability = Durability { fsync: true, retries_failed_sync: false };

/// Every byte of a page on the page server is the low byte of its block number plus 100.
struct FakeServer {
    fetched: Vec<(u32, u16)>,
    hinted: Vec<(u32, u16)>,
    /// Whether what was hinted at is here at once.
    hints_arrive: bool,
    before_reply: Box<dyn FnMut()>,
}

impl FakeServer {
    fn new() -> FakeServer {
        FakeServer {
            fetched: Vec::new(),
            hinted: Vec::new(),
            hints_arrive: false,
            before_reply: Box::new(|| ()),
        }
    }

    fn process(&mut self) -> Process<'_> {
        Process { durability: DURABLE, in_recovery: false, source: self }
    }
}

fn base_byte(block: u32) -> u8 {
    (block as u8).wrapping_add(100)
}

impl PageSource for FakeServer {
    fn pages(&mut self, object: Object, first: u32, count: u16) -> Result<Bytes, FetchError> {
        assert!(!matches!(object, Object::Rel(rel) if rel.rel != Oid(16384)));
        self.fetched.push((first, count));
        (self.before_reply)();
        let blocks = first..first + u32::from(count);
        Ok(blocks.flat_map(|block| vec![base_byte(block); BLCKSZ]).collect())
    }

    fn hint(&mut self, _: Object, first: u32, count: u16) -> u32 {
        self.hinted.push((first, count));
        first + u32::from(count)
    }

    fn is_hinted(&self, _: Object, _: u32) -> bool {
        false
    }

    fn take_hinted(&mut self, _: Object, first: u32) -> Option<Bytes> {
        let hint = self.hinted.iter().find(|(from, _)| *from == first && self.hints_arrive)?;
        let blocks = first..first + u32::from(hint.1);
        Some(blocks.flat_map(|block| vec![base_byte(block); BLCKSZ]).collect())
    }

    fn send_hints(&mut self) {}
}

struct Stub {
    _dir: tempfile::TempDir,
    data: PathBuf,
    map: PathBuf,
    file: SegmentFile,
}

impl Stub {
    fn new(nblocks: u32) -> Stub {
        Stub::of_segment("base/5/16384", nblocks)
    }

    fn of_segment(path: &str, nblocks: u32) -> Stub {
        let dir = tempfile::tempdir().unwrap();
        let (data, map) = (dir.path().join("data"), dir.path().join("map"));
        File::create(&data).unwrap().set_len(u64::from(nblocks) * BLOCK_BYTES).unwrap();
        presence::create(&map, nblocks).unwrap();
        Stub { _dir: dir, data, map, file: SegmentFile::parse(path).unwrap() }
    }

    fn open(&self, writable: bool) -> Opened {
        let file = OpenOptions::new().read(true).write(writable).open(&self.data).unwrap();
        let boot = BootId::current().unwrap();
        let lazy = LazyFile::new(file.as_raw_fd(), writable, self.file, &self.map, boot);
        Opened { lazy: lazy.unwrap().unwrap(), file }
    }
}

struct Opened {
    lazy: LazyFile,
    file: File,
}

impl Opened {
    /// The first byte of each page, after making sure that all its bytes are the same.
    fn read(&self, server: &mut FakeServer, blocks: Range<u32>) -> Vec<u8> {
        let mut bytes = vec![0; blocks.len() * BLCKSZ];
        let offset = u64::from(blocks.start) * BLOCK_BYTES;
        if !self.lazy.is_ready_to_read(offset, bytes.len()) {
            self.lazy.before_read(offset, bytes.len(), &mut server.process()).unwrap();
        }
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
            .chunks(BLCKSZ)
            .map(|page| {
                assert!(page.iter().all(|byte| *byte == page[0]));
                page[0]
            })
            .collect()
    }

    fn write(&self, server: &mut FakeServer, block: u32, byte: u8) {
        self.write_bytes(server, u64::from(block) * BLOCK_BYTES, &[byte; BLCKSZ]);
    }

    fn write_bytes(&self, server: &mut FakeServer, offset: u64, bytes: &[u8]) {
        let mut write = || self.file.write_at(bytes, offset).unwrap() as isize;
        let written =
            self.lazy.write(offset, bytes.len(), &mut server.process(), &mut write).unwrap();
        assert_eq!(written as usize, bytes.len());
    }

    fn truncate(&self, server: &mut FakeServer, length: u64) {
        let mut truncate = || self.file.set_len(length).map_or(-1, |()| 0);
        assert_eq!(self.lazy.truncate(length, &mut server.process(), &mut truncate), Ok(0));
    }
}

#[test]
fn absent_blocks_are_fetched_once() {
    let (stub, mut server) = (Stub::new(200), FakeServer::new());
    for writable in [true, false] {
        assert_eq!(stub.open(writable).read(&mut server, 6..7), [106]);
    }
    // With its neighbours.
    assert_eq!(server.fetched, [(4, 4)]);
    let expected: Vec<u8> = (0..10).map(base_byte).collect();
    assert_eq!(stub.open(false).read(&mut server, 0..10), expected);
    // Those that were there already are left out; after them comes read-ahead.
    assert_eq!(server.fetched, [(4, 4), (0, 4), (8, 8)]);
}

#[test]
fn neighbours_that_are_present_or_not_there_are_left_out() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    opened.write(&mut server, 5, 1);
    opened.write(&mut server, 11, 1);
    assert_eq!(opened.read(&mut server, 7..8), [107]);
    assert_eq!(opened.read(&mut server, 9..10), [109]);
    assert_eq!(server.fetched, [(6, 2), (8, 3)]);
}

#[test]
fn only_the_page_that_is_read_must_be_there() {
    struct Later;
    impl PageSource for Later {
        fn pages(&mut self, _: Object, first: u32, count: u16) -> Result<Bytes, FetchError> {
            match first {
                0..2 => Err(FetchError::NotThere("gone".to_owned())),
                _ => Ok(vec![base_byte(first); usize::from(count) * BLCKSZ].into()),
            }
        }

        fn hint(&mut self, _: Object, first: u32, _: u16) -> u32 {
            first
        }

        fn is_hinted(&self, _: Object, _: u32) -> bool {
            false
        }

        fn send_hints(&mut self) {}
    }
    let stub = Stub::new(20);
    let opened = stub.open(true);
    let mut process = Process { durability: DURABLE, in_recovery: false, source: &mut Later };
    assert!(!opened.lazy.is_ready_to_read(2 * BLOCK_BYTES, BLCKSZ));
    opened.lazy.before_read(2 * BLOCK_BYTES, BLCKSZ, &mut process).unwrap();
    assert!(opened.lazy.map.is_present(2));
    assert!(!opened.lazy.map.is_present(1));
}

#[test]
fn a_sequential_read_asks_ahead() {
    let (stub, mut server) = (Stub::new(200), FakeServer::new());
    let opened = stub.open(false);
    for block in 0..200 {
        assert_eq!(opened.read(&mut server, block..block + 1), [base_byte(block)]);
    }
    let growing = [(0, 4), (4, 8), (12, 16), (28, 32), (60, 64), (124, 64), (188, 12)];
    assert_eq!(server.fetched, growing);
    assert_eq!(server.hinted, [(124, 64), (188, 12), (188, 12)]);
}

#[test]
fn a_hint_concerns_absent_blocks() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    opened.write(&mut server, 5, 1);
    for (first, count) in [(5, 1), (4, 3), (18, 10), (20, 5)] {
        opened.lazy.will_need(first * BLOCK_BYTES, count * BLCKSZ, &mut server.process());
    }
    assert_eq!(server.hinted, [(4, 1), (6, 1), (18, 2)]);
}

#[test]
fn a_segment_knows_its_place() {
    let (stub, mut server) = (Stub::of_segment("base/5/16384.2", 10), FakeServer::new());
    stub.open(true).read(&mut server, 8..9);
    assert_eq!(server.fetched, [(2 * BLOCKS_PER_SEGMENT + 8, 2)]);
    let (stub, mut server) = (Stub::of_segment("pg_xact/000B", 32), FakeServer::new());
    stub.open(true).read(&mut server, 3..4);
    assert_eq!(server.fetched, [(11 * 32 + 3, 1)]);
}

#[test]
fn written_blocks_are_not_fetched() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    opened.write(&mut server, 5, 1);
    opened.write(&mut server, 20, 2);
    opened.write(&mut server, 30, 3);
    assert_eq!(opened.read(&mut server, 5..6), [1]);
    assert_eq!(opened.read(&mut server, 20..31), [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    assert!(server.fetched.is_empty());
    assert_eq!(opened.read(&mut server, 4..7), [104, 1, 106]);
}

#[test]
fn a_partial_write_changes_only_its_bytes() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    let start = BLOCK_BYTES - 10;
    opened.write_bytes(&mut server, start, &[1; BLCKSZ + 20]);
    assert_eq!(server.fetched, [(0, 1), (2, 1)]);
    let mut bytes = vec![0; 3 * BLCKSZ];
    opened.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[BLCKSZ - 11], bytes[BLCKSZ - 10]), (100, 1));
    assert_eq!((bytes[2 * BLCKSZ + 9], bytes[2 * BLCKSZ + 10]), (1, 102));
    assert_eq!(opened.read(&mut server, 1..2), [1]);
    assert_eq!(server.fetched.len(), 2);
}

#[test]
fn what_was_cut_off_comes_back_as_zeros() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    opened.truncate(&mut server, 5 * BLOCK_BYTES);
    opened.write(&mut server, 8, 1);
    assert_eq!(opened.read(&mut server, 4..9), [104, 0, 0, 0, 1]);
    assert_eq!(opened.file.metadata().unwrap().len(), 9 * BLOCK_BYTES);
    opened.truncate(&mut server, 0);
    opened.truncate(&mut server, 3 * BLOCK_BYTES);
    assert_eq!(opened.read(&mut server, 0..3), [0, 0, 0]);
}

#[test]
fn a_cut_inside_a_block_keeps_its_beginning() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    opened.truncate(&mut server, 5 * BLOCK_BYTES + 1);
    opened.truncate(&mut server, 6 * BLOCK_BYTES);
    let mut bytes = vec![0; BLCKSZ];
    opened.file.read_exact_at(&mut bytes, 5 * BLOCK_BYTES).unwrap();
    assert_eq!((bytes[0], bytes[1]), (105, 0));
    opened.lazy.before_read(5 * BLOCK_BYTES, BLCKSZ, &mut server.process()).unwrap();
    assert_eq!(server.fetched, [(5, 1)]);
}

#[test]
fn reading_beyond_the_end_neither_fetches_nor_lengthens() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    // Killed after truncating, before saying so.
    File::options().write(true).open(&stub.data).unwrap().set_len(5 * BLOCK_BYTES).unwrap();
    let opened = stub.open(true);
    opened.lazy.before_read(0, 20 * BLCKSZ, &mut server.process()).unwrap();
    assert_eq!(server.fetched, [(0, 5)]);
    assert_eq!(opened.file.metadata().unwrap().len(), 5 * BLOCK_BYTES);
    opened.truncate(&mut server, 10 * BLOCK_BYTES);
    assert_eq!(opened.read(&mut server, 4..6), [104, 0]);
}

#[test]
fn a_page_that_was_written_meanwhile_is_not_overwritten() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let (reader, writer) = (stub.open(false), stub.open(true));
    server.before_reply = Box::new(move || writer.write(&mut FakeServer::new(), 2, 9));
    assert_eq!(reader.read(&mut server, 0..4), [100, 101, 9, 103]);
}

#[test]
fn a_file_that_was_cut_meanwhile_is_not_lengthened() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let (reader, writer) = (stub.open(false), stub.open(true));
    server.before_reply =
        Box::new(move || writer.truncate(&mut FakeServer::new(), 2 * BLOCK_BYTES));
    reader.lazy.before_read(0, 4 * BLCKSZ, &mut server.process()).unwrap();
    assert_eq!(fs::metadata(&stub.data).unwrap().len(), 2 * BLOCK_BYTES);
    assert_eq!(reader.read(&mut server, 0..2), [100, 101]);
}

#[test]
fn a_failed_fetch_leaves_the_block_absent() {
    struct Unreachable;
    impl PageSource for Unreachable {
        fn pages(&mut self, _: Object, _: u32, _: u16) -> Result<Bytes, FetchError> {
            Err(FetchError::Failed("gone".to_owned()))
        }

        fn hint(&mut self, _: Object, first: u32, _: u16) -> u32 {
            first
        }

        fn is_hinted(&self, _: Object, _: u32) -> bool {
            false
        }

        fn send_hints(&mut self) {}
    }
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    let mut process = Process { durability: DURABLE, in_recovery: false, source: &mut Unreachable };
    assert_eq!(opened.lazy.before_read(0, BLCKSZ, &mut process), Err(Errno(libc::EIO)));
    // Writing a whole block needs no page server.
    let mut write = || opened.file.write_at(&[5; BLCKSZ], BLOCK_BYTES).unwrap() as isize;
    assert_eq!(
        opened.lazy.write(BLOCK_BYTES, BLCKSZ, &mut process, &mut write),
        Ok(BLCKSZ as isize)
    );
    assert_eq!(opened.read(&mut server, 0..3), [100, 5, 102]);
}

#[test]
fn failed_and_short_writes_mark_only_what_was_written() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    let mut fail = || -1;
    assert_eq!(opened.lazy.write(0, BLCKSZ, &mut server.process(), &mut fail), Ok(-1));
    let mut short = || opened.file.write_at(&[5; BLCKSZ + 1], 0).unwrap() as isize;
    let written = opened.lazy.write(0, 3 * BLCKSZ, &mut server.process(), &mut short);
    assert_eq!(written, Ok(BLCKSZ as isize + 1));
    assert_eq!(opened.read(&mut server, 0..2), [5, 101]);
}

#[test]
fn only_a_successful_sync_makes_bits_durable() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    opened.write(&mut server, 1, 1);
    let mut during_sync = || {
        opened.write(&mut FakeServer::new(), 2, 2);
        0
    };
    assert_eq!(opened.lazy.sync(DURABLE, &mut during_sync), Ok(0));
    opened.write(&mut server, 3, 3);
    assert_eq!(opened.lazy.sync(DURABLE, &mut || -1), Ok(-1));
    // The next process starts from what is durable: block 1 only.
    assert_eq!(stub.open(true).read(&mut server, 1..4), [1, 102, 103]);
}

#[test]
fn without_fsync_everything_counts_as_durable() {
    let (stub, mut server) = (Stub::new(20), FakeServer::new());
    let opened = stub.open(true);
    let durability = Durability { fsync: false, retries_failed_sync: false };
    let mut process = Process { durability, in_recovery: false, source: &mut server };
    let mut write = || opened.file.write_at(&[5; BLCKSZ], 0).unwrap() as isize;
    opened.lazy.write(0, BLCKSZ, &mut process, &mut write).unwrap();
    opened.lazy.map.distrust_live();
    assert_eq!(stub.open(true).read(&mut server, 0..1), [5]);
}

/// A page server whose state at the base has the first two blocks only.
struct Shorter {
    during: Box<dyn FnMut()>,
}

impl PageSource for Shorter {
    fn pages(&mut self, _: Object, first: u32, count: u16) -> Result<Bytes, FetchError> {
        if first + u32::from(count) > 2 {
            (self.during)();
            return Err(FetchError::NotThere("gone".to_owned()));
        }
        Ok(vec![base_byte(first); usize::from(count) * BLCKSZ].into())
    }

    fn hint(&mut self, _: Object, first: u32, _: u16) -> u32 {
        first
    }

    fn is_hinted(&self, _: Object, _: u32) -> bool {
        false
    }

    fn send_hints(&mut self) {}
}

#[test]
fn in_recovery_blocks_that_are_to_be_cut_off_are_zeros() {
    let stub = Stub::new(20);
    let opened = stub.open(true);
    // What a killed process has left there.
    opened.file.write_all_at(&[9; BLCKSZ], 3 * BLOCK_BYTES).unwrap();
    let mut source = Shorter { during: Box::new(|| ()) };
    let mut process = Process { durability: DURABLE, in_recovery: true, source: &mut source };
    opened.lazy.before_read(0, 4 * BLCKSZ, &mut process).unwrap();
    let mut bytes = vec![1; 4 * BLCKSZ];
    opened.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!([0, 1, 2, 3].map(|block| bytes[block * BLCKSZ]), [100, 101, 0, 0]);
}

#[test]
fn whoever_reads_a_block_that_is_being_cut_off_waits_for_that() {
    let stub = Stub::new(20);
    let (reader, writer) = (stub.open(false), stub.open(true));
    let cut = move || writer.truncate(&mut FakeServer::new(), 2 * BLOCK_BYTES);
    let mut source = Shorter { during: Box::new(cut) };
    let mut process = Process { durability: DURABLE, in_recovery: false, source: &mut source };
    reader.lazy.before_read(2 * BLOCK_BYTES, 2 * BLCKSZ, &mut process).unwrap();
    assert_eq!(fs::metadata(&stub.data).unwrap().len(), 2 * BLOCK_BYTES);

    // A file that has been removed meanwhile.
    let stub = Stub::new(20);
    let (reader, path) = (stub.open(false), stub.data.clone());
    let mut source = Shorter { during: Box::new(move || drop(fs::remove_file(&path))) };
    let mut process = Process { durability: DURABLE, in_recovery: false, source: &mut source };
    reader.lazy.before_read(3 * BLOCK_BYTES, BLCKSZ, &mut process).unwrap();

    // Nobody cuts it.
    let stub = Stub::new(20);
    let reader = stub.open(false);
    let mut source = Shorter { during: Box::new(|| ()) };
    let mut process = Process { durability: DURABLE, in_recovery: false, source: &mut source };
    let error = reader.lazy.before_read(3 * BLOCK_BYTES, BLCKSZ, &mut process);
    assert_eq!(error, Err(Errno(libc::EIO)));
}

#[test]
fn room_is_found_for_what_comes_next_and_nothing_else_changes() {
    use std::os::unix::fs::MetadataExt;

    let stub = Stub::new(RESERVED_BLOCKS + 100);
    let opened = stub.open(true);
    let bytes_on_disk = || opened.file.metadata().unwrap().blocks() * 512;
    let mut server = FakeServer::new();
    opened.read(&mut server, 3..4);
    assert!(bytes_on_disk() < 64 * BLOCK_BYTES, "a few blocks are not many");
    // Where some are here already there has been a reason not to.
    opened.read(&mut server, 100..160);
    assert!(bytes_on_disk() < 128 * BLOCK_BYTES);
    let part = RESERVED_BLOCKS;
    opened.read(&mut server, part..part + RESERVE_FROM);
    let reserved = bytes_on_disk();
    // Some file systems cannot.
    let could = reserved >= 160 * BLOCK_BYTES;
    assert!(could || reserved < 128 * BLOCK_BYTES, "{reserved}");
    assert_eq!(opened.file.metadata().unwrap().len(), u64::from(part + 100) * BLOCK_BYTES);
    assert!(!opened.lazy.map.is_present(part + 99), "what has room is not present");
    assert_eq!(
        opened.read(&mut server, part + 60..part + 100),
        (part + 60..part + 100).map(base_byte).collect::<Vec<_>>()
    );
    // What was cut off gets none.
    let stub = Stub::new(2 * RESERVED_BLOCKS);
    let opened = stub.open(true);
    let mut cut =
        || i32::from(opened.file.set_len(u64::from(part + 20) * BLOCK_BYTES).is_err()) as isize;
    let length = u64::from(part + 20) * BLOCK_BYTES;
    assert_eq!(opened.lazy.truncate(length, &mut server.process(), &mut cut), Ok(0));
    opened.read(&mut server, part..part + 20);
    assert!(opened.file.metadata().unwrap().blocks() * 512 < 24 * BLOCK_BYTES);
    assert_eq!(opened.file.metadata().unwrap().len(), length);
}

/// Processes that take turns at pieces of a table.
#[test]
fn pieces_that_nobody_has_come_to_come_along() {
    let stub = Stub::new(6000);
    let opened = stub.open(true);
    let mut server = FakeServer::new();
    let scan = |server: &mut FakeServer, first: u32| {
        server.fetched.clear();
        server.hinted.clear();
        for block in first..first + 32 {
            assert_eq!(opened.read(server, block..block + 1), [base_byte(block)]);
        }
    };
    for first in [0, 96, 160] {
        scan(&mut server, first);
    }
    assert_eq!(server.fetched, [(160, 32)]);
    assert_eq!(server.hinted, [(672, 32), (1184, 32), (1696, 32)]);
    // They have not come: whoever comes there asks for himself.
    assert!(!opened.lazy.map.is_present(672));
    server.hints_arrive = true;
    scan(&mut server, 256);
    let there = |first: u32| (first..first + 32).all(|block| opened.lazy.map.is_present(block));
    assert!([256, 768, 1280, 1792].into_iter().all(there));
    assert!(!opened.lazy.map.is_present(800) && !opened.lazy.map.is_present(767));
    scan(&mut server, 768);
    assert_eq!((server.fetched.as_slice(), server.hinted.as_slice()), (&[][..], &[][..]));
    // What somebody has written meanwhile is not overwritten.
    let mut written = || {
        opened.file.write_all_at(&[7; BLCKSZ], 1376 * BLOCK_BYTES).unwrap();
        BLCKSZ as isize
    };
    let offset = 1376 * BLOCK_BYTES;
    opened.lazy.write(offset, BLCKSZ, &mut server.process(), &mut written).unwrap();
    scan(&mut server, 864);
    assert_eq!(server.hinted, [(1377, 31), (1888, 32), (2400, 32)]);
    assert_eq!(opened.read(&mut server, 1376..1378), [7, base_byte(1377)]);
}
