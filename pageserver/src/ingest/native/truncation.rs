//! Truncation of a relation and of the two maps that go with it.
//!
//! Source: `smgr_redo` in PostgreSQL `backend/catalog/storage.c`.

use postgres_formats::wal::records::smgr::SmgrTruncate;
use postgres_formats::{BlockNumber, ForkNumber, PageImage, RelTag, free_space_map};

use super::visibility_map;
use crate::ingest::change::{Change, Changes};
use crate::key::PageKey;

/// Cuts the main fork and both maps. A map whose last page stands for removed pages too gets a new
/// version of it, before the cut; if the map does not reach that far, nothing happens to it.
pub(in crate::ingest) fn push_changes(truncate: &SmgrTruncate, changes: &mut Changes) {
    if truncate.main {
        let rel = truncate.rel.fork(ForkNumber::Main);
        changes.list.push(Change::RelTruncate { rel, nblocks: truncate.nblocks });
    }
    let mut cut_map = |fork, (nblocks, tail): (BlockNumber, Option<BlockNumber>)| {
        let rel = truncate.rel.fork(fork);
        if let Some(block) = tail {
            let key = PageKey::Rel { rel, block };
            changes.list.push(Change::NativePage { key, will_init: false, must_exist: true });
        }
        changes.list.push(Change::RelTruncate { rel, nblocks });
    };
    if truncate.fsm {
        cut_map(ForkNumber::Fsm, free_space_map::truncated(truncate.nblocks));
    }
    if truncate.vm {
        cut_map(ForkNumber::Vm, visibility_map::truncated(truncate.nblocks));
    }
}

/// Empties the tail of a map's last page; false if this is not that page.
pub(super) fn apply(
    truncate: &SmgrTruncate,
    rel: RelTag,
    block: BlockNumber,
    page: &mut PageImage,
) -> bool {
    if rel.locator() != truncate.rel {
        return false;
    }
    match rel.fork {
        ForkNumber::Fsm if truncate.fsm => {
            let found = free_space_map::truncated(truncate.nblocks).1 == Some(block);
            if found {
                free_space_map::clear_behind(truncate.nblocks.0, block, page);
            }
            found
        }
        ForkNumber::Vm if truncate.vm => {
            let found = visibility_map::truncated(truncate.nblocks).1 == Some(block);
            if found {
                visibility_map::clear_tail(truncate.nblocks, page);
            }
            found
        }
        _ => false,
    }
}
