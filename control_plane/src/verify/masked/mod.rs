//! Why two versions of a page are equal only under PostgreSQL's masks.
//!
//! A mask (`rm_mask`, `access/rmgrlist.h`) leaves out all that may differ for some reason, whether or
//! not that reason is there. Here each byte that a mask hides must be of a class for which
//! PostgreSQL's code has a reason, and must differ in the way of that reason: a hint is one that the
//! server has set and redo has not, never the other way round, since redo sets none and what an image
//! brings the server has had. What is left over is a difference like any other.
//!
//! `docs/permitted-differences.md` lists the classes.

mod heap;
mod index;
mod layout;

use std::collections::BTreeSet;
use std::ops::Range;

use postgres_formats::wal::rmgr;
use postgres_formats::{BlockNumber, Lsn, PageImage};
use serde::Serialize;
use walredo_pool::MaskKind;

use super::masks::differing_bytes;
use layout::Layout;

/// What a mask hides, by its reason.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Masked {
    /// `pd_lsn`: not every redo function stamps it.
    Lsn,
    /// `pd_checksum`: computed when a page is written to disk.
    Checksum,
    /// `PD_HAS_FREE_LINES` and `PD_PAGE_FULL` of a table's page: hints for the next insert.
    PageHintFlags,
    /// `pd_prune_xid` of a table's page: a hint where pruning is worth while.
    PruneXid,
    /// Bytes between `pd_lower` and `pd_upper`: an image in a record has zeros there.
    UnusedSpace,
    /// Bytes behind a row, up to the next multiple of 8.
    RowPadding,
    /// What a reader has learnt of a row's transactions: `HEAP_XMIN_COMMITTED` and its like.
    RowHints,
    /// `t_cid` and `HEAP_COMBOCID`: not logged.
    CommandId,
    /// `t_ctid` of a speculative insertion: a token until the row is confirmed.
    SpeculativeCtid,
    /// Contents of a page that was deleted from a GIN index's pending list.
    DeletedIndexPage,
    /// Index entries marked as dead by a scan.
    DeadIndexEntries,
    /// The flag of an index page that it has such entries.
    GarbageFlag,
    /// Which vacuum was under way when a B-tree's page was split.
    CycleId,
    /// `F_FOLLOW_RIGHT` and the sequence number of a GiST page, which are set behind the record.
    GistFollowRight,
    /// `BRIN_EVACUATE_PAGE`: set while a page is emptied.
    BrinEvacuation,
}

impl Masked {
    /// A short name, stable.
    pub fn name(self) -> &'static str {
        match self {
            Masked::Lsn => "lsn",
            Masked::Checksum => "checksum",
            Masked::PageHintFlags => "page_hint_flags",
            Masked::PruneXid => "prune_xid",
            Masked::UnusedSpace => "unused_space",
            Masked::RowPadding => "row_padding",
            Masked::RowHints => "row_hints",
            Masked::CommandId => "command_id",
            Masked::SpeculativeCtid => "speculative_ctid",
            Masked::DeletedIndexPage => "deleted_index_page",
            Masked::DeadIndexEntries => "dead_index_entries",
            Masked::GarbageFlag => "garbage_flag",
            Masked::CycleId => "cycle_id",
            Masked::GistFollowRight => "gist_follow_right",
            Masked::BrinEvacuation => "brin_evacuation",
        }
    }
}

/// What the page server's page is held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sides {
    /// A page that other processes made of the same base image and the same records: there is hardly
    /// any reason to differ.
    SameRecords,
    /// The page as the server had it while it wrote the record.
    Image,
    /// An image that has become the page.
    AppliedImage,
    /// The page as a server left it.
    Server,
}

/// Two versions of a page.
#[derive(Clone, Copy)]
pub(super) struct Pair<'p> {
    /// Whose page it is.
    pub mask: MaskKind,
    pub sides: Sides,
    pub block: BlockNumber,
    /// As of which LSN.
    pub at: Lsn,
    pub ours: &'p PageImage,
    pub theirs: &'p PageImage,
}

impl Pair<'_> {
    /// The reasons of all that differs, or what has none.
    pub fn explain(self) -> Result<BTreeSet<Masked>, String> {
        let Pair { mask, sides, ours, theirs, .. } = self;
        let mut rest = Rest { ours, theirs: theirs.clone(), reasons: BTreeSet::new() };
        rest.lsn_and_checksum(self);
        if let MaskKind::ResourceManager(manager) = mask
            && let Some(layout) = Layout::of(ours)
        {
            match (sides, manager) {
                (Sides::AppliedImage, rmgr::GIST) => index::gist_follow_right(&mut rest, self),
                (Sides::AppliedImage | Sides::SameRecords, _) => {}
                (Sides::Image | Sides::Server, rmgr::HEAP | rmgr::HEAP2) => {
                    heap::explain(&mut rest, &layout, self.block);
                }
                (Sides::Image | Sides::Server, _) => index::explain(&mut rest, &layout, self),
            }
        }
        let Rest { theirs, reasons, .. } = rest;
        let Some(bytes) = differing_bytes(ours, &theirs, 0) else { return Ok(reasons) };
        let first = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b).unwrap_or(0);
        let place = layout::place(ours, first);
        Err(format!("{bytes}; {place}; PostgreSQL's mask hides it, but there is no reason for it"))
    }
}

/// What still differs.
struct Rest<'p> {
    ours: &'p PageImage,
    /// The other version, with our bytes where a reason has been found.
    theirs: PageImage,
    reasons: BTreeSet<Masked>,
}

impl Rest<'_> {
    fn lsn_and_checksum(&mut self, pair: Pair<'_>) {
        self.permit(Masked::Checksum, 8..10);
        let may_differ = match pair.sides {
            // A record's end is on both.
            Sides::AppliedImage => false,
            // But these records may name a page that they do not change: a bucket's first page, to be
            // locked (`hash_xlog_move_page_contents`, `hash_xlog_delete`), and the table's page whose
            // bit in the visibility map is set (`heap_xlog_visible`).
            Sides::Image => {
                matches!(pair.mask, MaskKind::ResourceManager(rmgr::HASH | rmgr::HEAP2))
            }
            // The bits of a visibility map are cleared without a stamp (`visibilitymap_clear`).
            Sides::SameRecords => pair.mask == MaskKind::PageHeader,
            Sides::Server => true,
        };
        if may_differ && self.ours.lsn() <= pair.at && self.theirs.lsn() <= pair.at {
            self.permit(Masked::Lsn, 0..8);
        }
    }

    /// The bytes in `range`, whatever they are. There may be none.
    fn permit(&mut self, reason: Masked, range: Range<usize>) {
        let (ours, theirs) = (self.ours.get(range.clone()), self.theirs.get_mut(range));
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours != theirs
        {
            theirs.copy_from_slice(ours);
            self.reasons.insert(reason);
        }
    }

    /// Both versions of two bytes.
    fn halves(&self, at: usize) -> Option<(u16, u16)> {
        Some((layout::half(self.ours, at)?, layout::half(&self.theirs, at)?))
    }

    /// `bits` of two bytes, where the server has them and we have not.
    fn permit_more_bits(&mut self, reason: Masked, at: usize, bits: u16) {
        let Some((ours, theirs)) = self.halves(at) else { return };
        self.permit_bits(reason, at, theirs & !ours & bits);
    }

    /// `bits` of two bytes, whichever side has them.
    fn permit_bits(&mut self, reason: Masked, at: usize, bits: u16) {
        let Some((ours, theirs)) = self.halves(at) else { return };
        if (ours ^ theirs) & bits != 0
            && let Some(bytes) = self.theirs.get_mut(at..at + 2)
        {
            bytes.copy_from_slice(&(theirs & !bits | ours & bits).to_le_bytes());
            self.reasons.insert(reason);
        }
    }
}

#[cfg(test)]
mod tests;
