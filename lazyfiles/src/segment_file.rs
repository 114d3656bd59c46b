//! The files that may be stubs: segments of relation forks and of SLRUs.

use std::fmt;

use postgres_formats::RelTag;
use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, parse_relation_path};
use postgres_formats::slru::{SLRU_PAGES_PER_SEGMENT, SlruKind, parse_segment_file_name};

/// Numbered pages that PostgreSQL keeps in one or more files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Object {
    /// A fork of a relation.
    Rel(RelTag),
    /// The commit log and its like.
    Slru(SlruKind),
}

impl Object {
    /// How many pages one file holds.
    pub fn pages_per_segment(self) -> u32 {
        match self {
            Object::Rel(_) => BLOCKS_PER_SEGMENT,
            Object::Slru(_) => SLRU_PAGES_PER_SEGMENT,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Rel(rel) => write!(f, "relation {rel}"),
            Object::Slru(kind) => write!(f, "{kind}"),
        }
    }
}

/// One file of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    /// What it is a part of.
    pub object: Object,
    /// Which part, from 0.
    pub segment: u32,
}

impl SegmentFile {
    /// The file at `path`, relative to the data directory; `None` if it holds no such pages.
    pub fn parse(path: &str) -> Option<SegmentFile> {
        if let Ok(file) = parse_relation_path(path) {
            return Some(SegmentFile { object: Object::Rel(file.tag), segment: file.segment });
        }
        let (folder, name) = path.rsplit_once('/')?;
        let kind = SlruKind::ALL.into_iter().find(|kind| kind.dir() == folder)?;
        Some(SegmentFile { object: Object::Slru(kind), segment: parse_segment_file_name(name)? })
    }

    /// Whether `path`, relative to the data directory, is in a folder that has such files.
    pub fn may_be_at(path: &[u8]) -> bool {
        const FOLDERS: [&[u8]; 3] = [b"base/", b"global/", b"pg_tblspc/"];
        FOLDERS.iter().any(|folder| path.starts_with(folder))
            || SlruKind::ALL.iter().any(|kind| {
                let rest = path.strip_prefix(kind.dir().as_bytes());
                rest.is_some_and(|rest| rest.first() == Some(&b'/'))
            })
    }

    /// The number within the object of a page of this file, if there is such a number.
    pub fn page_in_object(&self, page: u32) -> Option<u32> {
        self.segment.checked_mul(self.object.pages_per_segment())?.checked_add(page)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_of_relations_and_slrus_are_told_from_others() {
        let file = SegmentFile::parse("base/5/16384_vm.2").unwrap();
        assert!(matches!(file.object, Object::Rel(_)));
        assert_eq!(file.page_in_object(3), Some(2 * BLOCKS_PER_SEGMENT + 3));
        for kind in SlruKind::ALL {
            let path = kind.segment_path(0x1A);
            assert!(SegmentFile::may_be_at(path.as_bytes()));
            let file = SegmentFile::parse(&path).unwrap();
            assert_eq!(file, SegmentFile { object: Object::Slru(kind), segment: 0x1A });
            assert_eq!(file.page_in_object(31), Some(0x1A * 32 + 31));
        }
        for other in ["pg_xact", "pg_xact/", "pg_xact/00", "pg_subtrans/0000", "x/pg_xact/0000"] {
            assert_eq!(SegmentFile::parse(other), None, "{other}");
        }
        for other in ["pg_xactx/0000", "pg_wal/1", "pg_multixact/0000", "postgresql.conf"] {
            assert!(!SegmentFile::may_be_at(other.as_bytes()), "{other}");
        }
    }
}
