//! `Maps`: the free space maps that come out of the pages of tables.

use std::collections::BTreeMap;

use postgres_formats::free_space_map::{self, Place, SLOTS_PER_PAGE, category, heap_page_room};
use postgres_formats::{BlockNumber, ForkNumber, PageImage, RelFileLocator};

use crate::object::{ObjectPage, ObjectTag};

/// Makes the maps of tables whose pages go by in order, one table after the other. Takes one byte of memory
/// for each page of the table at work.
#[derive(Default)]
pub(crate) struct Maps {
    /// The tables, each with its number of pages.
    tables: BTreeMap<RelFileLocator, u32>,
    /// The one at work.
    table: Option<RelFileLocator>,
    /// The categories of its first pages.
    categories: Vec<u8>,
}

impl Maps {
    /// Adds a table with so many pages if its first page, `image`, is one of a table. Gives how many pages
    /// its map has.
    pub fn add_table(
        &mut self,
        table: RelFileLocator,
        pages: u32,
        image: &PageImage,
    ) -> Option<u32> {
        // A page of zeros may be an index's that is being built.
        if image.is_new() || heap_page_room(image).is_none() {
            return None;
        }
        self.tables.insert(table, pages);
        Some(free_space_map::pages_for(pages))
    }

    /// The table, and its number of pages, if `page` is one of a map that is made here.
    pub fn table_of(&self, page: ObjectPage) -> Option<(RelFileLocator, u32)> {
        let ObjectTag::Rel(rel) = page.object else { return None };
        let pages = self.tables.get(&rel.locator()).filter(|_| rel.fork == ForkNumber::Fsm)?;
        Some((rel.locator(), *pages))
    }

    /// Sees how much room there is on the next page.
    pub fn look(&mut self, page: ObjectPage, image: &PageImage) {
        let ObjectTag::Rel(rel) = page.object else { return };
        let table = rel.locator();
        if rel.fork != ForkNumber::Main || !self.tables.contains_key(&table) {
            return;
        }
        if page.block.0 == 0 {
            self.table = Some(table);
            self.categories.clear();
        }
        let is_next = u32::try_from(self.categories.len()) == Ok(page.block.0);
        if self.table == Some(table) && is_next {
            self.categories.push(heap_page_room(image).map_or(0, category));
        }
    }

    /// Page `block` of the map of a table; `None` if not all of the table's pages have gone by.
    pub fn page(&self, table: RelFileLocator, block: BlockNumber) -> Option<PageImage> {
        let pages = self.tables.get(&table)?;
        if self.table != Some(table) || u32::try_from(self.categories.len()) != Ok(*pages) {
            return None;
        }
        let Place { level, number } = Place::of_block(block);
        let span_of_slot = (SLOTS_PER_PAGE as usize).pow(level);
        let span = span_of_slot.saturating_mul(SLOTS_PER_PAGE as usize);
        let first = span.saturating_mul(number as usize);
        let below = self.categories.get(first..).unwrap_or_default();
        let below = below.get(..span).unwrap_or(below);
        let highest = |slot: &[u8]| slot.iter().copied().max().unwrap_or(0);
        Some(free_space_map::page(below.chunks(span_of_slot).map(highest)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use postgres_formats::Oid;

    use super::*;

    const TABLE: RelFileLocator =
        RelFileLocator { spc: Oid::DEFAULT_TABLESPACE, db: Oid(5), rel: Oid(16384) };

    /// A page of a table with so much room.
    fn heap_page(room: u16) -> PageImage {
        let mut page = PageImage::zeroed();
        page.init_header();
        page[14..16].copy_from_slice(&(24 + 4 + room).to_le_bytes());
        page
    }

    fn main_page(block: u32) -> ObjectPage {
        let object = ObjectTag::Rel(TABLE.fork(ForkNumber::Main));
        ObjectPage { object, block: BlockNumber(block) }
    }

    fn slots(maps: &Maps, block: u32) -> Vec<u8> {
        free_space_map::slots(&maps.page(TABLE, BlockNumber(block)).unwrap()).to_vec()
    }

    #[test]
    fn a_small_table() {
        let mut maps = Maps::default();
        assert_eq!(maps.add_table(TABLE, 3, &heap_page(100)), Some(3));
        for (block, room) in [(0, 100), (1, 0), (2, 3200)] {
            assert!(maps.page(TABLE, BlockNumber(2)).is_none(), "not all have gone by");
            maps.look(main_page(block), &heap_page(room));
        }
        assert_eq!(slots(&maps, 2)[..4], [3, 0, 100, 0]);
        assert_eq!(slots(&maps, 1)[..2], [100, 0]);
        assert_eq!(slots(&maps, 0)[..2], [100, 0]);
    }

    #[test]
    fn others_have_none() {
        let mut maps = Maps::default();
        let mut index = heap_page(100);
        index[16..18].copy_from_slice(&8176_u16.to_le_bytes());
        assert_eq!(maps.add_table(TABLE, 3, &index), None);
        assert_eq!(maps.add_table(TABLE, 3, &PageImage::zeroed()), None);
        maps.look(main_page(0), &index);
        assert!(maps.page(TABLE, BlockNumber(0)).is_none());
    }

    #[test]
    fn whoever_begins_in_the_middle_begins_anew() {
        let mut maps = Maps::default();
        maps.add_table(TABLE, 2, &heap_page(100));
        maps.look(main_page(1), &heap_page(100));
        assert!(maps.page(TABLE, BlockNumber(2)).is_none());
        for block in [0, 0, 1] {
            maps.look(main_page(block), &heap_page(64));
        }
        assert_eq!(slots(&maps, 2)[..3], [2, 2, 0]);
    }

    /// A table over 128 GiB has a second page on the middle level. Only its categories are made up.
    #[test]
    fn three_levels() {
        let per_middle = SLOTS_PER_PAGE * SLOTS_PER_PAGE;
        let pages = per_middle + 5000;
        let mut maps = Maps::default();
        let size = maps.add_table(TABLE, pages, &heap_page(100)).unwrap();
        assert_eq!(size, 1 + (1 + SLOTS_PER_PAGE) + (1 + 2));
        maps.table = Some(TABLE);
        maps.categories = vec![0; pages as usize];
        let with_room =
            [(0, 9), (4068, 8), (4069, 7), (per_middle - 1, 50), (per_middle + 4999, 200)];
        for (block, category) in with_room {
            maps.categories[block as usize] = category;
        }
        for (heap_block, category) in with_room {
            let (block, slot) = free_space_map::locate(BlockNumber(heap_block));
            assert_eq!(slots(&maps, block.0)[slot as usize], category, "page {heap_block}");
        }
        assert_eq!(slots(&maps, 0)[..3], [50, 200, 0]);
        assert_eq!(slots(&maps, 1)[..3], [9, 7, 0]);
        assert_eq!(slots(&maps, 1)[4068], 50);
        assert_eq!(slots(&maps, 1 + 4069 + 1)[..3], [0, 200, 0]);
        // Nothing behind, and every page that names room names it in the one above.
        for block in 0..size + 2 {
            let map = maps.page(TABLE, BlockNumber(block)).unwrap();
            assert!(!free_space_map::names_behind(pages, BlockNumber(block), &map), "{block}");
        }
    }
}
