//! Filling a stub from outside: by a process that is none of the server's, on nobody's demand.
//!
//! It may do so while the server runs, crashes, recovers, stops or starts. What differs from a server
//! process is argued in SAFETY.md, "From outside".

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;

use postgres_formats::BLCKSZ;

use super::{LazyFile, Process};
use crate::errno::Errno;
use crate::presence::{BootId, PresenceError};
use crate::range_lock::{self, RangeLock};
use crate::segment_file::{Object, SegmentFile};
use crate::source::FetchError;

/// Why absent blocks could not be filled in.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// Their pages could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// They could not be written.
    #[error("{}", std::io::Error::from(*.0))]
    Write(Errno),
}

/// What came of filling in blocks.
#[derive(PartialEq, Eq, Debug)]
pub struct Filled {
    /// Up to which block something came of it.
    pub end: u32,
    /// The blocks that were brought in; those between that others had brought in are not among them.
    pub brought: Vec<Range<u32>>,
    /// How many blocks the state at the base LSN does not have (R9). They are as they were.
    pub not_there: u32,
}

impl LazyFile {
    /// As [`LazyFile::new`], for a process that is none of the server's. `file` must be open for
    /// reading and writing.
    pub fn from_outside(
        file: &File,
        segment: SegmentFile,
        map_path: &Path,
        boot: BootId,
    ) -> Result<Option<LazyFile>, PresenceError> {
        let opened = File::options().read(true).write(true).open(map_path);
        let map = match opened {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| PresenceError::Io {
                action: "open",
                path: map_path.to_owned(),
                source,
            })?,
        };
        let lazy = LazyFile::new(file.as_raw_fd(), true, segment, map_path, boot)?;
        Ok(lazy.map(|lazy| LazyFile { outside: Some(map), ..lazy }))
    }

    /// The part of the object that the file is, and the number of its first page in there.
    pub fn segment(&self) -> SegmentFile {
        self.file
    }

    /// The first absent blocks of `blocks` that stand together, `length_max` at most; empty if there
    /// are none.
    pub fn next_absent(&self, blocks: Range<u32>, length_max: u32) -> Range<u32> {
        let run = self.map.first_absent_run(blocks.start..blocks.end.min(self.map.nblocks()));
        run.start..run.end.min(run.start.saturating_add(length_max))
    }

    /// Fetches those blocks of `run` that are absent, from its beginning on, as many as come together.
    pub fn fill(&self, run: Range<u32>, process: &mut Process<'_>) -> Result<Filled, FillError> {
        let absent = self.map.first_absent_run(run.clone());
        let mut filled = Filled { end: run.end, brought: Vec::new(), not_there: 0 };
        if absent.is_empty() {
            return Ok(filled);
        }
        let first = self.in_object(absent.start).map_err(FillError::Write)?;
        let count = u16::try_from(absent.end - absent.start).unwrap_or(u16::MAX);
        // R1: no lock is held while another process is waited for.
        let pages = match process.source.pages(self.file.object, first, count) {
            Err(FetchError::NotThere(_)) if count > 1 => {
                let half = absent.start + u32::from(count) / 2;
                let part = self.fill(absent.start..half, process)?;
                return Ok(Filled { end: part.end, ..part });
            }
            Err(FetchError::NotThere(_)) => {
                // Whoever needs it knows what is about to happen to it, or will wait for that. A relation
                // that does not have it has none behind it either.
                let end = match self.file.object {
                    Object::Rel(_) => run.end,
                    Object::Slru(_) => absent.end,
                };
                let not_there = end - absent.start;
                return Ok(Filled { end, not_there, ..filled });
            }
            pages => pages?,
        };
        let got = absent.start..absent.start.saturating_add((pages.len() / BLCKSZ) as u32);
        filled.end = got.end;
        let brought = &mut |run| filled.brought.push(run);
        self.bring_in(self.fd, got, &pages, process.durability, brought)
            .map_err(FillError::Write)?;
        Ok(filled)
    }

    /// R10: that the live half is not made anew between a page's write and the setting of its bit.
    pub(super) fn lock_trust(&self) -> Result<Option<RangeLock>, Errno> {
        match &self.outside {
            Some(map) => Ok(Some(range_lock::lock(map.as_raw_fd(), 0..1)?)),
            None => Ok(None),
        }
    }
}
