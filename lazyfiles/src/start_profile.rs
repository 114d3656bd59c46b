//! What computes of a branch have fetched when they started, so that the next one gets it in one go.
//!
//! A file of lines `PATH FIRST COUNT`: blocks of a file of the data directory. Every process of a server
//! appends what it has had to wait for, as long as that is of the kind that every start reads: pages of
//! catalogs, the commit log and the like, and only the first that the process wants. The file says what
//! is worth asking for and nothing more: lines that make no sense, or speak of pages that are there no
//! more, do no harm.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use postgres_formats::relpath::relation_path;

use crate::segment_file::{Object, SegmentFile};

/// Where the numbers of a user's relations begin (`FirstNormalObjectId`, `access/transam.h`). A catalog that
/// was rewritten has such a number, too, and is not learnt.
const FIRST_USER_RELATION: u32 = 16384;

/// How many pages one process notes at most: enough for a start, and not all that somebody's first queries
/// are about.
const PAGES_PER_PROCESS_MAX: u32 = 256;

/// A file of this size is added to no more, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// How many pages are fetched ahead of a start at most.
const PAGES_MAX: u32 = 2048;

/// Notes what a process of a server fetches.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    pages_left: u32,
}

impl Recorder {
    pub(crate) fn new(path: &Path) -> Recorder {
        Recorder { path: path.to_owned(), pages_left: PAGES_PER_PROCESS_MAX }
    }

    /// So many pages from `first` on, all in one file, have been waited for.
    pub(crate) fn note(&mut self, object: Object, first: u32, count: u32) {
        let is_of_start = match object {
            Object::Rel(rel) => rel.rel.0 < FIRST_USER_RELATION,
            Object::Slru(_) => true,
        };
        if !is_of_start || self.pages_left == 0 {
            return;
        }
        self.pages_left = self.pages_left.saturating_sub(count);
        let (segment, block) =
            (first / object.pages_per_segment(), first % object.pages_per_segment());
        let path = match object {
            Object::Rel(rel) => relation_path(rel, segment),
            Object::Slru(kind) => kind.segment_path(segment),
        };
        // It is worth no error.
        let _ = self.append(&format!("{path} {block} {count}\n"));
    }

    fn append(&mut self, line: &str) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file: File = options.append(true).create(true).mode(0o600).open(&self.path)?;
        if file.metadata()?.len() >= FILE_BYTES_MAX {
            self.pages_left = 0;
            return Ok(());
        }
        // In one call, so that lines of several processes do not mix.
        file.write_all(line.as_bytes())
    }
}

/// The blocks that `text` speaks of, by file, in order and each once.
pub fn parse(text: &str) -> Vec<(PathBuf, Vec<Range<u32>>)> {
    let mut files: BTreeMap<&str, Vec<Range<u32>>> = BTreeMap::new();
    let mut pages_left = PAGES_MAX;
    for line in text.lines() {
        let mut words = line.split(' ');
        let (path, first, count) = (words.next(), words.next(), words.next());
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
        let (Some(path), Some(first), Some(count)) = (path, number(first), number(count)) else {
            continue;
        };
        // No path leads out of the data directory that names a relation or an SLRU.
        if SegmentFile::parse(path).is_none() || count == 0 || count > pages_left {
            continue;
        }
        let Some(end) = first.checked_add(count) else { continue };
        pages_left -= count;
        files.entry(path).or_default().push(first..end);
    }
    files.into_iter().map(|(path, runs)| (PathBuf::from(path), joined(runs))).collect()
}

/// The same blocks as ranges that do not touch.
fn joined(mut runs: Vec<Range<u32>>) -> Vec<Range<u32>> {
    runs.sort_by_key(|run| run.start);
    let mut joined: Vec<Range<u32>> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => joined.push(run),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

    use postgres_formats::relpath::BLOCKS_PER_SEGMENT;
    use postgres_formats::slru::SlruKind;

    use super::*;

    fn relation(path: &str) -> Object {
        SegmentFile::parse(path).unwrap().object
    }

    #[test]
    fn what_is_noted_is_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile");
        let mut recorder = Recorder::new(&path);
        let pg_class = relation("base/5/1259");
        recorder.note(pg_class, 7, 2);
        recorder.note(relation("base/5/16384"), 0, 1);
        recorder.note(pg_class, BLOCKS_PER_SEGMENT + 1, 1);
        recorder.note(Object::Slru(SlruKind::Clog), 33, 1);
        recorder.note(pg_class, 3, 4);
        recorder.note(pg_class, 20, 1);
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = [
            ("base/5/1259", vec![3..9, 20..21]),
            ("base/5/1259.1", vec![1..2]),
            ("pg_xact/0001", vec![1..2]),
        ];
        assert_eq!(parse(&text), expected.map(|(path, runs)| (PathBuf::from(path), runs)));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let text = "base/5/1259 1 1\n\nbase/5/1259\nbase/5/1259 x 1\nbase/5/1259 4294967295 1\n\
                    ../../etc/passwd 0 1\n/base/5/1 0 1\npg_wal/1 0 1\nbase/5/2 0 0\n\
                    base/5/3 0 100000\nbase/5/1259 2 1 more\nbase/5/12";
        assert_eq!(parse(text), [(PathBuf::from("base/5/1259"), vec![1..3])]);
    }

    #[test]
    fn there_are_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile");
        let mut recorder = Recorder::new(&path);
        (0..1000).for_each(|n| recorder.note(relation("base/5/1259"), 2 * n, 1));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), PAGES_PER_PROCESS_MAX as usize);
        for _ in 0..1000 {
            let mut recorder = Recorder::new(&path);
            (0..20).for_each(|n| recorder.note(relation("base/5/1259"), 2 * n, 1));
        }
        let size = std::fs::metadata(&path).unwrap().len();
        assert!((FILE_BYTES_MAX..FILE_BYTES_MAX + 100).contains(&size), "{size}");
        let text = std::fs::read_to_string(&path).unwrap();
        let pages: usize =
            parse(&text).iter().flat_map(|(_, runs)| runs).map(|run| run.len()).sum();
        assert!(pages <= PAGES_MAX as usize);
    }
}
