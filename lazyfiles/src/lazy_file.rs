//! An open segment file with a presence map, and what its system calls must do besides.
//!
//! The argument why this is right, whatever other processes do meanwhile and wherever this one is
//! killed, is in SAFETY.md; the comments here name its rules (R1 to R9).

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use postgres_formats::BLCKSZ;

use crate::errno::Errno;
use crate::presence::{BootId, Map, PresenceError};
use crate::range_lock::{self, RangeLock};
use crate::read_ahead::{BLOCKS_PER_FETCH_MAX, BLOCKS_PER_GROUP, ReadAhead};
use crate::report;
use crate::segment_file::{Object, SegmentFile};
use crate::source::{FetchError, PageSource};

const BLOCK_BYTES: u64 = BLCKSZ as u64;

/// Room on the disk is found for so many blocks at once (2 MiB) when so many of them come together.
const RESERVED_BLOCKS: u32 = 256;
const RESERVE_FROM: u32 = 16;

/// How often to look whether a file is being cut, and how many times.
const CUT_LOOK_INTERVAL: Duration = Duration::from_millis(10);
const CUT_LOOKS_MAX: u32 = 200;

/// How much the server cares for its data.
#[derive(Clone, Copy, Debug)]
pub struct Durability {
    /// Whether the server syncs files at all (`fsync`).
    pub fsync: bool,
    /// Whether the server goes on after a sync has failed (`data_sync_retry`).
    pub retries_failed_sync: bool,
}

/// The process that makes the system calls.
pub struct Process<'a> {
    /// What it says about itself.
    pub durability: Durability,
    /// Whether it redoes WAL after a crash.
    pub in_recovery: bool,
    /// Its way to the pages.
    pub source: &'a mut dyn PageSource,
}

/// One open descriptor of a segment file that has a presence map. Does not own the descriptor.
#[derive(Debug)]
pub struct LazyFile {
    fd: RawFd,
    writable: bool,
    file: SegmentFile,
    map: Map,
    read_ahead: ReadAhead,
    /// The map's file, locked while a page is brought in by a process that is none of the server's (R10).
    outside: Option<File>,
}

impl LazyFile {
    /// Wraps the open descriptor `fd` of `file` if there is a presence map at `map_path` that has
    /// anything to say.
    pub fn new(
        fd: RawFd,
        writable: bool,
        file: SegmentFile,
        map_path: &Path,
        boot: BootId,
    ) -> Result<Option<LazyFile>, PresenceError> {
        let Some(map) = Map::open(map_path, boot)? else { return Ok(None) };
        if map.is_complete() {
            return Ok(None);
        }
        let read_ahead = ReadAhead::new(match file.object {
            Object::Rel(_) => BLOCKS_PER_GROUP,
            Object::Slru(_) => 1,
        });
        let lazy = LazyFile { fd, writable, file, map, read_ahead, outside: None };
        // R5: a process may have been killed between truncating the file and saying so.
        if let Ok(blocks) = lazy.blocks_on_disk() {
            lazy.map.lower_limit(blocks);
        }
        Ok(Some(lazy))
    }

    /// Whether nothing needs to be fetched to read or write these bytes, nor ever will.
    #[inline]
    pub fn is_all_present(&self, offset: u64, length: usize) -> bool {
        self.map.is_all_present(blocks_touched(offset, length))
    }

    /// The same for bytes that are about to be read: the order in which that happens says what will be
    /// read next.
    #[inline]
    pub fn is_ready_to_read(&self, offset: u64, length: usize) -> bool {
        let blocks = blocks_touched(offset, length);
        self.read_ahead.read(blocks.start, blocks.end);
        self.map.is_all_present(blocks)
    }

    /// To be called before bytes of the file are read that are not ready: fetches the absent blocks.
    pub fn before_read(
        &self,
        offset: u64,
        length: usize,
        process: &mut Process<'_>,
    ) -> Result<(), Errno> {
        let wanted = blocks_touched(offset, length);
        let mut from = wanted.start;
        loop {
            let missing = self.map.first_absent_run(from..wanted.end);
            if missing.is_empty() {
                return Ok(());
            }
            let plan = self.read_ahead.miss(missing.start, missing.end - missing.start);
            let mut run = self.map.first_absent_run(missing.start..plan.fetch);
            if run.start != missing.start {
                // Another process has just brought the block in.
                continue;
            }
            let object = self.file.object;
            if plan.around < run.start
                && !process.source.is_hinted(object, self.in_object(run.start)?)
            {
                let present = (plan.around..run.start).rfind(|block| self.map.is_present(*block));
                run.start = present.map_or(plan.around, |block| block + 1);
            }
            for piece in plan.pieces(missing.start) {
                self.hint(piece, process)?;
            }
            from = self.fetch(run, missing.start, process)?.max(missing.start);
            for piece in plan.pieces(missing.start) {
                self.bring_in_hinted(piece, process)?;
            }
            // What came may have been more or less than was planned.
            let ahead = plan.ahead.saturating_sub(plan.fetch);
            self.hint(from..from.saturating_add(ahead), process)?;
            process.source.send_hints();
        }
    }

    /// To be called when bytes of the file will probably be read soon.
    pub fn will_need(&self, offset: u64, length: usize, process: &mut Process<'_>) {
        // A hint that cannot be given is no error.
        let _ = self.hint(blocks_touched(offset, length), process);
    }

    /// Asks for the absent blocks of `blocks` without waiting, as far as there is room for them.
    fn hint(&self, blocks: Range<u32>, process: &mut Process<'_>) -> Result<(), Errno> {
        let mut from = blocks.start;
        loop {
            let run = self.map.first_absent_run(from..blocks.end);
            if run.is_empty() {
                return Ok(());
            }
            let count = (run.end - run.start).min(BLOCKS_PER_FETCH_MAX);
            let first = self.in_object(run.start)?;
            let end = process.source.hint(self.file.object, first, count as u16);
            match end.checked_sub(first) {
                None | Some(0) => return Ok(()),
                Some(asked) => from = run.start.saturating_add(asked),
            }
        }
    }

    /// Brings in what is here already of what was hinted at.
    fn bring_in_hinted(&self, blocks: Range<u32>, process: &mut Process<'_>) -> Result<(), Errno> {
        let run = self.map.first_absent_run(blocks);
        if run.is_empty() {
            return Ok(());
        }
        let first = self.in_object(run.start)?;
        let Some(pages) = process.source.take_hinted(self.file.object, first) else {
            return Ok(());
        };
        let got = run.start..run.start.saturating_add((pages.len() / BLCKSZ) as u32);
        let bring_in = |fd| self.bring_in(fd, got, &pages, process.durability, &mut |_| ());
        self.with_writable_fd(bring_in)
    }

    /// The number within the object of a block of this file.
    fn in_object(&self, block: u32) -> Result<u32, Errno> {
        self.file.page_in_object(block).ok_or(Errno(libc::EIO))
    }

    /// Does a write of `length` bytes at `offset` by calling `write`, which returns what the
    /// system call returns.
    pub fn write(
        &self,
        offset: u64,
        length: usize,
        process: &mut Process<'_>,
        write: &mut dyn FnMut() -> isize,
    ) -> Result<isize, Errno> {
        let touched = blocks_touched(offset, length);
        if self.map.first_absent_run(touched.clone()).is_empty() {
            return Ok(write());
        }
        // A block that is only partly overwritten must be here first. PostgreSQL does no such
        // thing, other programs might.
        let end = offset.saturating_add(length as u64);
        for at in [offset, end] {
            if at % BLOCK_BYTES != 0 {
                let block = block_at(at);
                self.fetch_absent(block..block.saturating_add(1), process)?;
            }
        }
        let _lock = self.lock(self.fd, touched.clone())?;
        let written = write();
        // R3: the bits are set after the write and under the lock.
        let whole = block_at(end.min(offset.saturating_add(written.max(0) as u64)));
        if written > 0 && whole > touched.start {
            self.map.mark_present(touched.start..whole);
            self.equalize(process.durability);
        }
        Ok(written)
    }

    /// Cuts the file to `length` bytes by calling `truncate`, which returns what the system call
    /// returns.
    pub fn truncate(
        &self,
        length: u64,
        process: &mut Process<'_>,
        truncate: &mut dyn FnMut() -> isize,
    ) -> Result<isize, Errno> {
        if !self.writable {
            return Ok(truncate());
        }
        let cut = block_at(length);
        if !length.is_multiple_of(BLOCK_BYTES) {
            self.fetch_absent(cut..cut.saturating_add(1), process)?;
        }
        // R4: nobody who fetches may lengthen the file again, so wait for those who are at it.
        let _lock = self.lock(self.fd, cut..u32::MAX)?;
        let result = truncate();
        if result == 0 {
            self.map.lower_limit(block_at(length.saturating_add(BLOCK_BYTES - 1)));
            self.equalize(process.durability);
        }
        Ok(result)
    }

    /// Makes the file durable by calling `sync`, which returns what the system call returns.
    pub fn sync(
        &self,
        durability: Durability,
        sync: &mut dyn FnMut() -> isize,
    ) -> Result<isize, Errno> {
        // R6: what becomes durable in the map was set before the sync of the file began.
        let snapshot = self.map.undurable();
        let result = sync();
        if result == 0 {
            if let Some(snapshot) = snapshot {
                self.map.persist(&snapshot)?;
            }
        } else if !durability.retries_failed_sync {
            // R7: PostgreSQL panics now and recovers; then the live half must not be believed.
            let errno = Errno::last();
            self.map.distrust_live();
            errno.set();
        }
        Ok(result)
    }

    /// Fetches every absent block of `blocks`.
    fn fetch_absent(&self, blocks: Range<u32>, process: &mut Process<'_>) -> Result<(), Errno> {
        loop {
            let run = self.map.first_absent_run(blocks.clone());
            if run.is_empty() {
                return Ok(());
            }
            let end = run.end.min(run.start.saturating_add(BLOCKS_PER_FETCH_MAX));
            self.fetch(run.start..end, run.start, process)?;
        }
    }

    /// Gets pages from the beginning of `run` on, which the caller has seen absent, and brings them
    /// in; only `needed` if not all of them are there. Gives the block up to which it came, within or
    /// beyond the run.
    fn fetch(&self, run: Range<u32>, needed: u32, process: &mut Process<'_>) -> Result<u32, Errno> {
        let first = self.in_object(run.start)?;
        // R1: no lock is held while another process is waited for.
        let count = u16::try_from(run.end - run.start).map_err(|_| Errno(libc::EIO))?;
        let pages = match process.source.pages(self.file.object, first, count) {
            Err(FetchError::NotThere(_)) if count > 1 => {
                return self.fetch(needed..needed.saturating_add(1), needed, process);
            }
            Err(FetchError::NotThere(message)) => {
                self.without_page(run.start, &message, process)?
            }
            pages => pages.map_err(|error| error.errno())?,
        };
        let end = run.start.saturating_add((pages.len() / BLCKSZ) as u32);
        if end == run.start {
            return Err(Errno(libc::EIO));
        }
        let got = run.start..end;
        let bring_in = |fd| self.bring_in(fd, got, &pages, process.durability, &mut |_| ());
        self.with_writable_fd(bring_in)?;
        Ok(end)
    }

    /// What takes the place of an absent block that the state at the base LSN does not have (R9).
    fn without_page(
        &self,
        block: u32,
        message: &str,
        process: &Process<'_>,
    ) -> Result<Bytes, Errno> {
        if process.in_recovery {
            return Ok(Bytes::from_static(&[0; BLCKSZ]));
        }
        // Whoever logged that the block is gone is about to cut the file or to remove it.
        for _ in 0..CUT_LOOKS_MAX {
            let status = self.status()?;
            let is_cut = block >= block_at(status.st_size.max(0) as u64);
            if is_cut || status.st_nlink == 0 || self.map.is_present(block) {
                return Ok(Bytes::from_static(&[0; BLCKSZ]));
            }
            std::thread::sleep(CUT_LOOK_INTERVAL);
        }
        report::line(message);
        Err(Errno(libc::EIO))
    }

    /// Writes those of the pages of `run` into the file whose blocks are still absent (R2).
    fn bring_in(
        &self,
        fd: RawFd,
        run: Range<u32>,
        pages: &[u8],
        durability: Durability,
        brought: &mut dyn FnMut(Range<u32>),
    ) -> Result<(), Errno> {
        self.reserve(fd, run.clone());
        let _lock = self.lock(fd, run.clone())?;
        let _trusted = self.lock_trust()?;
        // R5: blocks beyond the end are gone, and writing them would lengthen the file.
        self.map.lower_limit(self.blocks_on_disk()?);
        let mut from = run.start;
        loop {
            let absent = self.map.first_absent_run(from..run.end);
            if absent.is_empty() {
                self.equalize(durability);
                return Ok(());
            }
            let place = |block: u32| (block - run.start) as usize * BLCKSZ;
            let bytes = pages.get(place(absent.start)..place(absent.end));
            write_all(fd, bytes.ok_or(Errno(libc::EIO))?, absent.start)?;
            self.map.mark_present(absent.clone());
            from = absent.end;
            brought(absent);
        }
    }

    /// Before the first of many blocks are brought into a part of the file of which nothing is here: has the file
    /// system find room for the whole part at once. To write into that takes half as long, and it lies together.
    fn reserve(&self, fd: RawFd, run: Range<u32>) {
        if run.end.saturating_sub(run.start) < RESERVE_FROM {
            return;
        }
        for part in run.start / RESERVED_BLOCKS..=(run.end - 1) / RESERVED_BLOCKS {
            let first = part * RESERVED_BLOCKS;
            let whole = first..first.saturating_add(RESERVED_BLOCKS).min(self.map.limit());
            if whole.is_empty() || self.map.first_absent_run(whole.clone()) != whole {
                continue;
            }
            let place = |block: u32| libc::off_t::from(block) * BLCKSZ as libc::off_t;
            let (from, length) = (place(whole.start), place(whole.end - whole.start));
            // SAFETY: takes any number as descriptor and touches no memory. The file's content stays what it
            // is, and so does its length, even if it is being cut.
            // Whether it can be done does not matter: whoever writes will see.
            let _ = unsafe { libc::fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, from, length) };
        }
    }

    /// A server without fsync never tells us what is durable, and does not care (R6).
    fn equalize(&self, durability: Durability) {
        if !durability.fsync {
            self.map.equalize_without_sync();
        }
    }

    /// Locks one byte per block, at the block's number. Nobody else locks these files.
    fn lock(&self, fd: RawFd, blocks: Range<u32>) -> Result<RangeLock, Errno> {
        let end = if blocks.end == u32::MAX { i64::MAX } else { i64::from(blocks.end) };
        Ok(range_lock::lock(fd, i64::from(blocks.start)..end)?)
    }

    /// Number of whole blocks that the file has now.
    fn blocks_on_disk(&self) -> Result<u32, Errno> {
        Ok(block_at(self.status()?.st_size.max(0) as u64))
    }

    fn status(&self) -> Result<libc::stat, Errno> {
        // SAFETY: all fields of this C struct are integers, for which zero is a value.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: fstat writes one stat through the pointer, which is valid for the call.
        if unsafe { libc::fstat(self.fd, &mut status) } != 0 {
            return Err(Errno::last());
        }
        Ok(status)
    }

    /// Calls `body` with a descriptor of the file that can be written to and locked.
    fn with_writable_fd(&self, body: impl FnOnce(RawFd) -> Result<(), Errno>) -> Result<(), Errno> {
        if self.writable {
            return body(self.fd);
        }
        let path = format!("/proc/self/fd/{}", self.fd);
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        body(file.as_raw_fd())
    }
}

/// The block of the segment that holds the byte at `offset`.
fn block_at(offset: u64) -> u32 {
    u32::try_from(offset / BLOCK_BYTES).unwrap_or(u32::MAX)
}

fn blocks_touched(offset: u64, length: usize) -> Range<u32> {
    let end = offset.saturating_add(length as u64).saturating_add(BLOCK_BYTES - 1);
    if length == 0 { 0..0 } else { block_at(offset)..block_at(end) }
}

fn write_all(fd: RawFd, mut bytes: &[u8], first: u32) -> Result<(), Errno> {
    let mut offset = u64::from(first) * BLOCK_BYTES;
    while !bytes.is_empty() {
        let at = libc::off_t::try_from(offset).map_err(|_| Errno(libc::EFBIG))?;
        // SAFETY: the pointer and the length are those of one live slice.
        let written = unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), at) };
        match usize::try_from(written) {
            Ok(0) => return Err(Errno(libc::ENOSPC)),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(_) if Errno::last() == Errno(libc::EINTR) => {}
            Err(_) => return Err(Errno::last()),
        }
    }
    Ok(())
}

mod outside;
#[cfg(test)]
mod tests;

pub use outside::{FillError, Filled};
