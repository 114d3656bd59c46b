//! Pages of indexes and of sequences.
//!
//! The masks hide on them what only tables' pages have as hints (`mask_page_hint_bits`): `pd_flags` and
//! `pd_prune_xid`, which GIN uses for the transaction that deleted a page. Both must be equal.

use postgres_formats::PageImage;
use postgres_formats::wal::rmgr;

use super::layout::{Layout, LinePointer, half};
use super::{Masked, Pair, Rest, Sides};

/// Places in the special space, and flags there.
mod btree {
    /// `BTPageOpaqueData` (`access/nbtree.h`)
    pub const FLAGS: usize = 12;
    pub const CYCLE_ID: usize = 14;
    pub const LEAF: u16 = 1 << 0;
    pub const SPLIT_END: u16 = 1 << 5;
    pub const HAS_GARBAGE: u16 = 1 << 6;
}
mod hash {
    /// `HashPageOpaqueData` (`access/hash.h`)
    pub const FLAGS: usize = 12;
    /// `LH_OVERFLOW_PAGE | LH_BUCKET_PAGE`
    pub const HAS_ENTRIES: u16 = 1 << 0 | 1 << 1;
    pub const HAS_DEAD_TUPLES: u16 = 1 << 7;
}
mod gin {
    /// `GinPageOpaqueData` (`access/ginblock.h`)
    pub const FLAGS: usize = 6;
    pub const DELETED: u16 = 1 << 2;
}
mod gist {
    /// `GISTPageOpaqueData` (`access/gist.h`): the sequence number, and the flags.
    pub const NSN: std::ops::Range<usize> = 0..8;
    pub const FLAGS: usize = 12;
    pub const LEAF: u16 = 1 << 0;
    pub const FOLLOW_RIGHT: u16 = 1 << 3;
    pub const HAS_GARBAGE: u16 = 1 << 4;
}
mod brin {
    /// `BrinSpecialSpace` (`access/brin_page.h`)
    pub const FLAGS: usize = 4;
    pub const TYPE: usize = 6;
    pub const REVMAP: u16 = 0xF092;
    pub const EVACUATE: u16 = 1 << 0;
}

pub(super) fn explain(rest: &mut Rest<'_>, layout: &Layout, pair: Pair<'_>) {
    let walredo_pool::MaskKind::ResourceManager(manager) = pair.mask else { return };
    let special = layout.special;
    match manager {
        rmgr::BTREE => explain_btree(rest, layout),
        rmgr::HASH => {
            if flags_of_both(rest, special + hash::FLAGS, hash::HAS_ENTRIES) {
                permit_dead_entries(rest, layout);
            }
            // `_hash_kill_items`
            let flags = special + hash::FLAGS;
            rest.permit_more_bits(Masked::GarbageFlag, flags, hash::HAS_DEAD_TUPLES);
        }
        rmgr::GIN => {
            // `shiftList` leaves the contents of what it deletes from the pending list, and redo makes
            // an empty page (`ginRedoDeleteListPages`). Pages deleted elsewhere have more flags, and
            // keep their contents in redo, too.
            if rest.halves(special + gin::FLAGS) == Some((gin::DELETED, gin::DELETED)) {
                rest.permit(Masked::DeletedIndexPage, 12..16);
                rest.permit(Masked::DeletedIndexPage, 24..special + gin::FLAGS);
            }
        }
        rmgr::GIST => explain_gist(rest, layout, pair),
        rmgr::BRIN => {
            // `brin_start_evacuating_page`
            rest.permit_more_bits(Masked::BrinEvacuation, special + brin::FLAGS, brin::EVACUATE);
            if half(rest.ours, special + brin::TYPE) == Some(brin::REVMAP) {
                return;
            }
        }
        rmgr::SPGIST | rmgr::SEQ | rmgr::GENERIC => {}
        _ => return,
    }
    rest.permit(Masked::UnusedSpace, layout.lower..layout.upper);
}

fn explain_btree(rest: &mut Rest<'_>, layout: &Layout) {
    let flags = layout.special + btree::FLAGS;
    if flags_of_both(rest, flags, btree::LEAF) {
        permit_dead_entries(rest, layout);
    }
    // `_bt_killitems`, `_bt_check_unique`
    rest.permit_more_bits(Masked::GarbageFlag, flags, btree::HAS_GARBAGE);
    // `_bt_split` sets both, `btree_xlog_split` none of them; vacuum clears the number without a
    // record, when an image may have brought it to us.
    rest.permit_more_bits(Masked::CycleId, flags, btree::SPLIT_END);
    let cycle_id = layout.special + btree::CYCLE_ID;
    if let Some((0, _) | (_, 0)) = rest.halves(cycle_id) {
        rest.permit(Masked::CycleId, cycle_id..cycle_id + 2);
    }
}

fn explain_gist(rest: &mut Rest<'_>, layout: &Layout, pair: Pair<'_>) {
    let flags = layout.special + gist::FLAGS;
    if flags_of_both(rest, flags, gist::LEAF) {
        permit_dead_entries(rest, layout);
    }
    // `gistkillitems`
    rest.permit_more_bits(Masked::GarbageFlag, flags, gist::HAS_GARBAGE);
    if pair.sides == Sides::Image {
        gist_follow_right(rest, pair);
    }
}

/// The page on the left of a split, whose parent the record completes: the server marks it when it
/// knows the record's LSN, so an image has the old mark (`gistplacetopage`), and redo does it even to an
/// image that it has restored (`gistRedoClearFollowRight`).
pub(super) fn gist_follow_right(rest: &mut Rest<'_>, pair: Pair<'_>) {
    let Some(Layout { special, .. }) = Layout::of(rest.ours) else { return };
    let Some((ours, theirs)) = rest.halves(special + gist::FLAGS) else { return };
    let nsn = special + gist::NSN.start..special + gist::NSN.end;
    let is_marked = nsn_of(rest.ours, special) == Some(pair.at.as_u64());
    if is_marked && ours & gist::FOLLOW_RIGHT == 0 && theirs & gist::FOLLOW_RIGHT != 0 {
        rest.permit(Masked::GistFollowRight, nsn);
        let flags = special + gist::FLAGS;
        rest.permit_more_bits(Masked::GistFollowRight, flags, gist::FOLLOW_RIGHT);
    }
}

/// The sequence number: an LSN in two halves, the upper one first (`PageXLogRecPtr`).
fn nsn_of(page: &PageImage, special: usize) -> Option<u64> {
    let bytes: &[u8; 8] = page.get(special + gist::NSN.start..)?.first_chunk()?;
    let whole = u64::from_le_bytes(*bytes);
    Some(whole.rotate_left(32))
}

/// Whether both versions have any of `bits`.
fn flags_of_both(rest: &Rest<'_>, at: usize, bits: u16) -> bool {
    rest.halves(at).is_some_and(|(ours, theirs)| ours & bits != 0 && theirs & bits != 0)
}

/// Entries that a scan of the server has found to be dead. One that is dead only on our side would hide
/// a row.
fn permit_dead_entries(rest: &mut Rest<'_>, layout: &Layout) {
    for number in layout.numbers() {
        let ours = LinePointer::read(rest.ours, number);
        let theirs = LinePointer::read(&rest.theirs, number);
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return };
        if ours.is_normal() && theirs.is_dead() && ours.as_dead().is_same(theirs) {
            let place = LinePointer::place(number);
            rest.permit(Masked::DeadIndexEntries, place..place + 4);
        }
    }
}
