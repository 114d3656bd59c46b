//! Which page of the map stands for what.

use super::{LEVELS, Place, SLOTS_PER_PAGE};
use crate::BlockNumber;

impl Place {
    /// Where in the file the page is. Places that stand for no page of a relation have no block.
    pub fn block(self) -> Option<BlockNumber> {
        // Before a bottom page in the file there are the bottom pages before it and, on each upper level,
        // the pages needed to reach it.
        let mut bottom = u64::from(self.number) * span_of_page(self.level) / span_of_page(0);
        let mut pages = 0;
        for _ in 0..LEVELS {
            pages += bottom + 1;
            bottom /= u64::from(SLOTS_PER_PAGE);
        }
        // A page of an upper level comes before those below it, which were counted.
        let block = pages - u64::from(self.level) - 1;
        u32::try_from(block).ok().map(BlockNumber)
    }

    /// What the page at that place in the file is.
    pub fn of_block(block: BlockNumber) -> Place {
        // A page of the middle level and the bottom pages that it stands for.
        let group = SLOTS_PER_PAGE + 1;
        match block.0.checked_sub(1) {
            None => Place { level: 2, number: 0 },
            Some(n) if n % group == 0 => Place { level: 1, number: n / group },
            // At most one more than the number of the block.
            Some(n) => Place { level: 0, number: n / group * SLOTS_PER_PAGE + n % group - 1 },
        }
    }

    /// How many of its slots stand, at least in part, for pages of a relation of `heap_blocks`.
    pub fn slots_in(self, heap_blocks: u32) -> usize {
        let first = u64::from(self.number) * span_of_page(self.level);
        let rest = u64::from(heap_blocks).saturating_sub(first);
        let span_of_slot = span_of_page(self.level) / u64::from(SLOTS_PER_PAGE);
        rest.div_ceil(span_of_slot).min(u64::from(SLOTS_PER_PAGE)) as usize
    }

    /// The page of the level above with this page's slot, and the slot's number.
    pub fn parent(self) -> (Place, u32) {
        let parent = Place { level: self.level + 1, number: self.number / SLOTS_PER_PAGE };
        (parent, self.number % SLOTS_PER_PAGE)
    }
}

/// For how many pages of the relation a page of that level stands.
fn span_of_page(level: u32) -> u64 {
    u64::from(SLOTS_PER_PAGE).pow(level + 1)
}

/// The page of the map, as a place in the file, that holds the slot of the relation's page `heap_block`,
/// and the slot's number on it.
pub fn locate(heap_block: BlockNumber) -> (BlockNumber, u32) {
    let place = Place { level: 0, number: heap_block.0 / SLOTS_PER_PAGE };
    let block = place.block().unwrap_or_else(|| unreachable!("there is a slot for every page"));
    (block, heap_block.0 % SLOTS_PER_PAGE)
}

/// How many pages a map has that stands for a relation of `heap_blocks`.
pub fn pages_for(heap_blocks: u32) -> u32 {
    heap_blocks.checked_sub(1).map_or(0, |last| locate(BlockNumber(last)).0.0 + 1)
}

/// What is left of the map when the relation is cut to `heap_blocks` pages: its size, and the page
/// whose tail stands for pages that are gone, if any.
pub fn truncated(heap_blocks: BlockNumber) -> (BlockNumber, Option<BlockNumber>) {
    match locate(heap_blocks) {
        (page, 0) => (page, None),
        (page, _) => (BlockNumber(page.0 + 1), Some(page)),
    }
}
