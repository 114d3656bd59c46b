//! What storage keeps versions of: pages of objects that have a size.
//!
//! A fork of a relation and a segment of an SLRU are alike to storage: a run of pages from zero up
//! to a size, which is created, extended, cut and dropped. `ObjectTag` names either.

use std::fmt;

use postgres_formats::slru::{SLRU_PAGES_PER_SEGMENT, SlruKind, segment_file_name};
use postgres_formats::{BlockNumber, Oid, RelTag};

use crate::key::PageKey;

/// A run of pages with a size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectTag {
    /// A fork of a relation.
    Rel(RelTag),
    /// A segment file of an SLRU: 32 pages at most.
    Slru {
        /// Which SLRU.
        kind: SlruKind,
        /// Number of the segment.
        segment: u32,
    },
}

impl ObjectTag {
    /// The database that takes the object away with it when dropped; `None` for what is shared.
    pub fn database(self) -> Option<DbTag> {
        match self {
            ObjectTag::Rel(rel) if rel.db != Oid::INVALID => {
                Some(DbTag { spc: rel.spc, db: rel.db })
            }
            _ => None,
        }
    }

    /// The same relation in another database.
    pub fn in_database(self, tag: DbTag) -> ObjectTag {
        match self {
            ObjectTag::Rel(rel) => ObjectTag::Rel(RelTag { spc: tag.spc, db: tag.db, ..rel }),
            slru => slru,
        }
    }
}

impl fmt::Display for ObjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectTag::Rel(rel) => write!(f, "relation {rel}"),
            ObjectTag::Slru { kind, segment } => {
                write!(f, "{}/{}", kind, segment_file_name(*segment))
            }
        }
    }
}

impl fmt::Debug for ObjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One database's folder in one tablespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DbTag {
    /// Tablespace.
    pub spc: Oid,
    /// Database, `Oid::INVALID` for the shared relations in `global/`.
    pub db: Oid,
}

/// A page of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectPage {
    /// The object.
    pub object: ObjectTag,
    /// The page's index in it.
    pub block: BlockNumber,
}

impl From<PageKey> for ObjectPage {
    fn from(key: PageKey) -> ObjectPage {
        match key {
            PageKey::Rel { rel, block } => ObjectPage { object: ObjectTag::Rel(rel), block },
            PageKey::Slru { kind, page } => ObjectPage {
                object: ObjectTag::Slru { kind, segment: page / SLRU_PAGES_PER_SEGMENT },
                block: BlockNumber(page % SLRU_PAGES_PER_SEGMENT),
            },
        }
    }
}

impl From<ObjectPage> for PageKey {
    fn from(page: ObjectPage) -> PageKey {
        match page.object {
            ObjectTag::Rel(rel) => PageKey::Rel { rel, block: page.block },
            ObjectTag::Slru { kind, segment } => {
                PageKey::Slru { kind, page: segment * SLRU_PAGES_PER_SEGMENT + page.block.0 }
            }
        }
    }
}
