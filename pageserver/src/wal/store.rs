//! `WalStore`: the raw WAL of one timeline on disk.
//!
//! Files are named and laid out as PostgreSQL's own segments, so that stock tools can read them.
//! A segment file ends where the received WAL ends, with one exception: while commits wait, the one that
//! is written to has zeros behind that (`ZerosAhead`), which `read` never gives. They are cut off when
//! nobody waits any more, and by `end_at` before anything is received anew; only a process that ends without a word
//! leaves them. So whoever finds a file decodes it: zeros where a record or a page should begin are the end, as
//! they are for PostgreSQL, and the flushed mark says whether it may end there. Behind the end of what was received
//! there is never anything but zeros, or what a crash has left of WAL that was not durable; nothing is recycled.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use durable_files::File;
use parking_lot::Mutex;
use postgres_formats::Lsn;
use postgres_formats::lsn::{SegmentNumber, WalSegmentSize};

use super::open_segments::{OpenSegments, Opened, Table};
use super::zeros_ahead::ZerosAhead;

/// Segments kept open for reading by a store that shares with none; each is 16 MiB by default.
const OPEN_SEGMENTS_MAX: usize = 64;

/// The raw WAL of one timeline.
pub struct WalStore {
    dir: PathBuf,
    segment_size: WalSegmentSize,
    tli: u32,
    all_open: Arc<OpenSegments>,
    open: Arc<Table>,
    // LOCK ORDER: leaf, held only to look up or change the table, never during IO.
    state: Mutex<State>,
    /// Where WAL ends; nothing is read from there on. Known once `end_at` has made it so, `NOWHERE` before: then files
    /// have it as they were found, and no zeros are written behind it. Changed under the lock of `state`.
    ends_at: AtomicU64,
    /// Held during a sync, so that whoever comes second knows that the first has ended, and how.
    // LOCK ORDER: before `state`; IO happens under it.
    syncing: Mutex<Syncing>,
}

#[derive(Default)]
struct Syncing {
    failed: bool,
    #[cfg(test)]
    fail_next: bool,
}

/// Behind all WAL.
const NOWHERE: u64 = u64::MAX;

#[derive(Default)]
struct State {
    /// Segments written to since the last sync.
    dirty: BTreeMap<SegmentNumber, Arc<File>>,
    /// Whether a segment file was made since the last sync.
    dir_dirty: bool,
    zeros: ZerosAhead,
}

impl WalStore {
    /// The store in `dir`, which must exist.
    pub fn new(dir: PathBuf, segment_size: WalSegmentSize, tli: u32) -> WalStore {
        WalStore::sharing(dir, segment_size, tli, OpenSegments::new(OPEN_SEGMENTS_MAX))
    }

    /// The same; it keeps as many segments open as `all_open` lets it.
    pub fn sharing(
        dir: PathBuf,
        segment_size: WalSegmentSize,
        tli: u32,
        all_open: Arc<OpenSegments>,
    ) -> WalStore {
        WalStore {
            dir,
            segment_size,
            tli,
            all_open,
            open: Arc::default(),
            state: Mutex::default(),
            ends_at: AtomicU64::new(NOWHERE),
            syncing: Mutex::default(),
        }
    }

    /// Removes what `set_aside` had begun to write when a process ended.
    ///
    /// # Errors
    /// Whatever the file system gives, other than that there is no folder.
    pub fn remove_unfinished(dir: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                durable_files::unlink(&path)?;
            }
        }
        Ok(())
    }

    /// The size of a segment.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.segment_size
    }

    /// The file that `lsn` lies in.
    pub fn path_at(&self, lsn: Lsn) -> PathBuf {
        self.path(lsn.segment(self.segment_size))
    }

    /// Opens files anew from now on: others may have been put in their places.
    pub fn forget_open(&self) {
        self.open.lock().clear();
    }

    fn path(&self, segment: SegmentNumber) -> PathBuf {
        self.dir.join(segment.file_name(self.tli, self.segment_size))
    }

    fn open(&self, segment: SegmentNumber, create: bool) -> io::Result<Arc<File>> {
        let mut open = self.open.lock();
        if let Some(opened) = open.get_mut(&segment) {
            opened.used = true;
            return Ok(opened.file.clone());
        }
        let path = self.path(segment);
        let file = match File::open_to_write(&path) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                self.state.lock().dir_dirty = true;
                File::open_or_create(&path)?
            }
            other => other?,
        };
        let file = Arc::new(file);
        open.insert(segment, Opened { file: file.clone(), used: false });
        drop(open);
        self.all_open.opened(&self.open, segment);
        Ok(file)
    }

    /// Opens a segment anew from now on, and forgets that it was written to.
    fn forget(&self, segment: SegmentNumber) {
        self.open.lock().remove(&segment);
        self.state.lock().dirty.remove(&segment);
    }

    /// Whether commits wait for what is written from now on, so that each is synced by itself.
    ///
    /// # Errors
    /// Whatever cutting off zeros gives, once nobody waits; they do no harm.
    pub fn expect_syncs(&self, expected: bool) -> io::Result<()> {
        self.state.lock().zeros.switch(expected);
        let end = self.ends_at.load(Ordering::Acquire);
        if expected || end == NOWHERE {
            return Ok(());
        }
        let end = Lsn::new(end);
        let offset = end.segment_offset(self.segment_size);
        self.cut(end.segment(self.segment_size), offset).map(drop)
    }

    /// Makes a segment file no longer than that. Says whether it was.
    fn cut(&self, segment: SegmentNumber, bytes: u64) -> io::Result<Option<Arc<File>>> {
        match self.open(segment, false) {
            Ok(file) if file.length()? > bytes => file.set_len(bytes).map(|()| Some(file)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        }
    }

    /// Files end at `end`.
    fn ended_at(&self, end: Lsn) {
        let mut state = self.state.lock();
        state.zeros.forget();
        self.ends_at.store(end.as_u64(), Ordering::Release);
    }

    /// `len` bytes have been written to a segment, up to `lsn`, which is `offset` in it. Gives up to which
    /// offset zeros are to be written behind them.
    fn written(
        &self,
        state: &mut State,
        segment: SegmentNumber,
        lsn: Lsn,
        offset: u64,
        len: u64,
    ) -> Option<u64> {
        let end = self.ends_at.load(Ordering::Acquire);
        if end == NOWHERE || lsn.as_u64() < end {
            return None;
        }
        // Before there are zeros behind it.
        self.ends_at.store(lsn.as_u64(), Ordering::Release);
        state.zeros.written(segment, offset, len, self.segment_size.bytes())
    }

    /// Writes `bytes` at `lsn`. They are durable after the next `sync`.
    ///
    /// # Errors
    /// Whatever the file system gives; some of the bytes may then have been written.
    pub fn write(&self, mut lsn: Lsn, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let offset = lsn.segment_offset(self.segment_size);
            let room = self.segment_size.bytes() - offset;
            let now = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            let (chunk, rest) = bytes.split_at(now);
            let segment = lsn.segment(self.segment_size);
            let file = self.open(segment, true)?;
            let written = file.write_all_at(chunk, offset);
            lsn = lsn.saturating_add(chunk.len() as u64);
            bytes = rest;
            let end = offset + chunk.len() as u64;
            let (zeros_upto, is_synced_soon) = {
                let mut state = self.state.lock();
                // Only now: a sync that ran in between would take the mark and not see the bytes.
                state.dirty.entry(segment).or_insert_with(|| file.clone());
                written?;
                let upto = self.written(&mut state, segment, lsn, end, chunk.len() as u64);
                (upto, state.zeros.is_little())
            };
            if let Some(upto) = zeros_upto {
                file.write_zeros(end, upto)?;
            }
            if is_synced_soon {
                // While it is decoded.
                file.begin_writing_out(offset, zeros_upto.unwrap_or(end) - offset);
            }
        }
        Ok(())
    }

    /// Makes everything written so far durable, that is, by every `write` that has returned.
    ///
    /// # Errors
    /// Whatever syncing gives. After a failed sync the kernel may have dropped the data, so every
    /// later one fails, too.
    pub fn sync(&self) -> io::Result<()> {
        let mut syncing = self.syncing.lock();
        if syncing.failed {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let (dirty, dir_dirty) = {
            let mut state = self.state.lock();
            state.zeros.synced();
            (std::mem::take(&mut state.dirty), std::mem::take(&mut state.dir_dirty))
        };
        let synced = dirty
            .values()
            .try_for_each(|file| file.sync_data())
            .and_then(|()| if dir_dirty { durable_files::sync_dir(&self.dir) } else { Ok(()) });
        #[cfg(test)]
        let synced = match std::mem::take(&mut syncing.fail_next) {
            true => Err(io::Error::other("made to fail")),
            false => synced,
        };
        syncing.failed = synced.is_err();
        synced
    }

    /// Lets a sync be tried again after one that failed. Only for whoever has written everything
    /// again that is not known to be durable.
    pub fn forgive_failed_sync(&self) {
        self.state.lock().dir_dirty = true;
        self.syncing.lock().failed = false;
    }

    /// Makes the next sync fail, as a disk does.
    #[cfg(test)]
    pub fn fail_next_sync(&self) {
        self.syncing.lock().fail_next = true;
    }

    /// Makes the last segments durable whoever wrote them: an earlier process may have ended
    /// between writing and syncing. It keeps at most one segment unsynced.
    ///
    /// # Errors
    /// Whatever the file system gives; then every `sync` fails, too.
    pub fn sync_recent(&self) -> io::Result<()> {
        let mut syncing = self.syncing.lock();
        let synced = (|| {
            for segment in self.segments()?.iter().rev().take(2) {
                self.open(*segment, false)?.sync_all()?;
            }
            durable_files::sync_dir(&self.dir)
        })();
        syncing.failed |= synced.is_err();
        synced
    }

    /// Fills `buffer` from `lsn` on as far as the store goes; returns how many bytes that was.
    ///
    /// # Errors
    /// Whatever reading gives, other than a segment that is not there.
    pub fn read(&self, mut lsn: Lsn, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        let end = Lsn::new(self.ends_at.load(Ordering::Acquire));
        while done < buffer.len() && lsn < end {
            let file = match self.open(lsn.segment(self.segment_size), false) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let offset = lsn.segment_offset(self.segment_size);
            let room = self.segment_size.bytes() - offset;
            let room = room.min(end.distance_from(lsn).unwrap_or(0));
            let left = buffer.len() - done;
            let want = usize::try_from(room).map_or(left, |room| room.min(left));
            let Some(slot) = buffer.get_mut(done..done + want) else { break };
            let got = match file.read_at(slot, offset) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if got == 0 {
                break;
            }
            done += got;
            lsn = lsn.saturating_add(got as u64);
        }
        Ok(done)
    }

    /// Makes the store end at `end`, which is not beyond what counts of it: cuts off everything
    /// from there on, durably. If a segment begins there, the rest of the one before, which a
    /// server that switches segments leaves unused and may never send, is filled with zeros:
    /// whoever reads on must not take a short file for the end of the WAL.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn end_at(&self, end: Lsn) -> io::Result<()> {
        let last = end.segment(self.segment_size);
        let mut later = self.segments()?;
        later.retain(|segment| *segment > last);
        // From the last one backwards, so that a crash leaves no gap.
        for segment in later.iter().rev() {
            durable_files::unlink(&self.path(*segment))?;
            // Only now, when no reader can open it again.
            self.forget(*segment);
        }
        if let Some(file) = self.cut(last, end.segment_offset(self.segment_size))? {
            file.sync_all()?;
        }
        self.ended_at(end);
        if end.segment_offset(self.segment_size) == 0
            && let Some(before) = last.0.checked_sub(1)
        {
            self.fill_up(SegmentNumber(before))?;
        }
        durable_files::sync_dir(&self.dir)
    }

    /// Removes the segments that end at or before `lsn`, durably, the oldest first. Returns how many that were.
    ///
    /// # Errors
    /// Whatever the file system gives; some may have been removed then.
    pub fn remove_before(&self, lsn: Lsn) -> io::Result<usize> {
        let first_kept = lsn.segment(self.segment_size);
        let mut gone = self.segments()?;
        gone.retain(|segment| *segment < first_kept);
        for segment in &gone {
            durable_files::unlink(&self.path(*segment))?;
            self.forget(*segment);
        }
        if !gone.is_empty() {
            durable_files::sync_dir(&self.dir)?;
        }
        Ok(gone.len())
    }

    /// Puts everything from `from` on aside, durably: segment files get names that are none of
    /// segments, and what counts of the first of them is copied into a new one. After a crash either
    /// that has happened, or the first one is as it was. Returns the names that were given.
    ///
    /// # Errors
    /// Whatever the file system gives. What was put aside by then is not put back.
    pub fn set_aside(&self, from: Lsn) -> io::Result<Vec<PathBuf>> {
        let first = from.segment(self.segment_size);
        let offset = from.segment_offset(self.segment_size);
        let mut names = Vec::new();
        let mut segments = self.segments()?;
        segments.retain(|segment| *segment >= first);
        for segment in segments.iter().rev() {
            let path = self.path(*segment);
            let aside = free_name_beside(&path)?;
            if *segment > first || offset == 0 {
                durable_files::rename_only(&path, &aside)?;
            } else {
                let mut head = vec![0; usize::try_from(offset).unwrap_or(usize::MAX)];
                File::open(&path)?.read_exact_at(&mut head, 0)?;
                durable_files::hard_link(&path, &aside)?;
                durable_files::write_file(&path, &head)?;
            }
            names.push(aside);
            self.forget(*segment);
        }
        durable_files::sync_dir(&self.dir)?;
        Ok(names)
    }

    fn fill_up(&self, segment: SegmentNumber) -> io::Result<()> {
        match self.open(segment, false) {
            Ok(file) if file.length()? < self.segment_size.bytes() => {
                file.set_len(self.segment_size.bytes())?;
                file.sync_all()
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The segments that have a file, in order.
    ///
    /// # Errors
    /// Whatever reading the folder gives.
    pub fn segments(&self) -> io::Result<Vec<SegmentNumber>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Some(number) = self.parse_name(&entry?.file_name().to_string_lossy()) {
                segments.push(number);
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn parse_name(&self, name: &str) -> Option<SegmentNumber> {
        let high = u64::from_str_radix(name.get(8..16)?, 16).ok()?;
        let low = u64::from_str_radix(name.get(16..24)?, 16).ok()?;
        let per_id = (1u64 << 32) / self.segment_size.bytes();
        let number = SegmentNumber(high * per_id + low);
        // Also rejects other PostgreSQL timelines and names in another style.
        (number.file_name(self.tli, self.segment_size) == name).then_some(number)
    }

    /// The folder with the segment files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A name for what is put aside, which no other file has.
fn free_name_beside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..u32::MAX {
        let free = path.with_extension(format!("aside{number}"));
        if !free.try_exists()? {
            return Ok(free);
        }
    }
    Err(io::Error::other("there is no free name left to put a segment aside"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> WalStore {
        store_of(dir, &OpenSegments::new(2))
    }

    fn store_of(dir: &Path, all_open: &Arc<OpenSegments>) -> WalStore {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        WalStore::sharing(dir.to_owned(), size, 1, all_open.clone())
    }

    #[test]
    fn reads_back_over_segments_and_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3u32 << 20).map(|n| (n % 251) as u8).collect();
        let start = Lsn::new((5 << 20) + 1000);
        let wal = store(dir.path());
        wal.write(start, &bytes).unwrap();
        wal.sync().unwrap();
        assert_eq!(wal.segments().unwrap().len(), 4);
        for wal in [wal, store(dir.path())] {
            let mut buffer = vec![0; bytes.len() + 100];
            assert_eq!(wal.read(start, &mut buffer).unwrap(), bytes.len());
            assert!(buffer[..bytes.len()] == bytes[..]);
        }
    }

    #[test]
    fn truncation_removes_later_segments() {
        let dir = tempfile::tempdir().unwrap();
        let wal = store(dir.path());
        wal.write(Lsn::new(1 << 20), &vec![7; 3 << 20]).unwrap();
        wal.end_at(Lsn::new((2 << 20) + 5)).unwrap();
        assert_eq!(wal.segments().unwrap(), [SegmentNumber(1), SegmentNumber(2)]);
        let mut buffer = vec![0; 100];
        assert_eq!(wal.read(Lsn::new(2 << 20), &mut buffer).unwrap(), 5);
        wal.end_at(Lsn::new(9 << 20)).unwrap();
        assert_eq!(wal.read(Lsn::new(2 << 20), &mut buffer).unwrap(), 5);
    }

    #[test]
    fn what_is_put_aside_is_kept_and_out_of_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let wal = store(dir.path());
        wal.write(Lsn::new(1 << 20), &vec![7; 3 << 20]).unwrap();
        wal.sync().unwrap();
        for round in 1..=2 {
            let names = wal.set_aside(Lsn::new((2 << 20) + 5)).unwrap();
            assert_eq!(names.len(), 3 - round);
            let kept = fs::read(dir.path().join(format!("000000010000000000000002.aside{round}")));
            assert_eq!(kept.unwrap().len(), if round == 1 { 1 << 20 } else { 105 });
            assert_eq!(wal.segments().unwrap(), [SegmentNumber(1), SegmentNumber(2)]);
            let mut buffer = vec![0; 100];
            assert_eq!(wal.read(Lsn::new(2 << 20), &mut buffer).unwrap(), 5);
            wal.write(Lsn::new((2 << 20) + 5), &[9; 100]).unwrap();
        }
        // From where a segment begins, and from where there is nothing.
        assert_eq!(wal.set_aside(Lsn::new(1 << 20)).unwrap().len(), 2);
        assert_eq!(wal.set_aside(Lsn::new(1 << 20)).unwrap().len(), 0);
        assert_eq!(wal.segments().unwrap(), []);
    }

    #[test]
    fn a_segment_left_early_is_filled_up() {
        let dir = tempfile::tempdir().unwrap();
        let wal = store(dir.path());
        wal.end_at(Lsn::new(3 << 20)).unwrap();
        assert_eq!(wal.segments().unwrap(), []);
        wal.write(Lsn::new(2 << 20), &[7; 100]).unwrap();
        wal.end_at(Lsn::new(3 << 20)).unwrap();
        wal.write(Lsn::new(3 << 20), &[8; 50]).unwrap();
        let mut buffer = vec![1; 2 << 20];
        assert_eq!(wal.read(Lsn::new(2 << 20), &mut buffer).unwrap(), (1 << 20) + 50);
        assert!(buffer[100..1 << 20].iter().all(|byte| *byte == 0));
    }

    /// Writes `bytes` in small pieces, each of them synced.
    fn write_synced(wal: &WalStore, mut at: Lsn, bytes: &[u8]) {
        for piece in bytes.chunks(700) {
            wal.write(at, piece).unwrap();
            wal.sync().unwrap();
            at = at.saturating_add(piece.len() as u64);
        }
    }

    #[test]
    fn zeros_ahead_are_never_read_and_do_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let wal = store(dir.path());
        let content = |segment: u64| fs::read(wal.path(SegmentNumber(segment))).unwrap();
        let start = Lsn::new((1 << 20) + (900 << 10));
        let bytes: Vec<u8> = (0..2u32 << 20).map(|n| (n % 251) as u8 + 1).collect();
        wal.end_at(start).unwrap();
        wal.expect_syncs(true).unwrap();
        let (mut upto, mut with_zeros) = (0, 0);
        // Also to the ends of segments and a byte behind them.
        for next in [100, 50_000, 126_976, 126_977, 500_000, 1_175_552, 1_200_000] {
            let end = start.saturating_add(next as u64);
            write_synced(&wal, start.saturating_add(upto as u64), &bytes[upto..next]);
            upto = next;
            let mut found = vec![0xEE; next + 1000];
            assert_eq!(wal.read(start, &mut found).unwrap(), next);
            assert!(found[..next] == bytes[..next]);
            assert_eq!(wal.read(end, &mut [0; 10]).unwrap(), 0);
            // Whoever finds the file finds zeros.
            let last = wal.segments().unwrap().last().copied().unwrap();
            let file = content(last.0);
            let behind = &file[(end.as_u64() - (last.0 << 20)) as usize..];
            assert!(behind.iter().all(|byte| *byte == 0) && behind.len() <= 270_000);
            with_zeros += usize::from(!behind.is_empty());
        }
        assert!(with_zeros >= 4, "{with_zeros}");
        // Further back, and on with other bytes.
        let end = start.saturating_add(400_000);
        wal.end_at(end).unwrap();
        assert_eq!(content(2).len() as u64, end.as_u64() - (2 << 20));
        write_synced(&wal, end, &[0xFF; 5000]);
        assert!(content(2).len() as u64 > end.as_u64() + 5000 - (2 << 20));
        let mut found = vec![0; 10_000];
        assert_eq!(wal.read(end, &mut found).unwrap(), 5000);
        // What is written again does not move the end.
        wal.write(end, &[0xFE; 100]).unwrap();
        assert_eq!(wal.read(end, &mut found).unwrap(), 5000);
        wal.expect_syncs(false).unwrap();
        assert_eq!(content(2).len() as u64, end.as_u64() + 5000 - (2 << 20));
        // Nobody waits.
        write_synced(&wal, end.saturating_add(5000), &[0xFD; 5000]);
        assert_eq!(content(2).len() as u64, end.as_u64() + 10_000 - (2 << 20));
        assert_eq!(wal.segments().unwrap(), [SegmentNumber(1), SegmentNumber(2)]);
    }

    #[test]
    fn all_stores_together_keep_no_more_files_open_than_allowed() {
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let all_open = OpenSegments::new(5);
        let stores: Vec<_> = dirs.iter().map(|dir| store_of(dir.path(), &all_open)).collect();
        let open = || stores.iter().map(|store| store.open.lock().len()).sum::<usize>();
        for (number, store) in stores.iter().enumerate() {
            for segment in 0..4 {
                store.write(Lsn::new(segment << 20), &vec![number as u8; 1 << 20]).unwrap();
                assert!(open() <= 5);
            }
        }
        assert_eq!((open(), all_open.count()), (5, 5));
        // Those of the last store are in use; the others find theirs again, one after the other.
        for round in 0..3 {
            for segment in 0..4 {
                let mut byte = [0xFF];
                for (number, store) in stores.iter().enumerate() {
                    assert_eq!(store.read(Lsn::new(segment << 20), &mut byte).unwrap(), 1);
                    assert_eq!(byte, [number as u8], "round {round}");
                    assert!(open() <= 5);
                }
            }
        }
        stores[0].sync().unwrap();
        // One that is read over and over stays open while others come and go.
        let path = stores[1].path(SegmentNumber(2));
        let mut byte = [0];
        stores[1].read(Lsn::new(2 << 20), &mut byte).unwrap();
        fs::remove_file(&path).unwrap();
        for segment in [0, 1, 3, 0, 1, 3] {
            assert_eq!(stores[1].read(Lsn::new(2 << 20), &mut byte).unwrap(), 1);
            stores[2].read(Lsn::new(segment << 20), &mut byte).unwrap();
            stores[0].read(Lsn::new(segment << 20), &mut byte).unwrap();
        }
        let left: Vec<_> = stores.into_iter().skip(1).collect();
        left[0].forget_open();
        assert_eq!(left[0].read(Lsn::new(2 << 20), &mut byte).unwrap(), 0);
        assert_eq!(left[1].read(Lsn::new(0), &mut byte).unwrap(), 1);
        assert!(all_open.count() <= 5);
    }
}
