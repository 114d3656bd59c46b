//! Filling in everything that a compute does not have yet, from outside its server.
//!
//! Each block is brought in under the rules of SAFETY.md, so that it does not matter what the server
//! does meanwhile, or another process like this one. There is nothing to take up again: what a run that
//! broke off has brought in is present.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::all_maps;
use crate::lazy_file::{Durability, FillError, Filled, LazyFile, Process};
use crate::presence::{BootId, Map, PresenceError};
use crate::segment_file::SegmentFile;
use crate::source::{FetchError, PageSource};

/// The most blocks that one request asks for.
const BLOCKS_PER_REQUEST_MAX: u32 = 64;
/// The most blocks that are asked for ahead of the one that is waited for: what is on its way or in
/// memory is no more than this.
pub const BLOCKS_AHEAD_MAX: usize = 512;
/// The most requests that are under way, each of which has a file open.
const REQUESTS_AHEAD_MAX: usize = 128;
/// How often everything is looked through: what a server's recovery has made absent again is found by
/// the next time.
const PASSES_MAX: u32 = 5;

/// Why a compute could not be filled in. What was brought in up to there stays.
#[derive(Debug, thiserror::Error)]
pub enum HydrateError {
    /// Pages could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A presence map cannot be used.
    #[error(transparent)]
    Map(#[from] PresenceError),
    /// The operating system refused.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, relative to the data directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A compute's files.
#[derive(Clone, Copy, Debug)]
pub struct Stubs<'a> {
    /// The data directory.
    pub pgdata: &'a Path,
    /// The folder of presence maps. Both paths must go on naming the folders of this very compute.
    pub presence: &'a Path,
    /// The present run of the machine.
    pub boot: BootId,
    /// What the compute's server cares for.
    pub durability: Durability,
}

/// How far it is, in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Blocks that were absent and are no more.
    pub done: u64,
    /// Blocks that were absent when it began.
    pub total: u64,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hydrated {
    /// Blocks that were brought in. Others may have been by the server meanwhile.
    pub blocks: u64,
    /// Blocks that are still absent: they are about to be cut off or dropped by the server's recovery.
    pub left: u64,
}

/// A file of a compute, and blocks of it.
pub type Wanted = (PathBuf, Vec<Range<u32>>);

/// A stub that is being filled in.
struct Stub {
    path: PathBuf,
    /// Keeps the descriptor that `lazy` uses open.
    _file: File,
    lazy: LazyFile,
}

/// Blocks that have been asked for.
struct Job {
    stub: Rc<Stub>,
    run: Range<u32>,
}

/// Fills in every absent block, and makes what it has brought in durable.
///
/// `progress` is called often; when it says `false`, this ends as [`FetchError::Canceled`].
pub fn hydrate(
    stubs: Stubs<'_>,
    source: &mut dyn PageSource,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Hydrated, HydrateError> {
    // Opened before anything is written: it is to be told of every write that fails.
    let folder = File::open(stubs.pgdata).map_err(io_error("open", Path::new(".")))?;
    let absent = absent_blocks(stubs)?;
    let seen = Progress { done: 0, total: absent.values().map(|blocks| u64::from(*blocks)).sum() };
    let mut work = Work { stubs, progress, seen, absent, done: Vec::new() };
    work.tell()?;
    let mut hydrated = Hydrated::default();
    for _ in 0..PASSES_MAX {
        let pass = work.pass(source)?;
        hydrated.blocks += pass.blocks;
        hydrated.left = pass.left;
        if pass.blocks == 0 {
            break;
        }
    }
    work.make_durable(&folder)?;
    forget_complete_maps(stubs)?;
    Ok(hydrated)
}

/// Fills in what is absent of the blocks of `wanted`, and gives how many that were. Nothing is done to make
/// them durable: they are what the server would have fetched itself.
pub fn fetch_ahead(
    stubs: Stubs<'_>,
    wanted: Vec<Wanted>,
    source: &mut dyn PageSource,
) -> Result<u64, HydrateError> {
    let (progress, seen): (&mut dyn FnMut(Progress) -> bool, _) =
        (&mut |_| true, Progress::default());
    let mut work = Work { stubs, progress, seen, absent: HashMap::new(), done: Vec::new() };
    Ok(work.fill_in(wanted, source)?.blocks)
}

/// How many blocks of which file are absent.
fn absent_blocks(stubs: Stubs<'_>) -> Result<HashMap<PathBuf, u32>, HydrateError> {
    let mut blocks = HashMap::new();
    for relative in all_maps::relative_paths(stubs.presence) {
        if let Some(map) = Map::open(&stubs.presence.join(&relative), stubs.boot)? {
            blocks.insert(relative, map.absent_blocks());
        }
    }
    Ok(blocks)
}

/// Removes the maps that have nothing to tell any more: their files are ordinary ones from then on, and
/// whoever opens one is not held up.
fn forget_complete_maps(stubs: Stubs<'_>) -> Result<(), HydrateError> {
    for relative in all_maps::relative_paths(stubs.presence) {
        let path = stubs.presence.join(&relative);
        if Map::open(&path, stubs.boot)?.is_some_and(|map| map.is_complete()) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove the presence map of", &relative)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

struct Work<'a> {
    stubs: Stubs<'a>,
    progress: &'a mut dyn FnMut(Progress) -> bool,
    seen: Progress,
    /// How many blocks of which file were absent at first and have not been looked at.
    absent: HashMap<PathBuf, u32>,
    /// What was brought in here and is not durable yet.
    done: Vec<(Rc<Path>, Vec<Range<u32>>)>,
}

impl Work<'_> {
    /// Looks at every stub once.
    fn pass(&mut self, source: &mut dyn PageSource) -> Result<Hydrated, HydrateError> {
        let mut paths = all_maps::relative_paths(self.stubs.presence);
        // So that the same files come one after the other, and the same ones again if it breaks off.
        paths.sort();
        #[expect(clippy::single_range_in_vec_init, reason = "all blocks, as one range")]
        let all = |path| (path, vec![0..u32::MAX]);
        self.fill_in(paths.into_iter().map(all).collect(), source)
    }

    /// Fills in what is absent of these blocks.
    fn fill_in(
        &mut self,
        wanted: Vec<Wanted>,
        source: &mut dyn PageSource,
    ) -> Result<Hydrated, HydrateError> {
        let mut pass = Hydrated::default();
        let absent = std::mem::take(&mut self.absent);
        let mut runs =
            Runs { stubs: self.stubs, wanted: wanted.into_iter(), absent, now: None, skipped: 0 };
        let mut jobs: VecDeque<Job> = VecDeque::new();
        let mut ahead = 0;
        loop {
            while ahead < BLOCKS_AHEAD_MAX && jobs.len() < REQUESTS_AHEAD_MAX {
                let job = runs.next()?;
                self.advance(std::mem::take(&mut runs.skipped));
                let Some(job) = job else { break };
                let segment = job.stub.lazy.segment();
                if let Some(first) = segment.page_in_object(job.run.start) {
                    source.hint(segment.object, first, job.run.len() as u16);
                }
                ahead += job.run.len();
                jobs.push_back(job);
            }
            let Some(job) = jobs.pop_front() else {
                self.tell()?;
                return Ok(pass);
            };
            self.fill(&job, source, &mut pass)?;
            ahead -= job.run.len();
        }
    }

    fn fill(
        &mut self,
        job: &Job,
        source: &mut dyn PageSource,
        pass: &mut Hydrated,
    ) -> Result<(), HydrateError> {
        let durability = self.stubs.durability;
        let mut from = job.run.start;
        while from < job.run.end {
            let process = &mut Process { durability, in_recovery: false, source };
            let filled = job.stub.lazy.fill(from..job.run.end, process);
            let Filled { end, brought, not_there } = filled.map_err(|error| match error {
                FillError::Fetch(error) => HydrateError::Fetch(error),
                FillError::Write(errno) => io_error("write to", &job.stub.path)(errno.into()),
            })?;
            pass.blocks += brought.iter().map(|run| run.len() as u64).sum::<u64>();
            pass.left += u64::from(not_there);
            self.advance(u64::from(end.min(job.run.end) - from));
            self.note(&job.stub.path, brought);
            self.tell()?;
            from = end;
        }
        Ok(())
    }

    /// So many blocks are absent no more, or are found to have been brought in by others.
    fn advance(&mut self, blocks: u64) {
        self.seen.done = self.seen.total.min(self.seen.done + blocks);
    }

    fn tell(&mut self) -> Result<(), HydrateError> {
        let goes_on = (self.progress)(self.seen);
        if goes_on { Ok(()) } else { Err(FetchError::Canceled.into()) }
    }

    fn note(&mut self, path: &Path, brought: Vec<Range<u32>>) {
        if brought.is_empty() {
            return;
        }
        match self.done.last_mut() {
            Some((last, runs)) if **last == *path => {
                for run in brought {
                    match runs.last_mut() {
                        Some(before) if before.end == run.start => before.end = run.end,
                        _ => runs.push(run),
                    }
                }
            }
            _ => self.done.push((path.into(), brought)),
        }
    }

    /// Syncs the file system, and then lets the maps know that what was brought in here is durable.
    ///
    /// Not file by file: the kernel reports a failed write to the first who syncs the file, and that must
    /// be the server, whose writes they may be.
    fn make_durable(&mut self, folder: &File) -> Result<(), HydrateError> {
        if !self.stubs.durability.fsync || self.done.is_empty() {
            return Ok(());
        }
        // SAFETY: syncfs takes any open descriptor, and `folder` is open.
        if unsafe { libc::syncfs(folder.as_raw_fd()) } != 0 {
            let error = io::Error::last_os_error();
            return Err(io_error("make durable what was written to", Path::new("."))(error));
        }
        for (relative, runs) in self.done.drain(..) {
            let path = self.stubs.presence.join(&relative);
            if let Some(map) = Map::open(&path, self.stubs.boot)? {
                map.persist_runs(&runs).map_err(io_error("write the map of", &relative))?;
            }
        }
        Ok(())
    }
}

/// The absent blocks of all stubs, in parts.
struct Runs<'a> {
    stubs: Stubs<'a>,
    wanted: std::vec::IntoIter<Wanted>,
    /// How many blocks of which file were absent at first.
    absent: HashMap<PathBuf, u32>,
    /// The file that it is at, the ranges of it that are left, and how many blocks of it it has given.
    now: Option<(Rc<Stub>, VecDeque<Range<u32>>, u32)>,
    /// Blocks that were absent at first and have not been given, since they are present by now.
    skipped: u64,
}

impl Runs<'_> {
    fn next(&mut self) -> Result<Option<Job>, HydrateError> {
        loop {
            if let Some((stub, ranges, given)) = &mut self.now {
                if let Some(range) = ranges.front_mut() {
                    let run = stub.lazy.next_absent(range.clone(), BLOCKS_PER_REQUEST_MAX);
                    if run.is_empty() {
                        ranges.pop_front();
                        continue;
                    }
                    range.start = run.end;
                    *given += run.end - run.start;
                    return Ok(Some(Job { stub: stub.clone(), run }));
                }
                let absent = self.absent.remove(&stub.path).unwrap_or(0);
                self.skipped += u64::from(absent.saturating_sub(*given));
                self.now = None;
            }
            let Some((path, ranges)) = self.wanted.next() else {
                let rest = self.absent.drain().map(|(_, absent)| u64::from(absent));
                self.skipped += rest.sum::<u64>();
                return Ok(None);
            };
            self.now = open(self.stubs, path)?.map(|stub| (Rc::new(stub), ranges.into(), 0));
        }
    }
}

/// Opens a file and its map; `None` if it is no stub any more.
fn open(stubs: Stubs<'_>, relative: PathBuf) -> Result<Option<Stub>, HydrateError> {
    let Some(segment) = relative.to_str().and_then(SegmentFile::parse) else { return Ok(None) };
    // The file first: if its map is there afterwards, it is its own (R8).
    let file = match File::options().read(true).write(true).open(stubs.pgdata.join(&relative)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("open", &relative))?,
    };
    let map = stubs.presence.join(&relative);
    let lazy = LazyFile::from_outside(&file, segment, &map, stubs.boot)?;
    Ok(lazy.map(|lazy| Stub { path: relative, _file: file, lazy }))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HydrateError {
    let path = path.to_owned();
    move |source| HydrateError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
