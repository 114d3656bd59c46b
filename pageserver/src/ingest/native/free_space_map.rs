//! The free space map, as far as truncation touches it.
//!
//! A page of the map holds a binary tree in an array: each inner node is the maximum of its two
//! children, the leaves stand for pages of the relation (or, on the upper levels, for pages of the
//! map). Pages of the three levels are interleaved in the file: each page of a level comes before
//! the pages below it. Source: PostgreSQL `storage/fsm_internals.h`,
//! `backend/storage/freespace/{freespace,fsmpage,README}`.

use postgres_formats::{BLCKSZ, BlockNumber, PageImage};

/// Where the array begins: behind the page header and the search's starting point.
const NODES_OFFSET: usize = 24 + 4;
/// Nodes on a page.
const NODES: usize = BLCKSZ - NODES_OFFSET;
/// Those of them that are inner nodes.
const INNER_NODES: usize = BLCKSZ / 2 - 1;
/// Those of them that are leaves.
const SLOTS_PER_PAGE: u32 = (NODES - INNER_NODES) as u32;
/// Levels, from the root page down to the pages whose leaves stand for pages of the relation.
const LEVELS: u32 = 3;

/// The page of the map, as a place in the file, that holds the slot of the relation's page
/// `heap_block`, and the slot's number on it.
fn locate(heap_block: BlockNumber) -> (BlockNumber, u32) {
    let leaf_page = heap_block.0 / SLOTS_PER_PAGE;
    // Before a bottom page in the file there are the bottom pages before it and, on each upper
    // level, the pages needed to reach it.
    let mut pages = 0;
    let mut page_on_level = leaf_page;
    for _ in 0..LEVELS {
        pages += page_on_level + 1;
        page_on_level /= SLOTS_PER_PAGE;
    }
    (BlockNumber(pages - 1), heap_block.0 % SLOTS_PER_PAGE)
}

/// What is left of the map when the relation is cut to `heap_blocks` pages: its size, and the page
/// whose tail stands for pages that are gone, if any.
pub(super) fn truncated(heap_blocks: BlockNumber) -> (BlockNumber, Option<BlockNumber>) {
    match locate(heap_blocks) {
        (page, 0) => (page, None),
        (page, _) => (BlockNumber(page.0 + 1), Some(page)),
    }
}

/// Empties the slots for pages of the relation from `heap_blocks` on, in the page that `truncated`
/// gave, and makes the inner nodes right again.
pub(super) fn clear_tail(heap_blocks: BlockNumber, page: &mut PageImage) {
    let (_, slot) = locate(heap_blocks);
    let nodes = &mut page[NODES_OFFSET..];
    nodes[INNER_NODES + slot as usize..].fill(0);
    for node in (0..INNER_NODES).rev() {
        let child = |n: usize| nodes.get(n).copied().unwrap_or(0);
        nodes[node] = child(2 * node + 1).max(child(2 * node + 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_where_postgresql_puts_them() {
        // The root and the first page of the middle level come first.
        assert_eq!(locate(BlockNumber(0)), (BlockNumber(2), 0));
        assert_eq!(locate(BlockNumber(4068)), (BlockNumber(2), 4068));
        assert_eq!(locate(BlockNumber(4069)), (BlockNumber(3), 0));
        // The second page of the middle level stands before the bottom pages it is for.
        let per_middle = 4069 * 4069;
        assert_eq!(locate(BlockNumber(per_middle - 1)), (BlockNumber(2 + 4068), 4068));
        assert_eq!(locate(BlockNumber(per_middle)), (BlockNumber(2 + 4068 + 2), 0));
    }

    #[test]
    fn truncation_keeps_the_page_with_live_slots() {
        assert_eq!(truncated(BlockNumber(0)), (BlockNumber(2), None));
        assert_eq!(truncated(BlockNumber(1)), (BlockNumber(3), Some(BlockNumber(2))));
        assert_eq!(truncated(BlockNumber(4069)), (BlockNumber(3), None));
    }

    #[test]
    fn inner_nodes_are_maxima_of_what_is_left() {
        let mut page = PageImage::zeroed();
        for slot in 0..SLOTS_PER_PAGE as usize {
            page[NODES_OFFSET + INNER_NODES + slot] = (slot % 200) as u8;
        }
        clear_tail(BlockNumber(4069 + 11), &mut page);
        assert_eq!(page[NODES_OFFSET], 10);
        assert_eq!(page[NODES_OFFSET + INNER_NODES + 10], 10);
        assert_eq!(page[NODES_OFFSET + INNER_NODES + 11], 0);
        let once = page.clone();
        clear_tail(BlockNumber(4069 + 11), &mut page);
        assert_eq!(page, once);
    }
}
