//! `PageKey`, the name under which versions of a page are kept.

use std::fmt;

use postgres_formats::{BlockNumber, RelTag, SlruKind};

/// One page of the cluster, whatever the LSN. The derived order keeps the pages of a fork together
/// and ascending, which is the order in which layers store them and readers ask for them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageKey {
    /// A page of a relation.
    Rel {
        /// The fork.
        rel: RelTag,
        /// Its page.
        block: BlockNumber,
    },
    /// A page of the commit log or of the multitransactions.
    Slru {
        /// Which of them.
        kind: SlruKind,
        /// Page number counted over all segments.
        page: u32,
    },
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageKey::Rel { rel, block } => write!(f, "{rel} block {block}"),
            PageKey::Slru { kind, page } => write!(f, "{kind} page {page}"),
        }
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
