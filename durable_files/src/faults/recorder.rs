//! `Recorder`: sees the operations below a folder, and makes some of them fail.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::journal::{FileId, Journal, NameEdit, Op, Tree};
use crate::seam::Edit;

/// What the operating system says of no space, and of a device that fails.
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// How operations fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No space: from then on until it is lifted, whatever needs some. Of a write the first half is
    /// written.
    NoSpace,
    /// The device: this operation, whatever it is.
    Io,
    /// The process is dead: this one and all that come, until it is lifted; of a first write half is
    /// written.
    Dead,
}

/// Sees the operations below a folder.
pub struct Recorder {
    root: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// What is there now.
    tree: Tree,
    journal: Journal,
    /// Operations so far, those that failed among them.
    count: usize,
    /// From which operation on, and how.
    fault: Option<(usize, Fault)>,
    /// How many have been made to fail, and the first of them.
    failed: usize,
    first_failed: Option<usize>,
}

/// What an operation needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Space,
    Nothing,
}

static ATTACHED: AtomicUsize = AtomicUsize::new(0);
static RECORDERS: RwLock<Vec<Arc<Recorder>>> = RwLock::new(Vec::new());

/// A recorder at work. Its end is that of its watch.
pub struct Attached(Arc<Recorder>);

impl Drop for Attached {
    fn drop(&mut self) {
        let mut recorders = RECORDERS.write().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|other| !Arc::ptr_eq(other, &self.0));
        ATTACHED.store(recorders.len(), Ordering::Release);
    }
}

impl std::ops::Deref for Attached {
    type Target = Recorder;

    fn deref(&self) -> &Recorder {
        &self.0
    }
}

impl Recorder {
    /// Sees what is done below `root` from now on, to files that are opened from now on. What is
    /// there counts as durable.
    ///
    /// # Errors
    /// Whatever reading the folder gives.
    pub fn attach(root: &Path) -> io::Result<Attached> {
        let before = Tree::read(root)?;
        let journal = Journal { before: before.clone(), ops: Vec::new() };
        let state =
            State { tree: before, journal, count: 0, fault: None, failed: 0, first_failed: None };
        let recorder = Arc::new(Recorder { root: root.to_owned(), state: Mutex::new(state) });
        let mut recorders = RECORDERS.write().unwrap_or_else(PoisonError::into_inner);
        recorders.push(recorder.clone());
        ATTACHED.store(recorders.len(), Ordering::Release);
        Ok(Attached(recorder))
    }

    /// The recorder that sees `path`.
    pub(crate) fn of(path: &Path) -> Option<Arc<Recorder>> {
        if ATTACHED.load(Ordering::Acquire) == 0 {
            return None;
        }
        let recorders = RECORDERS.read().unwrap_or_else(PoisonError::into_inner);
        recorders.iter().find(|recorder| path.starts_with(&recorder.root)).cloned()
    }

    /// Lets the operation with this number, counted from 0, fail.
    pub fn fail_at(&self, number: usize, fault: Fault) {
        self.lock().fault = Some((number, fault));
    }

    /// From now on nothing fails.
    pub fn lift(&self) {
        self.lock().fault = None;
    }

    /// How many operations there were, those that failed among them.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// How many were made to fail.
    pub fn failed(&self) -> usize {
        self.lock().failed
    }

    /// The number of the first that was made to fail.
    pub fn first_failed(&self) -> Option<usize> {
        self.lock().first_failed
    }

    /// How many are in the journal.
    pub fn position(&self) -> usize {
        self.lock().journal.ops.len()
    }

    /// What was done.
    pub fn journal(&self) -> Journal {
        self.lock().journal.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    pub(crate) fn id_of(&self, path: &Path) -> Option<FileId> {
        self.lock().tree.find(self.relative(path))
    }

    pub(crate) fn create<T>(
        &self,
        path: &Path,
        empty: bool,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        let found = state.tree.find(self.relative(path));
        state.begin(if found.is_some() { Needs::Nothing } else { Needs::Space })?;
        let made = act()?;
        match found {
            Some(file) if empty => state.done(Op::Length { file, length: 0 }),
            Some(_) => {}
            None => {
                let file = state.tree.next_id();
                state.tree.files.insert(file, Default::default());
                state.name(self.relative(path), Some(file));
            }
        }
        Ok(made)
    }

    pub(crate) fn create_dir(
        &self,
        path: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Needs::Space)?;
        act()?;
        let folder = state.tree.next_id();
        state.tree.folders.insert(folder, Default::default());
        state.name(self.relative(path), Some(folder));
        Ok(())
    }

    pub(crate) fn rename(
        &self,
        from: &Path,
        to: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Needs::Nothing)?;
        act()?;
        let (from, to) = (self.relative(from), self.relative(to));
        let what = state.tree.find(from);
        let (new, old) = (state.edit_of(to, what), state.edit_of(from, None));
        if from.parent() == to.parent() {
            state.done(Op::Names([old, new].into_iter().flatten().collect()));
        } else {
            // Each is durable with its own folder.
            state.done(Op::Names(new.into_iter().collect()));
            state.done(Op::Names(old.into_iter().collect()));
        }
        Ok(())
    }

    pub(crate) fn link(
        &self,
        from: &Path,
        to: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Needs::Space)?;
        act()?;
        let what = state.tree.find(self.relative(from));
        state.name(self.relative(to), what);
        Ok(())
    }

    pub(crate) fn remove(
        &self,
        path: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Needs::Nothing)?;
        act()?;
        state.name(self.relative(path), None);
        Ok(())
    }

    pub(crate) fn sync_dir(
        &self,
        path: &Path,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Needs::Nothing)?;
        act()?;
        if let Some(folder) = state.tree.find(self.relative(path)) {
            state.done(Op::Sync(folder));
        }
        Ok(())
    }

    pub(crate) fn edit(&self, file: FileId, real: &fs::File, edit: Edit<'_>) -> io::Result<()> {
        let mut state = self.lock();
        let length = state.tree.files.get(&file).map_or(0, |content| content.len() as u64);
        let needs = match edit {
            Edit::Length(to) if to <= length => Needs::Nothing,
            Edit::Write { offset, bytes } if offset + bytes.len() as u64 <= length => {
                Needs::Nothing
            }
            _ => Needs::Space,
        };
        let write = |state: &mut State, edit: Edit<'_>| {
            edit.apply(real)?;
            state.done(match edit {
                Edit::Write { offset, bytes } => Op::Write { file, offset, bytes: bytes.to_vec() },
                Edit::Length(length) => Op::Length { file, length },
            });
            Ok(())
        };
        let is_alive = !state.is_dead();
        if let Err(error) = state.begin(needs) {
            if let Edit::Write { offset, bytes } = edit
                && is_alive
                && let Some(half) = bytes.get(..bytes.len() / 2).filter(|half| !half.is_empty())
            {
                write(&mut state, Edit::Write { offset, bytes: half })?;
            }
            return Err(error);
        }
        write(&mut state, edit)
    }

    pub(crate) fn sync(
        &self,
        file: FileId,
        act: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        if let Err(error) = state.begin(Needs::Nothing) {
            state.done(Op::Lost(file));
            return Err(error);
        }
        act()?;
        state.done(Op::Sync(file));
        Ok(())
    }
}

impl State {
    fn is_dead(&self) -> bool {
        matches!(self.fault, Some((from, Fault::Dead)) if self.count > from)
    }

    /// Counts an operation, and fails it if it is its turn.
    fn begin(&mut self, needs: Needs) -> io::Result<()> {
        let number = self.count;
        self.count += 1;
        let error = match self.fault {
            Some((from, Fault::NoSpace)) if number >= from && needs == Needs::Space => ENOSPC,
            Some((from, Fault::Dead)) if number >= from => EIO,
            Some((at, Fault::Io)) if number == at => EIO,
            _ => return Ok(()),
        };
        self.failed += 1;
        self.first_failed.get_or_insert(number);
        Err(io::Error::from_raw_os_error(error))
    }

    fn done(&mut self, op: Op) {
        self.tree.apply(&op);
        self.journal.ops.push(op);
    }

    fn edit_of(&self, path: &Path, to: Option<FileId>) -> Option<NameEdit> {
        let (folder, name) = self.tree.place(path)?;
        let is_folder = to.is_some_and(|id| self.tree.folders.contains_key(&id));
        Some(NameEdit { folder, name: name.to_owned(), to, is_folder })
    }

    fn name(&mut self, path: &Path, to: Option<FileId>) {
        let edit = self.edit_of(path, to);
        self.done(Op::Names(edit.into_iter().collect()));
    }
}
