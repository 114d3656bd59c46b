//! Where things are on a page (`storage/bufpage.h`, `storage/itemid.h`).

use std::ops::Range;

use postgres_formats::{BLCKSZ, PageImage};

/// `pd_flags`.
pub(super) const FLAGS: usize = 10;
/// `pd_prune_xid`.
pub(super) const PRUNE_XID: Range<usize> = 20..24;
/// The line pointers begin here (`SizeOfPageHeaderData`).
pub(super) const LINE_POINTERS: usize = 24;

/// `LP_NORMAL`
const NORMAL: u32 = 1;
/// `LP_DEAD`
const DEAD: u32 = 3;

/// Where the parts of a page are.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub lower: usize,
    pub upper: usize,
    pub special: usize,
}

impl Layout {
    /// `None` for one that was never initialised, or makes no sense.
    pub fn of(page: &PageImage) -> Option<Layout> {
        let field = |at| half(page, at).map(usize::from);
        let layout = Layout { lower: field(12)?, upper: field(14)?, special: field(16)? };
        let Layout { lower, upper, special } = layout;
        let in_order = LINE_POINTERS <= lower && lower <= upper && upper <= special;
        (in_order && special <= BLCKSZ).then_some(layout)
    }

    /// Numbers of the line pointers, from 1 on.
    pub fn numbers(self) -> impl Iterator<Item = u16> {
        let count = (self.lower - LINE_POINTERS) / 4;
        1..=u16::try_from(count).unwrap_or(u16::MAX)
    }
}

/// A line pointer (`ItemIdData`).
#[derive(Clone, Copy)]
pub(super) struct LinePointer(u32);

impl LinePointer {
    pub fn read(page: &PageImage, number: u16) -> Option<LinePointer> {
        let bytes = page.get(LinePointer::place(number)..)?.first_chunk()?;
        Some(LinePointer(u32::from_le_bytes(*bytes)))
    }

    /// Where the pointer itself is.
    pub fn place(number: u16) -> usize {
        LINE_POINTERS + 4 * (usize::from(number) - 1)
    }

    pub fn is_normal(self) -> bool {
        self.flags() == NORMAL
    }

    pub fn is_dead(self) -> bool {
        self.flags() == DEAD
    }

    /// The same marked as dead (`ItemIdMarkDead`).
    pub fn as_dead(self) -> LinePointer {
        LinePointer(self.0 | DEAD << 15)
    }

    pub fn is_same(self, other: LinePointer) -> bool {
        self.0 == other.0
    }

    /// What it points at; empty if that has no storage.
    pub fn item(self) -> Range<usize> {
        let (start, len) = (self.0 & 0x7FFF, self.0 >> 17);
        start as usize..(start + len) as usize
    }

    fn flags(self) -> u32 {
        self.0 >> 15 & 3
    }
}

/// Two bytes as a number.
pub(super) fn half(page: &PageImage, at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*page.get(at..)?.first_chunk()?))
}

/// What is at a byte, in words.
pub(super) fn place(page: &PageImage, at: usize) -> String {
    let header = match at {
        0..8 => "pd_lsn",
        8..10 => "pd_checksum",
        10..12 => "pd_flags",
        12..14 => "pd_lower",
        14..16 => "pd_upper",
        16..18 => "pd_special",
        18..20 => "pd_pagesize_version",
        20..24 => "pd_prune_xid",
        _ => "",
    };
    if !header.is_empty() {
        return header.to_owned();
    }
    let Some(layout) = Layout::of(page) else { return "on a page without layout".to_owned() };
    if at < layout.lower {
        return format!("line pointer {}", (at - LINE_POINTERS) / 4 + 1);
    }
    if at < layout.upper {
        return "unused space".to_owned();
    }
    if at >= layout.special {
        return format!("byte {} of the special space", at - layout.special);
    }
    for number in layout.numbers() {
        let item = LinePointer::read(page, number).map_or(0..0, LinePointer::item);
        if item.contains(&at) {
            return format!("byte {} of item {number}", at - item.start);
        }
    }
    "between items".to_owned()
}
