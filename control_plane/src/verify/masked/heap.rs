//! Pages of tables: what `heap_mask` hides (`access/heap/heapam.c`).
//!
//! Everything that it hides beyond the classes here must be equal, for all of it is in records:
//! - `PD_ALL_VISIBLE` is set with a record (`visibilitymap_set`, `heap_multi_insert`) and cleared with
//!   one (`PageClearAllVisible` in `heap_insert`, `heap_update`, `heap_delete`);
//! - the bits of lockers, `HEAP_XMAX_IS_MULTI` and `HEAP_UPDATED` are in the record of whoever sets them
//!   (`compute_infobits`, `fix_infomask_from_infobits`), and remain when the locker is gone: a reader
//!   adds `HEAP_XMAX_INVALID` and takes away nothing (`SetHintBits`, `access/heap/heapam_visibility.c`);
//! - a frozen row has been frozen by a record (`heap_execute_freeze_tuple`).

use std::ops::Range;

use postgres_formats::BlockNumber;

use super::layout::{FLAGS, Layout, LinePointer, PRUNE_XID};
use super::{Masked, Rest};

/// `PD_HAS_FREE_LINES | PD_PAGE_FULL` (`storage/bufpage.h`).
const PAGE_HINTS: u16 = 0x0001 | 0x0002;

// Of a row's header (`HeapTupleHeaderData`, `access/htup_details.h`).
const COMMAND_ID: Range<usize> = 8..12;
const CTID: Range<usize> = 12..18;
const INFOMASK: usize = 20;
const HEADER_BYTES: usize = 23;

// Bits of `t_infomask`.
const COMBOCID: u16 = 0x0020;
const XMAX_LOCK_ONLY: u16 = 0x0080;
const XMIN_COMMITTED: u16 = 0x0100;
const XMIN_INVALID: u16 = 0x0200;
const XMAX_COMMITTED: u16 = 0x0400;
const XMAX_INVALID: u16 = 0x0800;
const XMAX_IS_MULTI: u16 = 0x1000;
const MOVED: u16 = 0x4000 | 0x8000;

/// `SpecTokenOffsetNumber` (`storage/itemptr.h`)
const SPECULATIVE: u16 = 0xFFFE;

pub(super) fn explain(rest: &mut Rest<'_>, layout: &Layout, block: BlockNumber) {
    // Redo of pruning leaves these two as they are (`heap_xlog_prune`), and looking at a page changes
    // them (`heap_page_prune`, `heap_update`, `PageAddItemExtended`).
    rest.permit_bits(Masked::PageHintFlags, FLAGS, PAGE_HINTS);
    rest.permit(Masked::PruneXid, PRUNE_XID);
    rest.permit(Masked::UnusedSpace, layout.lower..layout.upper);
    for number in layout.numbers() {
        let Some(pointer) = LinePointer::read(rest.ours, number) else { return };
        let item = pointer.item();
        if item.is_empty() {
            continue;
        }
        if pointer.is_normal() && item.len() >= HEADER_BYTES {
            explain_row(rest, item.start, block, number);
        }
        rest.permit(Masked::RowPadding, item.end..item.end.next_multiple_of(8));
    }
}

fn explain_row(rest: &mut Rest<'_>, row: usize, block: BlockNumber, number: u16) {
    permit_hints(rest, row);
    let Some((our_bits, their_bits)) = rest.halves(row + INFOMASK) else { return };
    let bytes = |range: &Range<usize>| row + range.start..row + range.end;
    // Redo writes the first command's (`HeapTupleHeaderSetCmin`, `HeapTupleHeaderSetCmax`).
    let has_first_command =
        rest.ours.get(bytes(&COMMAND_ID)).is_some_and(|id| id.iter().all(|byte| *byte == 0));
    if has_first_command && our_bits & COMBOCID == 0 && (our_bits | their_bits) & MOVED == 0 {
        rest.permit(Masked::CommandId, bytes(&COMMAND_ID));
        rest.permit_more_bits(Masked::CommandId, row + INFOMASK, COMBOCID);
    }
    // Redo of an insertion writes the row's own place (`heap_xlog_insert`).
    let own_place = place_bytes(block, number);
    let is_speculative = rest
        .theirs
        .get(bytes(&CTID))
        .is_some_and(|ctid| ctid.get(4..) == Some(&SPECULATIVE.to_le_bytes()[..]));
    if is_speculative && rest.ours.get(bytes(&CTID)) == Some(&own_place[..]) {
        rest.permit(Masked::SpeculativeCtid, bytes(&CTID));
    }
}

/// Hints that a reader has left in the header of the row at `row` (`SetHintBits`,
/// `access/heap/heapam_visibility.c`). It finds that a transaction has committed, or that it has not,
/// and never both: both together are another thing, a frozen row.
pub(super) fn permit_hints(rest: &mut Rest<'_>, row: usize) {
    let Some((_, theirs)) = rest.halves(row + INFOMASK) else { return };
    let mut hints = 0;
    for (committed, invalid) in [(XMIN_COMMITTED, XMIN_INVALID), (XMAX_COMMITTED, XMAX_INVALID)] {
        if theirs & committed == 0 || theirs & invalid == 0 {
            hints |= committed | invalid;
        }
    }
    if theirs & (XMAX_LOCK_ONLY | XMAX_IS_MULTI) != 0 {
        // Of these it is noted only that they are gone (`UpdateXmaxHintBits`,
        // `access/heap/heapam.c`).
        hints &= !XMAX_COMMITTED;
    }
    rest.permit_more_bits(Masked::RowHints, row + INFOMASK, hints);
}

/// An item pointer as it is on a page: a block's number, its upper half first, and a line pointer's.
fn place_bytes(block: BlockNumber, number: u16) -> [u8; 6] {
    let [low0, low1, high0, high1] = block.0.to_le_bytes();
    let [n0, n1] = number.to_le_bytes();
    [high0, high1, low0, low1, n0, n1]
}
