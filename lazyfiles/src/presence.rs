//! Presence maps: which blocks of a segment file, of a relation or an SLRU, are on the local disk.
//!
//! One map file per segment file that was laid out as a sparse stub. A segment file without a map
//! is an ordinary file. The bytes, and why a crash at any point leaves a map that says nothing
//! false, are in README.md, "The presence map".
//!
//! A block is **present** when its bit is set or when it lies at or beyond the map's *limit*.
//! The limit begins as the number of blocks in the stub and only ever goes down, by truncation;
//! bits only ever get set. A map holds all of this twice: the *live* half is what running processes
//! share, the *durable* half is what remains true when the machine loses power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use postgres_formats::relpath::BLOCKS_PER_SEGMENT;

use crate::mapping::Mapping;

const MAGIC: u64 = u64::from_le_bytes(*b"ZPRESENT");
const VERSION: u32 = 1;

/// Where the header's fields are, in bytes. README.md has the table.
mod at {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const NBLOCKS: usize = 12;
    pub const LIVE_LIMIT: usize = 16;
    pub const DURABLE_LIMIT: usize = 20;
    pub const LIVE_OF_BOOT: usize = 24;
    pub const LIVE_BITS: usize = 64;
}

// The bits are used in place as 64-bit words.
const _: () = assert!(cfg!(target_endian = "little"), "presence maps are little-endian");

/// What can be wrong with a presence map.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The operating system refused.
    #[error("could not {action} presence map {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The map.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is not a map, or a damaged one. It must not be taken for an empty one: the blocks
    /// that it describes may be holes.
    #[error("presence map {} is damaged: {what}", path.display())]
    Damaged {
        /// The map.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The map was written by a newer release.
    #[error("presence map {} has format version {version}, but this release knows only {VERSION}", path.display())]
    NewerVersion {
        /// The map.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A stub cannot have so many blocks.
    #[error("a segment file has at most {BLOCKS_PER_SEGMENT} blocks, not {0}")]
    TooManyBlocks(u32),
}

/// Identifies one run of the operating system, from boot to power-off.
///
/// The live half of a map that was last used in another run cannot be trusted: the kernel may have
/// written it to disk before the pages that it speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootId([u64; 2]);

impl BootId {
    /// Belongs to no run: the live half is yet to be made from the durable one.
    const NONE: BootId = BootId([0, 0]);

    /// The current run.
    pub fn current() -> io::Result<BootId> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        BootId::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "boot_id is not a UUID"))
    }

    fn parse(text: &str) -> Option<BootId> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        let half = |range: Range<usize>| u64::from_str_radix(digits.get(range)?, 16).ok();
        let id = BootId([half(0..16)?, half(16..32)?]);
        (digits.len() == 32 && id != BootId::NONE).then_some(id)
    }
}

/// Makes the map of a stub of `nblocks` blocks, all of them absent, and its folders.
///
/// The file must not exist yet. Nothing is synced: whoever lays out a data directory sees to it that no
/// server starts on one that a loss of power has taken a part of.
pub fn create(path: &Path, nblocks: u32) -> Result<(), PresenceError> {
    if nblocks > BLOCKS_PER_SEGMENT {
        return Err(PresenceError::TooManyBlocks(nblocks));
    }
    // Every byte is written, so that no store into the mapped file can meet a full disk.
    let mut bytes = vec![0; file_size(nblocks)];
    let mut put = |at: usize, value: &[u8]| {
        if let Some(field) = bytes.get_mut(at..at + value.len()) {
            field.copy_from_slice(value);
        }
    };
    put(at::MAGIC, &MAGIC.to_le_bytes());
    put(at::VERSION, &VERSION.to_le_bytes());
    put(at::NBLOCKS, &nblocks.to_le_bytes());
    put(at::LIVE_LIMIT, &nblocks.to_le_bytes());
    put(at::DURABLE_LIMIT, &nblocks.to_le_bytes());

    let open = || OpenOptions::new().write(true).create_new(true).open(path);
    let mut created = open();
    if let (Err(error), Some(folder)) = (&created, path.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        fs::create_dir_all(folder).map_err(io_error("make the folder of", path))?;
        created = open();
    }
    let mut file = created.map_err(io_error("create", path))?;
    file.write_all(&bytes).map_err(io_error("write", path))
}

fn words(nblocks: u32) -> usize {
    nblocks.div_ceil(64) as usize
}

fn file_size(nblocks: u32) -> usize {
    at::LIVE_BITS + 2 * 8 * words(nblocks)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PresenceError {
    let path = path.to_owned();
    move |source| PresenceError::Io { action, path, source }
}

/// An open presence map, shared with every other process that has it open.
///
/// No file descriptor is kept: PostgreSQL budgets its own by what it finds free.
/// Reading and setting bits takes no lock; what has to be held while a bit gets set is said in
/// README.md, "Who may do what".
#[derive(Debug)]
pub struct Map {
    mapping: Mapping,
    nblocks: u32,
}

/// What a map said at one moment, see [`Map::undurable`].
#[derive(Debug)]
pub struct Snapshot {
    limit: u32,
    bits: Vec<u64>,
}

impl Map {
    /// Opens the map at `path`; `None` if there is none, which means that its file is ordinary.
    ///
    /// If the map was last used before the machine was last switched on, its live half is first
    /// made equal to its durable half.
    pub fn open(path: &Path, boot: BootId) -> Result<Option<Map>, PresenceError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", path)(error)),
        };
        let damaged = |what| PresenceError::Damaged { path: path.to_owned(), what };
        let size = file.metadata().map_err(io_error("look at", path))?.len();
        let size = usize::try_from(size).map_err(|_| damaged("it is too long"))?;
        if size < at::LIVE_BITS || size > file_size(BLOCKS_PER_SEGMENT) {
            return Err(damaged("its length is impossible"));
        }
        let mapping = Mapping::new(&file, size).map_err(io_error("map", path))?;
        if mapping.u64(at::MAGIC).load(Ordering::Relaxed) != MAGIC {
            return Err(damaged("it does not begin as one"));
        }
        let version = mapping.u32(at::VERSION).load(Ordering::Relaxed);
        if version != VERSION {
            return Err(PresenceError::NewerVersion { path: path.to_owned(), version });
        }
        let nblocks = mapping.u32(at::NBLOCKS).load(Ordering::Relaxed);
        if nblocks > BLOCKS_PER_SEGMENT || size != file_size(nblocks) {
            return Err(damaged("its length does not fit its number of blocks"));
        }
        let map = Map { mapping, nblocks };
        if map.live_of() != boot {
            map.revive(&file, boot).map_err(io_error("lock", path))?;
        }
        Ok(Some(map))
    }

    /// Makes the live half from the durable one. Processes that open the map at the same time wait
    /// for the lock, and find the work done; nobody uses the live half before.
    fn revive(&self, file: &File, boot: BootId) -> io::Result<()> {
        let _lock = crate::range_lock::lock(file.as_raw_fd(), 0..1)?;
        if self.live_of() == boot {
            return Ok(());
        }
        self.limit_at(at::LIVE_LIMIT).store(self.durable_limit(), Ordering::Relaxed);
        for word in 0..words(self.nblocks) {
            let bits = self.durable_word(word).load(Ordering::Relaxed);
            self.live_word(word).store(bits, Ordering::Relaxed);
        }
        self.set_live_of(boot);
        Ok(())
    }

    fn live_of(&self) -> BootId {
        let half = |n: usize| self.mapping.u64(at::LIVE_OF_BOOT + 8 * n).load(Ordering::Acquire);
        BootId([half(0), half(1)])
    }

    fn set_live_of(&self, boot: BootId) {
        for (n, half) in boot.0.into_iter().enumerate() {
            self.mapping.u64(at::LIVE_OF_BOOT + 8 * n).store(half, Ordering::Release);
        }
    }

    fn limit_at(&self, at: usize) -> &AtomicU32 {
        self.mapping.u32(at)
    }

    fn durable_limit(&self) -> u32 {
        self.limit_at(at::DURABLE_LIMIT).load(Ordering::Relaxed)
    }

    fn live_word(&self, word: usize) -> &AtomicU64 {
        self.mapping.u64(at::LIVE_BITS + 8 * word)
    }

    fn durable_word(&self, word: usize) -> &AtomicU64 {
        self.mapping.u64(at::LIVE_BITS + 8 * (words(self.nblocks) + word))
    }

    /// Number of blocks of the stub when it was laid out.
    pub fn nblocks(&self) -> u32 {
        self.nblocks
    }

    /// The first block of the tail that is never to be fetched. At most `nblocks`.
    pub fn limit(&self) -> u32 {
        self.limit_at(at::LIVE_LIMIT).load(Ordering::Acquire).min(self.nblocks)
    }

    /// Whether the local file holds the block, or will when it is written: nothing to fetch.
    #[inline]
    pub fn is_present(&self, block: u32) -> bool {
        block >= self.limit() || self.bit(block)
    }

    fn bit(&self, block: u32) -> bool {
        self.live_word(block as usize / 64).load(Ordering::Acquire) & mask(block) != 0
    }

    /// Whether all blocks of `range` are present.
    #[inline]
    pub fn is_all_present(&self, range: Range<u32>) -> bool {
        // Nearly always one block, of which one bit tells.
        if range.end.wrapping_sub(range.start) == 1 {
            return self.is_present(range.start);
        }
        self.first_absent_run(range).is_empty()
    }

    /// The first absent blocks in `range` that stand together, empty if all are present.
    pub fn first_absent_run(&self, range: Range<u32>) -> Range<u32> {
        let end = range.end.min(self.limit());
        let mut from = range.start;
        loop {
            let first = self.next(from, end, |bits| !bits);
            if first >= end {
                return range.end..range.end;
            }
            let last = self.next(first, end, |bits| bits);
            if last > first {
                return first..last;
            }
            // Another process has brought it in between the two looks; there may be more behind it.
            from = first + 1;
        }
    }

    /// The first block from `from` on whose bit `wanted` sets in a word, `end` if there is none before.
    fn next(&self, from: u32, end: u32, wanted: impl Fn(u64) -> u64) -> u32 {
        let mut at = from;
        while at < end {
            let word = self.live_word(at as usize / 64).load(Ordering::Acquire);
            let found = wanted(word) >> (at % 64);
            if found != 0 {
                return end.min(at + found.trailing_zeros());
            }
            at = (at | 63) + 1;
        }
        end
    }

    /// Declares the blocks of `range` present. They must already be in the file.
    pub fn mark_present(&self, range: Range<u32>) {
        for block in range.start..range.end.min(self.nblocks) {
            self.live_word(block as usize / 64).fetch_or(mask(block), Ordering::Release);
        }
    }

    /// Declares that the file was once no longer than `blocks` blocks, so that nothing from there
    /// on is ever to be fetched.
    pub fn lower_limit(&self, blocks: u32) {
        self.limit_at(at::LIVE_LIMIT).fetch_min(blocks, Ordering::AcqRel);
    }

    /// What the live half knows and the durable half does not, or `None` if they are equal.
    ///
    /// To be called before the file is synced; see [`Map::persist`].
    pub fn undurable(&self) -> Option<Snapshot> {
        let limit = self.limit();
        let words = 0..words(self.nblocks);
        let bits: Vec<u64> =
            words.clone().map(|word| self.live_word(word).load(Ordering::Acquire)).collect();
        let known = |(word, bits): (usize, &u64)| {
            bits & !self.durable_word(word).load(Ordering::Relaxed) == 0
        };
        let equal = self.durable_limit() <= limit && words.zip(&bits).all(known);
        (!equal).then_some(Snapshot { limit, bits })
    }

    /// Adds what `snapshot` says to the durable half and writes it to disk. The file must have been
    /// synced successfully, in full, after the snapshot was taken.
    pub fn persist(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.add_to_durable(snapshot);
        self.mapping.sync()
    }

    /// Adds the blocks of `runs` to the durable half and writes it to disk. The file must have been
    /// synced successfully, in full, after each of them was brought in by whoever calls this.
    pub fn persist_runs(&self, runs: &[Range<u32>]) -> io::Result<()> {
        for block in runs.iter().cloned().flatten().filter(|block| *block < self.nblocks) {
            self.durable_word(block as usize / 64).fetch_or(mask(block), Ordering::AcqRel);
        }
        self.mapping.sync()
    }

    /// Whether nothing is absent, nor will be after a power loss. It stays so: the map has nothing more
    /// to tell.
    pub fn is_complete(&self) -> bool {
        let has_all = |limit: u32, word: &dyn Fn(usize) -> u64| {
            let limit = limit.min(self.nblocks);
            let whole = limit as usize / 64;
            let rest = mask(limit) - 1;
            (0..whole).all(|n| word(n) == u64::MAX) && (rest == 0 || word(whole) & rest == rest)
        };
        // The live half may lack what the durable one has only until it is made anew from that.
        has_all(self.limit(), &|n| self.live_word(n).load(Ordering::Acquire))
            && has_all(self.durable_limit(), &|n| self.durable_word(n).load(Ordering::Acquire))
    }

    /// How many blocks are absent.
    pub fn absent_blocks(&self) -> u32 {
        let limit = self.limit();
        let word = |n: usize| self.live_word(n).load(Ordering::Acquire);
        let whole: u32 = (0..limit as usize / 64).map(|n| word(n).count_zeros()).sum();
        let rest = mask(limit) - 1;
        let partly = if rest == 0 { 0 } else { (!word(limit as usize / 64) & rest).count_ones() };
        whole + partly
    }

    /// Makes the durable half equal to the live one without waiting for any disk. Only for servers
    /// that run without fsync and have no claim to survive a power loss.
    pub fn equalize_without_sync(&self) {
        if let Some(snapshot) = self.undurable() {
            self.add_to_durable(&snapshot);
        }
    }

    fn add_to_durable(&self, snapshot: &Snapshot) {
        self.limit_at(at::DURABLE_LIMIT).fetch_min(snapshot.limit, Ordering::AcqRel);
        for (word, bits) in snapshot.bits.iter().enumerate() {
            self.durable_word(word).fetch_or(*bits, Ordering::AcqRel);
        }
    }

    /// Makes the next opening of the map start from the durable half. For when a sync of the file
    /// has failed: the kernel may have dropped pages that the live half calls present.
    pub fn distrust_live(&self) {
        self.set_live_of(BootId::NONE);
    }
}

fn mask(block: u32) -> u64 {
    1 << (block % 64)
}

#[cfg(test)]
mod tests;
