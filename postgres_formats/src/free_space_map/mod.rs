//! The free space map of a table: how much room each of its pages has, as a hint.
//!
//! A page of the map holds a binary tree in an array: each inner node is the maximum of its two
//! children, the leaves are *slots*. On the bottom level a slot stands for a page of the relation, on the
//! two levels above for a page of the level below, with the maximum of that. In the file each page of a
//! level comes before the pages below it:
//!
//! ```text
//! page of the map    0      1          2        3       ..  4070     4071       4072      ..
//! is                 root   middle 0   bottom 0 bottom 1 .. 4068     middle 1   bottom 4069 ..
//! stands for pages   all    0 ..       0 ..     4069 ..              4069² ..   4069² ..
//!
//! page header | starting point of the search, 4 bytes | 4095 inner nodes | 4069 slots
//! ```
//!
//! A slot holds a *category*: room in steps of 32 bytes, rounded down. Nothing of a map is logged but
//! images where checksums are on, so any of it may be wrong; PostgreSQL looks at the page before it
//! believes the map. But a slot for a page behind the relation's end makes releases before 15.7 fail with
//! "could not read block".
//!
//! Source: PostgreSQL `storage/fsm_internals.h`, `backend/storage/freespace/{README,freespace.c,fsmpage.c}`,
//! `PageGetHeapFreeSpace` in `backend/storage/page/bufpage.c`.

mod heap_page;
mod place;

use crate::{BLCKSZ, BlockNumber, PageImage};

pub use heap_page::{category, heap_page_room};
pub use place::{locate, pages_for, truncated};

/// Where a page's contents begin.
const CONTENTS: usize = 24;
/// Where the tree begins: behind the starting point of the search.
const NODES_OFFSET: usize = CONTENTS + 4;
/// Nodes on a page.
const NODES: usize = BLCKSZ - NODES_OFFSET;
/// Those of them that are inner nodes.
const INNER_NODES: usize = BLCKSZ / 2 - 1;
/// Slots of a page.
pub const SLOTS_PER_PAGE: u32 = (NODES - INNER_NODES) as u32;
/// Levels, from the root page down to the bottom pages.
const LEVELS: u32 = 3;

/// Which level of the map a page is on, and the how many-eth it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// 0: slots stand for pages of the relation.
    pub level: u32,
    /// Counted from 0.
    pub number: u32,
}

/// The page with these slots, the rest of which are 0; a page of zeros, which PostgreSQL takes for the same,
/// if all are.
pub fn page(slots: impl IntoIterator<Item = u8>) -> PageImage {
    let mut page = PageImage::zeroed();
    let mut highest = 0;
    for (node, slot) in page[NODES_OFFSET + INNER_NODES..].iter_mut().zip(slots) {
        *node = slot;
        highest = highest.max(slot);
    }
    if highest > 0 {
        rebuild(&mut page);
        page.init_header();
    }
    page
}

/// A page's slots.
pub fn slots(page: &[u8; BLCKSZ]) -> &[u8] {
    &page[NODES_OFFSET + INNER_NODES..]
}

/// Makes the inner nodes what the slots say.
fn rebuild(page: &mut PageImage) {
    let nodes = &mut page[NODES_OFFSET..];
    for node in (0..INNER_NODES).rev() {
        let child = |n: usize| nodes.get(n).copied().unwrap_or(0);
        nodes[node] = child(2 * node + 1).max(child(2 * node + 2));
    }
}

/// Empties the slots of page `block` of the map that stand for nothing but pages from `heap_blocks` on.
/// `false`: they were empty.
pub fn clear_behind(heap_blocks: u32, block: BlockNumber, page: &mut PageImage) -> bool {
    let live = Place::of_block(block).slots_in(heap_blocks);
    let behind = &mut page[NODES_OFFSET + INNER_NODES + live..];
    if behind.iter().all(|slot| *slot == 0) {
        return false;
    }
    behind.fill(0);
    rebuild(page);
    true
}

/// Whether page `block` of the map may make PostgreSQL look for room in pages from `heap_blocks` on.
pub fn names_behind(heap_blocks: u32, block: BlockNumber, page: &[u8; BLCKSZ]) -> bool {
    let live = Place::of_block(block).slots_in(heap_blocks);
    slots(page)[live..].iter().any(|slot| *slot > 0)
}

#[cfg(test)]
mod tests;
