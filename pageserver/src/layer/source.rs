//! `LayerFiles`: the files of layers that are open, and what was read of them.
//!
//! A layer's file is opened when it is read and closed when too many others are: thousands of timelines
//! have dozens of layers each. It is found again by its path, so a file that is about to lose its name is
//! kept open for those who still read it (`LayerFiles::keep_open`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use layers::{BlockCache, ReadAt};
use parking_lot::Mutex;

use crate::open_files::{OpenFiles, Place, Taken};

/// Layers that are open, of one repository.
#[derive(Clone)]
pub struct LayerFiles {
    /// Blocks that were read.
    pub cache: BlockCache,
    all: Arc<All>,
}

struct All {
    open: OpenFiles<Weak<Slot>>,
    /// Those that somebody reads, whether open or not.
    // LOCK ORDER: before the slots; no IO happens under it.
    by_path: Mutex<BTreeMap<PathBuf, Vec<Weak<Slot>>>>,
}

/// Where a file is while it is open.
struct Slot {
    // LOCK ORDER: after the queue of `OpenFiles` and `All::by_path`; no IO happens under it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<Arc<File>>,
    used: bool,
    stays_open: bool,
}

impl Place for Weak<Slot> {
    type File = Arc<File>;

    fn take(&self, unless_used: bool) -> Taken<Arc<File>> {
        let Some(slot) = self.upgrade() else { return Taken::Nothing };
        let mut state = slot.state.lock();
        if state.stays_open {
            return Taken::Nothing;
        }
        if state.used && unless_used {
            state.used = false;
            return Taken::Used;
        }
        state.file.take().map_or(Taken::Nothing, Taken::File)
    }
}

impl LayerFiles {
    /// At most `open_max` files are kept open, and about `cache_bytes` of what was read of them.
    pub fn new(open_max: usize, cache_bytes: u64) -> LayerFiles {
        let all = All { open: OpenFiles::new(open_max), by_path: Mutex::default() };
        LayerFiles { cache: BlockCache::new(cache_bytes), all: Arc::new(all) }
    }

    /// How many are open, or have been a moment ago.
    pub fn open_count(&self) -> usize {
        self.all.open.count()
    }

    /// The file at `path`, to be read for as long as whoever calls likes.
    pub(super) fn source(&self, path: &Path) -> LayerSource {
        let slot = Arc::new(Slot { state: Mutex::default() });
        let mut by_path = self.all.by_path.lock();
        by_path.entry(path.to_owned()).or_default().push(Arc::downgrade(&slot));
        drop(by_path);
        LayerSource { path: path.to_owned(), slot, all: self.all.clone() }
    }

    /// Keeps the file at `path` open for those who read it now, until they let go of it, so that it can lose
    /// its name.
    ///
    /// # Errors
    /// Whatever opening it gives; then it must keep its name.
    pub fn keep_open(&self, path: &Path) -> io::Result<()> {
        let slots = self.all.by_path.lock().get(path).cloned().unwrap_or_default();
        for slot in slots.iter().filter_map(Weak::upgrade) {
            let file = File::open(path);
            let mut state = slot.state.lock();
            if state.file.is_none() {
                state.file = Some(Arc::new(file?));
            }
            state.stays_open = true;
        }
        Ok(())
    }
}

/// A layer's file, opened whenever it is read and not open.
pub struct LayerSource {
    path: PathBuf,
    slot: Arc<Slot>,
    all: Arc<All>,
}

impl LayerSource {
    fn file(&self) -> io::Result<Arc<File>> {
        let there = || {
            let mut state = self.slot.state.lock();
            state.used = true;
            state.file.clone()
        };
        if let Some(file) = there() {
            return Ok(file);
        }
        let file = match File::open(&self.path) {
            Ok(file) => Arc::new(file),
            // It may have lost its name meanwhile, and then is kept open.
            Err(error) => return there().ok_or(error),
        };
        let mut state = self.slot.state.lock();
        if let Some(file) = &state.file {
            return Ok(file.clone());
        }
        state.file = Some(file.clone());
        drop(state);
        self.all.open.opened(Arc::downgrade(&self.slot));
        Ok(file)
    }
}

impl Drop for LayerSource {
    fn drop(&mut self) {
        let mut by_path = self.all.by_path.lock();
        if let Some(slots) = by_path.get_mut(&self.path) {
            slots.retain(|slot| !std::ptr::eq(slot.as_ptr(), Arc::as_ptr(&self.slot)));
            if slots.is_empty() {
                by_path.remove(&self.path);
            }
        }
    }
}

impl ReadAt for LayerSource {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(&*self.file()?, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file()?.metadata().map(|metadata| metadata.len())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use std::fs;

    use super::*;

    /// How many files in the folder this process has open.
    fn open_in(dir: &Path) -> usize {
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(dir))).count()
    }

    fn byte(source: &LayerSource) -> io::Result<u8> {
        let mut byte = [0];
        source.read_exact_at(0, &mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn no_more_than_allowed_are_open_and_those_without_a_name_stay_open() {
        let dir = tempfile::tempdir().unwrap();
        let files = LayerFiles::new(3, 0);
        let path = |n: u8| dir.path().join(n.to_string());
        for n in 0..10 {
            fs::write(path(n), [n]).unwrap();
        }
        let sources: Vec<_> = (0..10).map(|n| files.source(&path(n))).collect();
        assert_eq!(open_in(dir.path()), 0);
        for _ in 0..2 {
            for n in 0..10 {
                assert_eq!(byte(&sources[usize::from(n)]).unwrap(), n);
                assert!(open_in(dir.path()) <= 3);
            }
        }
        assert_eq!((open_in(dir.path()), files.open_count()), (3, 3));

        // One that is closed and one that is open, both with a second reader.
        let more = [files.source(&path(0)), files.source(&path(9))];
        for (n, more) in [0, 9].into_iter().zip(&more) {
            files.keep_open(&path(n)).unwrap();
            fs::remove_file(path(n)).unwrap();
            for n in 1..9 {
                assert_eq!(byte(&sources[usize::from(n)]).unwrap(), n);
            }
            assert_eq!(byte(more).unwrap(), n);
            assert_eq!(byte(&sources[usize::from(n)]).unwrap(), n);
        }
        // Those that were removed without a word are gone once they are closed.
        fs::remove_file(path(1)).unwrap();
        for source in &sources[2..9] {
            byte(source).unwrap();
        }
        assert_eq!(byte(&sources[1]).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(files.keep_open(&path(1)).is_err());
        drop((sources, more));
        assert_eq!(open_in(dir.path()), 0);
        assert!(files.all.by_path.lock().is_empty());
    }
}
