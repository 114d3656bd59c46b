//! Each class once, with what looks like it and is none.

#![allow(clippy::unwrap_used)]

use postgres_formats::PageImage;

use super::*;

const HEAP: MaskKind = MaskKind::ResourceManager(rmgr::HEAP);
const BLOCK: BlockNumber = BlockNumber(0x0001_0002);
const AT: Lsn = Lsn::new(0x9_0000_0800);

/// Where the only row of `table_page` is, and the bits of its `t_infomask`.
const ROW: usize = 8192 - 32;
const INFOMASK: usize = ROW + 20;
const CTID: usize = ROW + 12;
const XMAX_INVALID: u16 = 0x0800;

fn put(page: &mut PageImage, at: usize, number: u16) {
    page[at..at + 2].copy_from_slice(&number.to_le_bytes());
}

/// A page with an item of `len` bytes at its end, before a special space.
fn page(special: usize, len: u16) -> PageImage {
    let mut page = PageImage::zeroed();
    let start = u16::try_from(special).unwrap() - 32;
    page.set_lsn(Lsn::new(0x9_0000_0400));
    for (at, number) in [(12, 28), (14, start), (16, start + 32), (18, 8192 | 4)] {
        put(&mut page, at, number);
    }
    let pointer = u32::from(start) | 1 << 15 | u32::from(len) << 17;
    page[24..28].copy_from_slice(&pointer.to_le_bytes());
    page
}

/// A table's page with a row of 29 bytes that nobody has locked or looked at.
fn table_page() -> PageImage {
    let mut page = page(8192, 29);
    put(&mut page, INFOMASK, XMAX_INVALID);
    // Its own place: the upper half of the block's number comes first.
    for (at, number) in [(CTID, 1), (CTID + 2, 2), (CTID + 4, 1)] {
        put(&mut page, at, number);
    }
    page
}

fn index_page(special_bytes: usize, flags_at: usize, flags: u16) -> PageImage {
    let special = 8192 - special_bytes;
    let mut page = page(special, 16);
    put(&mut page, special + flags_at, flags);
    page
}

/// The reasons that are found if both sides begin with `base` and `change` changes them.
fn reasons(
    mask: MaskKind,
    sides: Sides,
    base: &PageImage,
    change: impl FnOnce(&mut PageImage, &mut PageImage),
) -> Result<Vec<Masked>, String> {
    let (mut ours, mut theirs) = (base.clone(), base.clone());
    change(&mut ours, &mut theirs);
    assert!(ours != theirs, "the test changes nothing");
    let pair = Pair { mask, sides, block: BLOCK, at: AT, ours: &ours, theirs: &theirs };
    pair.explain().map(|reasons| reasons.into_iter().collect())
}

/// The same for a number that the server has and we have not, against a server's page.
fn of_server(mask: u8, base: &PageImage, at: usize, number: u16) -> Result<Vec<Masked>, String> {
    reasons(MaskKind::ResourceManager(mask), Sides::Server, base, |_, theirs| {
        put(theirs, at, number);
    })
}

/// The same the other way round.
fn of_us(mask: u8, base: &PageImage, at: usize, number: u16) -> Result<Vec<Masked>, String> {
    reasons(MaskKind::ResourceManager(mask), Sides::Server, base, |ours, _| put(ours, at, number))
}

fn refused(found: Result<Vec<Masked>, String>, place: &str) {
    let told = found.expect_err("it must be refused");
    assert!(told.contains(place), "{told:?} does not say {place:?}");
}

#[test]
fn lsn_and_checksum() {
    let table = table_page();
    let change = |_: &mut PageImage, theirs: &mut PageImage| theirs[4] = 1;
    let map = MaskKind::PageHeader;
    let hash = MaskKind::ResourceManager(rmgr::HASH);
    assert_eq!(reasons(HEAP, Sides::Server, &table, change), Ok(vec![Masked::Lsn]));
    assert_eq!(reasons(map, Sides::SameRecords, &table, change), Ok(vec![Masked::Lsn]));
    assert_eq!(reasons(hash, Sides::Image, &table, change), Ok(vec![Masked::Lsn]));
    refused(reasons(HEAP, Sides::SameRecords, &table, change), "pd_lsn");
    refused(reasons(HEAP, Sides::Image, &table, change), "pd_lsn");
    refused(reasons(hash, Sides::AppliedImage, &table, change), "pd_lsn");
    // One that is yet to come.
    let late = |_: &mut PageImage, theirs: &mut PageImage| theirs.set_lsn(Lsn::new(u64::MAX));
    refused(reasons(HEAP, Sides::Server, &table, late), "pd_lsn");
    for sides in [Sides::SameRecords, Sides::Image, Sides::AppliedImage, Sides::Server] {
        let found = reasons(HEAP, sides, &table, |ours, _| ours[9] = 7);
        assert_eq!(found, Ok(vec![Masked::Checksum]));
    }
}

#[test]
fn headers_of_tables_pages() {
    let table = table_page();
    assert_eq!(of_server(rmgr::HEAP, &table, 10, 3), Ok(vec![Masked::PageHintFlags]));
    assert_eq!(of_us(rmgr::HEAP2, &table, 10, 2), Ok(vec![Masked::PageHintFlags]));
    assert_eq!(of_server(rmgr::HEAP, &table, 20, 700), Ok(vec![Masked::PruneXid]));
    // PD_ALL_VISIBLE: index-only scans believe it.
    refused(of_server(rmgr::HEAP, &table, 10, 4), "pd_flags");
    refused(of_us(rmgr::HEAP, &table, 10, 4), "pd_flags");
    // Indexes have no such hints.
    let index = index_page(16, 12, 1);
    refused(of_server(rmgr::BTREE, &index, 10, 1), "pd_flags");
    refused(of_server(rmgr::GIN, &index_page(8, 6, 7), 20, 700), "pd_prune_xid");
}

#[test]
fn space_that_nobody_uses() {
    let table = table_page();
    for manager in [rmgr::HEAP, rmgr::SPGIST, rmgr::SEQ] {
        assert_eq!(of_us(manager, &table, 28, 7), Ok(vec![Masked::UnusedSpace]));
        assert_eq!(of_server(manager, &table, ROW - 2, 7), Ok(vec![Masked::UnusedSpace]));
        refused(of_server(manager, &table, 27, 7), "line pointer 1");
    }
    assert_eq!(of_us(rmgr::HEAP, &table, 8190, 7), Ok(vec![Masked::RowPadding]));
    // The row's last byte.
    refused(of_us(rmgr::HEAP, &table, 8188, 7), "byte 28 of item 1");
    refused(of_us(rmgr::SPGIST, &table, 8190, 7), "between items");
}

#[test]
fn hints_of_rows() {
    let table = table_page();
    let with = |more: u16| of_server(rmgr::HEAP, &table, INFOMASK, XMAX_INVALID | more);
    assert_eq!(with(0x0100), Ok(vec![Masked::RowHints]));
    assert_eq!(with(0x0200), Ok(vec![Masked::RowHints]));
    let place = "byte 21 of item 1";
    // Frozen, and xmax both committed and invalid.
    refused(with(0x0300), place);
    refused(with(0x0400), place);
    // Lock bits, a multixact, an updated row's bit.
    for bit in [0x0010, 0x0040, 0x0080, 0x1000, 0x2000, 0x4000] {
        refused(with(bit), "item 1");
    }
    // Redo looks at no row.
    refused(of_us(rmgr::HEAP, &table, INFOMASK, XMAX_INVALID | 0x0100), "item 1");
    let committed = |_: &mut PageImage, theirs: &mut PageImage| {
        put(theirs, INFOMASK, XMAX_INVALID | 0x0100);
    };
    refused(reasons(HEAP, Sides::SameRecords, &table, committed), "item 1");

    // A deleted row, a locked one, and one with a multixact.
    for (bits, gone) in [(0x0000, true), (0x0080, false), (0x1000, false)] {
        let mut table = table_page();
        put(&mut table, INFOMASK, bits);
        let found = of_server(rmgr::HEAP, &table, INFOMASK, bits | XMAX_INVALID);
        assert_eq!(found, Ok(vec![Masked::RowHints]));
        let found = of_server(rmgr::HEAP, &table, INFOMASK, bits | 0x0400);
        assert_eq!(found.is_ok(), gone, "{bits:x}: {found:?}");
    }
    // We say aborted, the server says committed.
    let mut table = table_page();
    put(&mut table, INFOMASK, XMAX_INVALID | 0x0200);
    refused(of_server(rmgr::HEAP, &table, INFOMASK, XMAX_INVALID | 0x0100), "item 1");
}

#[test]
fn numbers_of_commands_and_tokens() {
    let table = table_page();
    let found = reasons(HEAP, Sides::Image, &table, |_, theirs| {
        theirs[ROW + 8] = 5;
        put(theirs, INFOMASK, XMAX_INVALID | 0x0020);
    });
    assert_eq!(found, Ok(vec![Masked::CommandId]));
    // Redo knows of the first command only.
    refused(of_us(rmgr::HEAP, &table, ROW + 8, 5), "byte 8 of item 1");

    let token = |_: &mut PageImage, theirs: &mut PageImage| {
        put(theirs, CTID + 2, 77);
        put(theirs, CTID + 4, 0xFFFE);
    };
    assert_eq!(reasons(HEAP, Sides::Image, &table, token), Ok(vec![Masked::SpeculativeCtid]));
    let mut elsewhere = table_page();
    put(&mut elsewhere, CTID + 2, 3);
    refused(reasons(HEAP, Sides::Image, &elsewhere, token), "byte 14 of item 1");
    refused(of_server(rmgr::HEAP, &table, CTID + 4, 2), "byte 16 of item 1");
}

#[test]
fn hints_of_indexes() {
    // Where the flags are, what a leaf has there, and the hint of dead entries.
    for (manager, flags_at, leaf, garbage) in
        [(rmgr::BTREE, 12, 1, 0x40), (rmgr::HASH, 12, 2, 0x80), (rmgr::GIST, 12, 1, 0x10)]
    {
        let index = index_page(16, flags_at, leaf);
        let flags = 8192 - 16 + flags_at;
        let found = of_server(manager, &index, flags, leaf | garbage);
        assert_eq!(found, Ok(vec![Masked::GarbageFlag]));
        refused(of_us(manager, &index, flags, leaf | garbage), "byte 12 of the special space");
        refused(of_server(manager, &index, flags, leaf | 4), "special space");

        let dead = |page: &mut PageImage| page[25] |= 0x80 | 0x01 << 7 | 0x80;
        let mark = |page: &mut PageImage| page[26] |= 1;
        let found = reasons(MaskKind::ResourceManager(manager), Sides::Image, &index, |_, t| {
            dead(t);
            mark(t);
        });
        assert_eq!(found, Ok(vec![Masked::DeadIndexEntries]));
        // One that only we take for dead would hide a row.
        let found = reasons(MaskKind::ResourceManager(manager), Sides::Image, &index, |o, _| {
            dead(o);
            mark(o);
        });
        refused(found, "line pointer 1");
    }
    // Entries of inner pages never die.
    let inner = index_page(16, 12, 0);
    let found = of_server(rmgr::BTREE, &inner, 26, half(&inner, 26) | 1);
    refused(found, "line pointer 1");
}

fn half(page: &PageImage, at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

#[test]
fn cycles_of_btree_vacuum() {
    let leaf = index_page(16, 12, 1);
    let (flags, cycle) = (8192 - 4, 8192 - 2);
    assert_eq!(of_server(rmgr::BTREE, &leaf, cycle, 9), Ok(vec![Masked::CycleId]));
    assert_eq!(of_us(rmgr::BTREE, &leaf, cycle, 9), Ok(vec![Masked::CycleId]));
    assert_eq!(of_server(rmgr::BTREE, &leaf, flags, 1 | 0x20), Ok(vec![Masked::CycleId]));
    let mut other = leaf.clone();
    put(&mut other, cycle, 3);
    refused(of_server(rmgr::BTREE, &other, cycle, 9), "byte 14 of the special space");
    refused(of_us(rmgr::BTREE, &leaf, flags, 1 | 0x20), "byte 12 of the special space");
}

#[test]
fn pages_deleted_from_a_pending_list() {
    let change = |_: &mut PageImage, theirs: &mut PageImage| {
        put(theirs, 12, 400);
        theirs[24] = 9;
        put(theirs, 8192 - 8, 77);
    };
    let gin = MaskKind::ResourceManager(rmgr::GIN);
    let found = reasons(gin, Sides::Image, &index_page(8, 6, 4), change);
    assert_eq!(found, Ok(vec![Masked::DeletedIndexPage]));
    // One of a posting tree keeps what it has.
    refused(reasons(gin, Sides::Image, &index_page(8, 6, 7), change), "pd_lower");
    refused(reasons(gin, Sides::SameRecords, &index_page(8, 6, 4), change), "pd_lower");
}

#[test]
fn left_pages_of_gist_splits() {
    let gist = MaskKind::ResourceManager(rmgr::GIST);
    let index = index_page(16, 12, 1);
    let marked = |number: Lsn| {
        move |ours: &mut PageImage, theirs: &mut PageImage| {
            let number = number.as_u64().rotate_left(32).to_le_bytes();
            ours[8192 - 16..8192 - 8].copy_from_slice(&number);
            put(theirs, 8192 - 4, 1 | 8);
        }
    };
    for sides in [Sides::Image, Sides::AppliedImage] {
        let found = reasons(gist, sides, &index, marked(AT));
        assert_eq!(found, Ok(vec![Masked::GistFollowRight]));
        refused(reasons(gist, sides, &index, marked(Lsn::new(8))), "of the special space");
    }
    // What a server has left behind has the mark, and so has anybody who replays the record.
    for sides in [Sides::Server, Sides::SameRecords] {
        refused(reasons(gist, sides, &index, marked(AT)), "of the special space");
    }
    // An image that was not replayed.
    let found = reasons(gist, Sides::SameRecords, &index, |ours, _| put(ours, 8192 - 4, 1 | 8));
    refused(found, "byte 12 of the special space");
}

#[test]
fn brin_pages_that_are_emptied() {
    let mut regular = index_page(8, 4, 0);
    put(&mut regular, 8190, 0xF093);
    let flags = 8192 - 4;
    assert_eq!(of_server(rmgr::BRIN, &regular, flags, 1), Ok(vec![Masked::BrinEvacuation]));
    refused(of_us(rmgr::BRIN, &regular, flags, 1), "byte 4 of the special space");
    assert_eq!(of_us(rmgr::BRIN, &regular, 40, 1), Ok(vec![Masked::UnusedSpace]));
    // A page of the map of ranges is full of entries, whatever its header says.
    put(&mut regular, 8190, 0xF092);
    refused(of_us(rmgr::BRIN, &regular, 40, 1), "unused space");
}

/// Whatever the pages are, and even if one of them makes no sense.
#[test]
fn nothing_of_damaged_pages_is_explained_away() {
    let mut random = 7u64;
    let mut next = || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize
    };
    for base in [table_page(), index_page(16, 12, 1), index_page(8, 6, 4), PageImage::zeroed()] {
        for _ in 0..300 {
            let (mut ours, mut theirs) = (base.clone(), base.clone());
            for _ in 0..4 {
                let (at, value) = (next() % 40, next() as u8);
                ours[at] = value;
                theirs[next() % 8192] = next() as u8;
            }
            for manager in [rmgr::HEAP, rmgr::BTREE, rmgr::HASH, rmgr::GIN, rmgr::GIST, rmgr::BRIN]
            {
                for sides in [Sides::Image, Sides::Server] {
                    let mask = MaskKind::ResourceManager(manager);
                    let pair =
                        Pair { mask, sides, block: BLOCK, at: AT, ours: &ours, theirs: &theirs };
                    let explained = pair.explain();
                    // The version of the page's format is under no mask.
                    assert!(explained.is_err() || ours[18..20] == theirs[18..20]);
                }
            }
        }
    }
}
