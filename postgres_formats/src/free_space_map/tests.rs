use super::*;

const PER_MIDDLE: u32 = 4069 * 4069;

#[test]
fn pages_are_where_postgresql_puts_them() {
    // The root and the first page of the middle level come first.
    assert_eq!(locate(BlockNumber(0)), (BlockNumber(2), 0));
    assert_eq!(locate(BlockNumber(4068)), (BlockNumber(2), 4068));
    assert_eq!(locate(BlockNumber(4069)), (BlockNumber(3), 0));
    // The second page of the middle level stands before the bottom pages it is for.
    assert_eq!(locate(BlockNumber(PER_MIDDLE - 1)), (BlockNumber(2 + 4068), 4068));
    assert_eq!(locate(BlockNumber(PER_MIDDLE)), (BlockNumber(2 + 4068 + 2), 0));
    // The last page that a relation can have, of 32 TiB: below the 260th of the middle.
    assert_eq!(locate(BlockNumber(u32::MAX - 1)), (BlockNumber(1 + 260 + 1_055_533), 3_517));
    assert_eq!(Place { level: 1, number: 1 }.block(), Some(BlockNumber(4071)));
    assert_eq!(Place { level: 2, number: 0 }.block(), Some(BlockNumber(0)));
    assert_eq!(Place { level: 1, number: u32::MAX }.block(), None);
}

#[test]
fn a_page_knows_its_place() {
    // Counted as the file is laid out, over two borders of the middle level.
    let mut block = 1;
    for middle in 0..3 {
        assert_eq!(Place::of_block(BlockNumber(block)), Place { level: 1, number: middle });
        for bottom in 0..4069 {
            block += 1;
            let place = Place { level: 0, number: middle * 4069 + bottom };
            assert_eq!(Place::of_block(BlockNumber(block)), place);
            assert_eq!(place.block(), Some(BlockNumber(block)));
            assert_eq!(place.parent(), (Place { level: 1, number: middle }, bottom));
        }
        block += 1;
    }
    assert_eq!(Place::of_block(BlockNumber(0)), Place { level: 2, number: 0 });
    // A place that nothing of PostgreSQL's asks for stands for nothing.
    assert_eq!(Place::of_block(BlockNumber(u32::MAX)).slots_in(u32::MAX), 0);
}

#[test]
fn sizes_and_slots_go_with_the_relation() {
    let sizes = [0, 1, 4069, 4070, PER_MIDDLE, PER_MIDDLE + 1].map(pages_for);
    assert_eq!(sizes, [0, 3, 3, 4, 4071, 4073]);
    let slots = |block, heap_blocks| Place::of_block(BlockNumber(block)).slots_in(heap_blocks);
    assert_eq!([0, 1, 4069, 4070].map(|n| slots(2, n)), [0, 1, 4069, 4069]);
    assert_eq!([4069, 4070, 4071].map(|n| slots(3, n)), [0, 1, 2]);
    assert_eq!([0, 1, 4069, 4070, PER_MIDDLE].map(|n| slots(1, n)), [0, 1, 1, 2, 4069]);
    assert_eq!(
        [0, 1, PER_MIDDLE, PER_MIDDLE + 1, u32::MAX].map(|n| slots(0, n)),
        [0, 1, 1, 2, 260]
    );
}

#[test]
fn truncation_keeps_the_page_with_live_slots() {
    assert_eq!(truncated(BlockNumber(0)), (BlockNumber(2), None));
    assert_eq!(truncated(BlockNumber(1)), (BlockNumber(3), Some(BlockNumber(2))));
    assert_eq!(truncated(BlockNumber(4069)), (BlockNumber(3), None));
}

#[test]
fn inner_nodes_are_maxima_of_what_is_left() {
    let mut map = page((0..SLOTS_PER_PAGE).map(|slot| (slot % 200) as u8));
    assert_eq!((map[NODES_OFFSET], slots(&map).len()), (199, 4069));
    // The second bottom page, of a relation that has 11 pages there.
    assert!(names_behind(4069 + 11, BlockNumber(3), &map));
    assert!(clear_behind(4069 + 11, BlockNumber(3), &mut map));
    assert!(!names_behind(4069 + 11, BlockNumber(3), &map));
    assert_eq!(map[NODES_OFFSET], 10);
    assert_eq!(slots(&map)[9..13], [9, 10, 0, 0]);
    assert!(!clear_behind(4069 + 11, BlockNumber(3), &mut map));
    for node in 0..INNER_NODES {
        let child = |n: usize| map.get(NODES_OFFSET + n).copied().unwrap_or(0);
        assert_eq!(child(node), child(2 * node + 1).max(child(2 * node + 2)));
    }
    assert!(clear_behind(0, BlockNumber(3), &mut map));
    assert!(map[NODES_OFFSET..].iter().all(|node| *node == 0));
}

#[test]
fn pages_without_room_are_zeros() {
    assert!(page([0; 20]) == PageImage::zeroed());
    let map = page([0, 0, 7]);
    assert_eq!(
        map[..CONTENTS + 4],
        *b"\0\0\0\0\0\0\0\0\0\0\0\0\x18\0\0\x20\0\x20\x04\x20\0\0\0\0\0\0\0\0"
    );
    assert_eq!((slots(&map)[2], map[NODES_OFFSET]), (7, 7));
}

#[test]
fn categories_are_rounded_down() {
    let rooms = [0, 31, 32, 8127, 8128, 8159, 8160, 8192];
    assert_eq!(rooms.map(category), [0, 0, 1, 253, 254, 254, 255, 255]);
}

/// A page of a table with so many line pointers, all in use, and its rows from `upper` on.
fn heap_page(pointers: usize, upper: u16) -> PageImage {
    let mut page = PageImage::zeroed();
    page.init_header();
    page[12..14].copy_from_slice(&(24 + 4 * pointers as u16).to_le_bytes());
    page[14..16].copy_from_slice(&upper.to_le_bytes());
    for pointer in page[24..24 + 4 * pointers].chunks_exact_mut(4) {
        pointer.copy_from_slice(&(8000 | 1 << 15 | (24_u32 << 17)).to_le_bytes());
    }
    page
}

#[test]
fn room_is_what_a_row_may_take() {
    assert_eq!(heap_page_room(&PageImage::zeroed()), Some(8168));
    assert_eq!(heap_page_room(&heap_page(0, 8192)), Some(8164));
    assert_eq!(heap_page_room(&heap_page(10, 100)), Some(100 - 64 - 4));
    assert_eq!(heap_page_room(&heap_page(10, 67)), Some(0));
    // An index has special space; garbage is nothing.
    let mut index = heap_page(10, 8000);
    index[16..18].copy_from_slice(&8176_u16.to_le_bytes());
    assert_eq!(heap_page_room(&index), None);
    assert_eq!(heap_page_room(&heap_page(30, 40)), None);
    let mut torn = PageImage::zeroed();
    torn[8000] = 1;
    assert_eq!(heap_page_room(&torn), None);
}

#[test]
fn a_page_full_of_line_pointers_has_no_room() {
    assert_eq!(heap_page_room(&heap_page(290, 4000)), Some(4000 - 24 - 1160 - 4));
    let mut page = heap_page(291, 4000);
    assert_eq!(heap_page_room(&page), Some(0));
    // One of them is not used, but nobody has said so in the header.
    page[24 + 100..24 + 104].fill(0);
    assert_eq!(heap_page_room(&page), Some(0));
    page[10] = 1;
    assert_eq!(heap_page_room(&page), Some(4000 - 24 - 1164 - 4));
    // Dead ones and redirections are in use.
    for flags in [2_u32, 3] {
        page[24 + 100..24 + 104].copy_from_slice(&(flags << 15).to_le_bytes());
        assert_eq!(heap_page_room(&page), Some(0));
    }
}
