//! Maps of an image, and what later records and requests make of them. The records were taken in before
//! there was the image, as is mostly so, and cut no map.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use postgres_formats::free_space_map::{locate, slots};
use postgres_formats::{Oid, RelTag};

use super::*;
use crate::timeline::damage::sample::Sample;

/// Of the two tables: one over the end of a page of its map, with nothing written there but at its ends.
const SMALL: RelFileLocator = table(20_000);
const LARGE: RelFileLocator = table(20_001);
const LARGE_PAGES: u32 = 4100;

const fn table(number: u32) -> RelFileLocator {
    RelFileLocator { spc: Oid::DEFAULT_TABLESPACE, db: Oid(5), rel: Oid(number) }
}

/// A page of a table with so much room.
fn heap_page(room: u16) -> PageImage {
    let mut page = PageImage::zeroed();
    page.init_header();
    page[14..16].copy_from_slice(&(24 + 4 + room).to_le_bytes());
    page
}

fn main_fork(table: RelFileLocator) -> RelTag {
    table.fork(ForkNumber::Main)
}

fn map_fork(table: RelFileLocator) -> RelTag {
    table.fork(ForkNumber::Fsm)
}

fn map_page(timeline: &Arc<Timeline>, table: RelFileLocator, block: u32, lsn: Lsn) -> PageImage {
    let request = PageRequest::rel(map_fork(table), BlockNumber(block), lsn);
    PageImage::clone(&timeline.get_page(request, NO_WAIT).unwrap())
}

/// The first slots of the page with the slots of the small table, all behind being empty.
fn room(timeline: &Arc<Timeline>, lsn: Lsn) -> Vec<u8> {
    let page = map_page(timeline, SMALL, 2, lsn);
    let mut room = slots(&page).to_vec();
    room.truncate(room.iter().rposition(|slot| *slot > 0).map_or(0, |last| last + 1));
    // What stands above it does not promise more than was there once.
    assert!(page[28] >= room.iter().copied().max().unwrap_or(0));
    room
}

fn map_size(timeline: &Timeline, table: RelFileLocator, lsn: Lsn) -> Option<u32> {
    timeline.rel_size(map_fork(table), lsn).unwrap().map(|size| size.0)
}

/// Two tables, all of whose pages are in a layer.
fn begin() -> (Sample, Arc<Timeline>, Lsn) {
    let mut sample = Sample::new(1 << 19);
    for (block, room) in [(0, 320), (1, 0), (2, 640), (3, 960), (5, 1280)] {
        sample.write_block(main_fork(SMALL), block, &heap_page(room));
    }
    sample.write_block(main_fork(LARGE), 0, &heap_page(64));
    let begun = sample.write_block(main_fork(LARGE), LARGE_PAGES - 1, &heap_page(96));
    let timeline = sample.open();
    sample.give(&timeline);
    timeline.freeze().unwrap();
    (sample, timeline, begun)
}

#[test]
fn an_image_has_maps_and_nothing_before_it() {
    let (sample, timeline, begun) = begin();
    assert_eq!(map_size(&timeline, SMALL, begun), None);
    assert!(timeline.make_image(begun).unwrap());
    assert_eq!(map_size(&timeline, SMALL, begun), Some(3));
    // A page of zeros has all the room that there can be.
    assert_eq!(room(&timeline, begun), [10, 0, 20, 30, 255, 40]);
    assert_eq!(map_size(&timeline, LARGE, begun), Some(4));
    let (block, slot) = locate(BlockNumber(LARGE_PAGES - 1));
    assert_eq!(slots(&map_page(&timeline, LARGE, block.0, begun))[slot as usize], 3);
    // A compute may have been made when the map was longer.
    assert!(map_page(&timeline, SMALL, 3, begun) == PageImage::zeroed());
    let before = *sample.ends.iter().rev().nth(1).unwrap();
    assert_eq!(map_size(&timeline, SMALL, before), None);
}

#[test]
fn nothing_leads_behind_a_table_that_was_cut() {
    let (mut sample, timeline, begun) = begin();
    let cut = sample.truncate(SMALL, 3);
    let grown = sample.write_block(main_fork(SMALL), 4, &heap_page(0));
    let dropped = sample.drop_relation(SMALL);
    let anew = sample.write_block(main_fork(SMALL), 0, &heap_page(0));
    sample.give(&timeline);
    let branch = sample.open_branch(&timeline, cut, 2);
    let nested = sample.open_branch(&branch, cut, 3);
    assert!(timeline.make_image(begun).unwrap());

    assert_eq!(room(&timeline, begun), [10, 0, 20, 30, 255, 40]);
    for timeline in [&timeline, &branch, &nested] {
        assert_eq!(room(timeline, cut), [10, 0, 20], "{}", timeline.id());
    }
    // What was known of pages that have come back is as good a hint as any.
    assert_eq!(room(&timeline, grown), [10, 0, 20, 30, 255]);
    assert_eq!(map_size(&timeline, SMALL, dropped), None);
    let objects = timeline.list_objects(dropped).unwrap();
    assert!(!objects.contains_key(&ObjectTag::Rel(map_fork(SMALL))));
    let request = PageRequest::rel(map_fork(SMALL), BlockNumber(2), dropped);
    assert!(timeline.get_page(request, NO_WAIT).is_err());
    assert_eq!(room(&timeline, anew), [10]);

    // The next image knows better.
    timeline.freeze().unwrap();
    assert!(timeline.make_image(anew).unwrap());
    assert_eq!(room(&timeline, anew), []);
}

#[test]
fn an_image_of_a_page_in_the_wal_counts_if_it_is_later() {
    let (mut sample, timeline, begun) = begin();
    // Now it is known that there are no maps.
    sample.truncate(SMALL, 100);
    sample.truncate(LARGE, LARGE_PAGES + 100);
    sample.give(&timeline);
    assert!(timeline.make_image(begun).unwrap());
    let map = free_space_map::page([7; 10]);
    let later = sample.write_block(map_fork(SMALL), 2, &map);
    let large = sample.write_block(map_fork(LARGE), 2, &map);
    sample.give(&timeline);
    assert_eq!(room(&timeline, later), [7; 6]);
    // It has not become shorter by that.
    assert_eq!(map_size(&timeline, LARGE, large), Some(4));
    let (block, slot) = locate(BlockNumber(LARGE_PAGES - 1));
    assert_eq!(slots(&map_page(&timeline, LARGE, block.0, large))[slot as usize], 3);
}

#[test]
fn whoever_goes_on_with_an_image_looks_at_the_table_again() {
    let (_sample, timeline, begun) = begin();
    let mut objects = timeline.list_matching(begun, None).unwrap();
    let mut maps = timeline.plan_maps(&timeline, begun, &mut objects).unwrap();
    assert_eq!(objects[&ObjectTag::Rel(map_fork(LARGE))], 4);
    let requests =
        [SMALL, LARGE].map(|table| PageRequest::rel(map_fork(table), BlockNumber(2), begun));
    let pages = timeline.make_with_maps(&timeline, &requests, &mut maps).unwrap();
    assert_eq!(slots(&pages[0])[..7], [10, 0, 20, 30, 255, 40, 0]);
    assert_eq!(slots(&pages[1])[..3], [2, 255, 255]);
}
