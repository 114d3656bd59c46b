//! A small model of PostgreSQL on one stub whose base moves: buffers, WAL, checkpoints, crashes.
//!
//! What the server reads is held against the whole history, after every step and every recovery.
//! A change of a page depends on what the page was, so a change that is lost or done twice is seen.
//! Without page images redo depends on every page that it reads.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lazyfiles::base::{self, BaseLsn};
use lazyfiles::lazy_file::{Durability, LazyFile, Process};
use lazyfiles::presence::{self, BootId, Map};
use lazyfiles::segment_file::{Object, SegmentFile};
use lazyfiles::source::{FetchError, PageSource};
use postgres_formats::{BLCKSZ, Lsn};

const BLOCKS: u32 = 24;
const BLOCKS_MAX: u32 = 40;
const STEPS: u32 = 150;
const SEEDS: u64 = 300;

/// A page: the LSN of its last change and what the changes have made of it. New is `(0, 0)`.
type Page = (u64, u64);

#[derive(Clone, Copy, Debug)]
enum Record {
    /// Changes a page, or begins it anew; `image` says whether redo need not read it.
    Change {
        block: u32,
        value: u64,
        anew: bool,
        image: Option<u64>,
    },
    Truncate {
        blocks: u32,
    },
}

fn changed(page: Page, lsn: u64, value: u64, anew: bool) -> Page {
    let before = if anew { 1 } else { page.1 };
    (lsn, before.wrapping_mul(31).wrapping_add(value))
}

/// Record n ends at LSN n + 1; at LSN 1 there are `BLOCKS` pages.
#[derive(Default)]
struct History {
    records: Vec<Record>,
}

impl History {
    fn end(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    fn at(&self, lsn: u64) -> Vec<Page> {
        let mut pages: Vec<Page> = (0..BLOCKS).map(|block| (1, u64::from(block) + 7)).collect();
        for (record, lsn) in self.records.iter().zip(2..=lsn) {
            match *record {
                Record::Change { block, value, anew, .. } => {
                    let block = block as usize;
                    pages.resize(pages.len().max(block + 1), (0, 0));
                    pages[block] = changed(pages[block], lsn, value, anew);
                }
                Record::Truncate { blocks } => pages.truncate(blocks as usize),
            }
        }
        pages
    }
}

fn bytes_of(page: Page) -> Vec<u8> {
    let mut bytes = vec![0; BLCKSZ];
    bytes[..8].copy_from_slice(&page.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&page.1.to_le_bytes());
    bytes[BLCKSZ - 8..].copy_from_slice(&page.1.to_le_bytes());
    bytes
}

fn page_of(bytes: &[u8]) -> Page {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(u64_at(8), u64_at(BLCKSZ - 8), "a torn page");
    (u64_at(0), u64_at(8))
}

/// The page server: what the history says at the base.
struct Server<'a> {
    history: &'a History,
    base: &'a BaseLsn,
}

impl PageSource for Server<'_> {
    fn pages(&mut self, _: Object, first: u32, count: u16) -> Result<Bytes, FetchError> {
        let pages = self.history.at(self.base.get().as_u64());
        match pages.get(first as usize..first as usize + usize::from(count)) {
            Some(pages) => Ok(pages.iter().flat_map(|page| bytes_of(*page)).collect()),
            None => Err(FetchError::NotThere(format!("{first}+{count} of {}", pages.len()))),
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

/// One page that has been got already.
struct Held(Bytes);

impl PageSource for Held {
    fn pages(&mut self, _: Object, _: u32, _: u16) -> Result<Bytes, FetchError> {
        Ok(self.0.clone())
    }

    fn hint(&mut self, _: Object, first: u32, _: u16) -> u32 {
        first
    }

    fn is_hinted(&self, _: Object, _: u32) -> bool {
        false
    }

    fn send_hints(&mut self) {}
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Thrown where the server is killed.
struct Killed;

struct Model {
    random: Random,
    _dir: tempfile::TempDir,
    data: PathBuf,
    map: PathBuf,
    base: BaseLsn,
    history: History,
    /// Up to where the WAL is on disk.
    flushed: u64,
    /// Where recovery would begin.
    redo: u64,
    page_images: bool,
    imaged: BTreeSet<u32>,
    /// Page, and whether it was changed since it was read or written.
    buffers: BTreeMap<u32, (Page, bool)>,
    size: u32,
    file: File,
    /// None if the file is an ordinary one by now.
    lazy: Option<LazyFile>,
    /// A page that a process from outside has got and not brought in yet.
    held: Option<(u32, Bytes)>,
}

fn open(data: &Path, map: &Path) -> (File, Option<LazyFile>) {
    let file = OpenOptions::new().read(true).write(true).open(data).unwrap();
    let boot = BootId::current().unwrap();
    let lazy = LazyFile::new(file.as_raw_fd(), true, segment(), map, boot).unwrap();
    (file, lazy)
}

fn segment() -> SegmentFile {
    SegmentFile::parse("base/5/16384").unwrap()
}

impl Model {
    fn new(seed: u64) -> Model {
        // Memory, where there is such a folder: maps are synced often.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (data, map) = (dir.path().join("data"), dir.path().join("map"));
        File::create(&data).unwrap().set_len(u64::from(BLOCKS) * BLCKSZ as u64).unwrap();
        presence::create(&map, BLOCKS).unwrap();
        let base_path = dir.path().join("base");
        std::fs::write(&base_path, base::encode(Lsn::new(1))).unwrap();
        let (file, lazy) = open(&data, &map);
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Model {
            page_images: random.one_in(2),
            random,
            _dir: dir,
            base: BaseLsn::open(&base_path).unwrap(),
            data,
            map,
            history: History::default(),
            flushed: 1,
            redo: 1,
            imaged: BTreeSet::new(),
            buffers: BTreeMap::new(),
            size: BLOCKS,
            file,
            lazy,
            held: None,
        }
    }

    fn with_process<T>(
        &mut self,
        in_recovery: bool,
        call: impl FnOnce(Option<&LazyFile>, &File, &mut Process<'_>) -> T,
    ) -> T {
        let mut source = Server { history: &self.history, base: &self.base };
        let durability = Durability { fsync: true, retries_failed_sync: false };
        let lazy = self.lazy.as_ref();
        call(lazy, &self.file, &mut Process { durability, in_recovery, source: &mut source })
    }

    fn read_file(&mut self, block: u32, in_recovery: bool) -> Page {
        let offset = u64::from(block) * BLCKSZ as u64;
        self.with_process(in_recovery, |lazy, file, process| {
            if let Some(lazy) = lazy {
                lazy.before_read(offset, BLCKSZ, process).unwrap();
            }
            let mut bytes = vec![0; BLCKSZ];
            file.read_exact_at(&mut bytes, offset).unwrap();
            page_of(&bytes)
        })
    }

    fn write_file(&mut self, block: u32, page: Page) {
        let offset = u64::from(block) * BLCKSZ as u64;
        self.with_process(false, |lazy, file, process| {
            let mut write = || file.write_at(&bytes_of(page), offset).unwrap() as isize;
            let written = match lazy {
                Some(lazy) => lazy.write(offset, BLCKSZ, process, &mut write),
                None => Ok(write()),
            };
            assert_eq!(written, Ok(BLCKSZ as isize));
        });
    }

    fn cut_file(&mut self, blocks: u32) {
        let length = u64::from(blocks) * BLCKSZ as u64;
        self.with_process(false, |lazy, file, process| {
            let mut truncate = || file.set_len(length).map_or(-1, |()| 0);
            let cut = match lazy {
                Some(lazy) => lazy.truncate(length, process, &mut truncate),
                None => Ok(truncate()),
            };
            assert_eq!(cut, Ok(0));
        });
    }

    /// A process from outside fills in some blocks: with pages that it gets now, or with one that it got
    /// some time ago.
    fn fill_from_outside(&mut self) {
        let (file, _) = open(&self.data, &self.map);
        let boot = BootId::current().unwrap();
        let lazy = LazyFile::from_outside(&file, segment(), &self.map, boot).unwrap();
        let Some(lazy) = lazy else { return };
        let mut server = Server { history: &self.history, base: &self.base };
        let block = self.random.below(u64::from(BLOCKS)) as u32;
        let object = segment().object;
        if self.held.is_none() && lazy.next_absent(block..BLOCKS, 1).start == block {
            self.held = server.pages(object, block, 1).ok().map(|page| (block, page));
        } else if let Some((block, page)) = self.held.take_if(|_| self.random.one_in(3)) {
            let mut source = Held(page);
            let durability = Durability { fsync: true, retries_failed_sync: false };
            let mut process = Process { durability, in_recovery: false, source: &mut source };
            lazy.fill(block..block + 1, &mut process).unwrap();
        } else {
            let durability = Durability { fsync: true, retries_failed_sync: false };
            let mut process = Process { durability, in_recovery: false, source: &mut server };
            let run = lazy.next_absent(block..BLOCKS, 3);
            lazy.fill(run, &mut process).unwrap();
        }
    }

    /// Gets a page into its buffer, and others out of theirs.
    fn load(&mut self, block: u32, in_recovery: bool) -> Result<Page, Killed> {
        if let Some((page, _)) = self.buffers.get(&block) {
            return Ok(*page);
        }
        let page = self.read_file(block, in_recovery);
        self.buffers.insert(block, (page, false));
        self.evict(5)?;
        Ok(self.buffers.get(&block).map_or(page, |(page, _)| *page))
    }

    fn evict(&mut self, keep: usize) -> Result<(), Killed> {
        while self.buffers.len() > keep {
            let nth = self.random.below(self.buffers.len() as u64) as usize;
            let block = *self.buffers.keys().nth(nth).unwrap();
            let (page, dirty) = self.buffers[&block];
            if dirty {
                self.write_out(block, page)?;
            }
            self.buffers.remove(&block);
        }
        Ok(())
    }

    /// The WAL first. Now and then the server is killed between the write and the map's bit.
    fn write_out(&mut self, block: u32, page: Page) -> Result<(), Killed> {
        self.flushed = self.flushed.max(page.0);
        if self.random.one_in(40) {
            let offset = u64::from(block) * BLCKSZ as u64;
            self.file.write_all_at(&bytes_of(page), offset).unwrap();
            return Err(Killed);
        }
        self.write_file(block, page);
        Ok(())
    }

    fn log(&mut self, record: Record) -> u64 {
        self.history.records.push(record);
        self.history.end()
    }

    fn change(&mut self) -> Result<(), Killed> {
        let grow = self.size < BLOCKS_MAX && self.random.one_in(6);
        if !grow && self.size == 0 {
            return Ok(());
        }
        let block = if grow { self.size } else { self.random.below(u64::from(self.size)) as u32 };
        let anew = grow || self.random.one_in(5);
        let before = if anew { (0, 0) } else { self.load(block, false)? };
        // The first change of a page, and nobody but redo may take it for one.
        let anew = anew || before.0 == 0;
        if grow {
            // PostgreSQL extends the file with zeros first.
            self.write_file(block, (0, 0));
            self.size += 1;
        }
        let value = self.random.below(1 << 40);
        let lsn = self.history.end() + 1;
        let after = changed(before, lsn, value, anew);
        let image = (self.page_images && self.imaged.insert(block)).then_some(after.1);
        self.log(Record::Change { block, value, anew, image });
        self.buffers.insert(block, (after, true));
        self.evict(5)
    }

    fn truncate(&mut self) -> Result<(), Killed> {
        let blocks = self.random.below(u64::from(self.size) + 1) as u32;
        self.flushed = self.log(Record::Truncate { blocks });
        if self.random.one_in(3) {
            self.move_base();
        }
        if self.random.one_in(3) {
            self.fill_from_outside();
        }
        if self.random.one_in(4) {
            return Err(Killed);
        }
        self.buffers.retain(|block, _| *block < blocks);
        self.imaged.retain(|block| *block < blocks);
        self.cut_file(blocks);
        self.size = blocks;
        if self.random.one_in(8) { Err(Killed) } else { Ok(()) }
    }

    fn checkpoint(&mut self) -> Result<(), Killed> {
        let redo = self.history.end();
        self.imaged.clear();
        let dirty: Vec<_> = self.buffers.iter().filter(|(_, (_, dirty))| *dirty).collect();
        let dirty: Vec<_> = dirty.into_iter().map(|(block, (page, _))| (*block, *page)).collect();
        for (block, page) in dirty {
            self.write_out(block, page)?;
            self.buffers.insert(block, (page, false));
        }
        self.with_process(false, |lazy, _, process| {
            if let Some(lazy) = lazy {
                assert_eq!(lazy.sync(process.durability, &mut || 0), Ok(0));
            }
        });
        self.flushed = self.history.end();
        if self.random.one_in(6) {
            return Err(Killed);
        }
        self.redo = redo;
        Ok(())
    }

    /// To anywhere in the durable WAL.
    fn move_base(&mut self) {
        let to = 1 + self.random.below(self.flushed);
        let to = if self.random.one_in(2) { self.flushed } else { to };
        self.base.advance(Lsn::new(to)).unwrap();
    }

    fn step(&mut self) -> Result<(), Killed> {
        match self.random.below(27) {
            0..=9 => self.change()?,
            10..=16 if self.size > 0 => {
                let block = self.random.below(u64::from(self.size)) as u32;
                let page = self.load(block, false)?;
                let expected = self.history.at(self.history.end());
                assert_eq!(page, expected.get(block as usize).copied().unwrap_or_default());
            }
            17 => self.truncate()?,
            18 => self.checkpoint()?,
            19..=21 => self.move_base(),
            22 => self.flushed = self.history.end(),
            23 => return Err(Killed),
            24..=26 => self.fill_from_outside(),
            _ => {}
        }
        Ok(())
    }

    /// The server dies, and sometimes the machine with it; then PostgreSQL recovers.
    fn crash(&mut self) -> Result<(), Killed> {
        self.history.records.truncate(self.flushed as usize - 1);
        self.buffers.clear();
        let boot = BootId::current().unwrap();
        if self.random.one_in(2) {
            // The machine.
            self.held = None;
            Map::open(&self.map, boot).unwrap().unwrap().distrust_live();
            let map = Map::open(&self.map, boot).unwrap().unwrap();
            let blocks = (self.file.metadata().unwrap().len() / BLCKSZ as u64) as u32;
            for block in (0..blocks).filter(|block| !map.is_present(*block)) {
                let offset = u64::from(block) * BLCKSZ as u64;
                self.file.write_all_at(&[0xAA; BLCKSZ], offset).unwrap();
            }
        }
        (self.file, self.lazy) = open(&self.data, &self.map);
        if self.random.one_in(2) {
            self.move_base();
        }
        self.fill_from_outside();
        self.recover()?;
        self.imaged.clear();
        self.checkpoint()
    }

    fn blocks_on_disk(&self) -> u32 {
        (self.file.metadata().unwrap().len() / BLCKSZ as u64) as u32
    }

    fn recover(&mut self) -> Result<(), Killed> {
        let mut missing = BTreeSet::new();
        for lsn in self.redo + 1..=self.history.end() {
            if self.random.one_in(200) {
                return Err(Killed);
            }
            if self.random.one_in(10) {
                self.fill_from_outside();
            }
            match self.history.records[lsn as usize - 2] {
                Record::Change { block, value, anew, image } => {
                    let (page, known) = match image {
                        Some(image) => ((lsn, image), true),
                        None if anew => (changed((0, 0), lsn, value, true), true),
                        None if block >= self.blocks_on_disk() => ((0, 0), false),
                        None => (self.load(block, true)?, false),
                    };
                    if known {
                        while self.blocks_on_disk() <= block {
                            self.write_file(self.blocks_on_disk(), (0, 0));
                        }
                        self.buffers.insert(block, (page, true));
                        missing.remove(&block);
                    } else if page.0 == 0 {
                        missing.insert(block);
                    } else if page.0 < lsn {
                        self.buffers.insert(block, (changed(page, lsn, value, false), true));
                    }
                    self.evict(5)?;
                }
                Record::Truncate { blocks } => {
                    self.buffers.retain(|block, _| *block < blocks);
                    missing.retain(|block| *block < blocks);
                    if self.blocks_on_disk() > blocks {
                        self.cut_file(blocks);
                    }
                }
            }
        }
        assert!(missing.is_empty(), "WAL speaks of blocks {missing:?}, which are missing");
        self.size = self.blocks_on_disk();
        Ok(())
    }

    fn check_everything(&mut self) {
        let mut expected = self.history.at(self.history.end());
        // A file may have been extended by zeros that no WAL speaks of.
        expected.resize(expected.len().max(self.size as usize), (0, 0));
        let found: Vec<Page> = (0..self.size)
            .map(|block| match self.buffers.get(&block) {
                Some((page, _)) => *page,
                None => self.read_file(block, false),
            })
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_moving_base_changes_nothing_that_is_read() {
    let seeds: Vec<u64> = match std::env::var("ZENITH_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=SEEDS).collect(),
    };
    for seed in seeds {
        let run = || {
            let mut model = Model::new(seed);
            let mut crashes = 0;
            for _ in 0..STEPS {
                let mut killed = model.step().is_err();
                while killed {
                    crashes += 1;
                    killed = model.crash().is_err();
                    if !killed && crashes % 3 == 0 {
                        model.check_everything();
                    }
                }
            }
            model.check_everything();
        };
        let result = std::panic::catch_unwind(run);
        assert!(result.is_ok(), "replay with ZENITH_SEED={seed}");
    }
}
