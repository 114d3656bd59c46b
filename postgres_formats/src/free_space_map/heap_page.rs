//! How much room a page of a table has.

use crate::{BLCKSZ, PageImage};

/// Bytes of a category (`FSM_CAT_STEP`).
const STEP: usize = BLCKSZ / 256;
/// Nobody asks for more room than the largest row takes (`MaxHeapTupleSize`).
const REQUEST_MAX: usize = BLCKSZ - 32;
/// Bytes of a page's header.
const HEADER_BYTES: usize = 24;
/// Bytes of a line pointer.
const LINE_POINTER_BYTES: usize = 4;
/// No table's page has more line pointers (`MaxHeapTuplesPerPage`): the shortest row has 24 bytes.
const LINE_POINTERS_MAX: usize = (BLCKSZ - HEADER_BYTES) / (24 + LINE_POINTER_BYTES);
/// `PD_HAS_FREE_LINES`, in `pd_flags`.
const HAS_FREE_LINES: u16 = 0x0001;
/// `pd_pagesize_version`: the size, and version 4 of the layout.
const SIZE_AND_VERSION: usize = BLCKSZ | 4;

/// The category of that many bytes of room.
pub fn category(room: usize) -> u8 {
    if room >= REQUEST_MAX {
        return u8::MAX;
    }
    // The highest one is for those alone.
    (room / STEP).min(254) as u8
}

/// The room in bytes that vacuum notes for a page of a table: for a row, its line pointer not counted. `None`:
/// the page is not one of a table, since it has room for special purposes at its end, or is none at all.
pub fn heap_page_room(page: &PageImage) -> Option<usize> {
    if page.is_new() {
        // Vacuum offers what a crash has left never used, and so does who extends a table by many pages.
        let is_zeros = page.iter().all(|byte| *byte == 0);
        return is_zeros.then_some(BLCKSZ - HEADER_BYTES);
    }
    let field = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
    let (flags, lower, upper) = (field(10), field(12), field(14));
    let (special, size_and_version) = (field(16), field(18));
    let is_sound = lower >= HEADER_BYTES && lower <= upper && upper <= special;
    if !is_sound || special != BLCKSZ || size_and_version != SIZE_AND_VERSION {
        return None;
    }
    let Some(room) = (upper - lower).checked_sub(LINE_POINTER_BYTES) else { return Some(0) };
    let pointers = &page[HEADER_BYTES..lower];
    if pointers.len() / LINE_POINTER_BYTES < LINE_POINTERS_MAX {
        return Some(room);
    }
    // With that many, one that is not used must be there.
    let is_unused = |pointer: &[u8]| match pointer {
        // `lp_flags`: bits 15 and 16.
        [_, second, third, _] => second & 0x80 == 0 && third & 0x01 == 0,
        _ => false,
    };
    let has_free = flags & usize::from(HAS_FREE_LINES) != 0
        && pointers.chunks_exact(LINE_POINTER_BYTES).any(is_unused);
    Some(if has_free { room } else { 0 })
}
