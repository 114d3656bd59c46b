//! Which bits of the visibility map table records clear.
//!
//! The map's page is not among the record's block references: PostgreSQL's redo clears the bits on
//! the side. Source: PostgreSQL `access/heapam_xlog.h`, `backend/access/heap/heapam.c`.

use smallvec::SmallVec;

use super::RecordContentError;
use super::reader::Reader;
use crate::wal::rmgr;

/// `VISIBILITYMAP_ALL_VISIBLE`: every row on the page is visible to everybody.
pub const VM_ALL_VISIBLE: u8 = 1;
/// `VISIBILITYMAP_ALL_FROZEN`: no row on the page needs freezing.
pub const VM_ALL_FROZEN: u8 = 2;
/// `VISIBILITYMAP_VALID_BITS`
pub const VM_VALID_BITS: u8 = VM_ALL_VISIBLE | VM_ALL_FROZEN;

/// The table page whose bits are cleared, by its place among the record's block references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapBlock {
    /// The page of block reference 0.
    First,
    /// The page of block reference 1 if there is one, else of 0: where an update's old row is.
    SecondElseFirst,
}

/// Bits to be cleared for one table page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisibilityClear {
    /// The table page.
    pub block: HeapBlock,
    /// `VM_ALL_FROZEN` or `VM_VALID_BITS`.
    pub bits: u8,
}

/// What the record clears: nothing for most, two pages for some updates.
///
/// `rmid` and `info` are the record's; other resource managers than `HEAP` and `HEAP2` clear
/// nothing.
pub fn visibility_clears(
    rmid: u8,
    info: u8,
    data: &[u8],
) -> Result<SmallVec<[VisibilityClear; 2]>, RecordContentError> {
    use HeapBlock::{First, SecondElseFirst};
    // Bytes before the flags; then for each flag bit, which page it is about and what it clears.
    let (flags_offset, effects): (usize, &[(u8, HeapBlock, u8)]) =
        match (rmid, info & rmgr::heap::OPMASK) {
            // offset number
            (rmgr::HEAP, rmgr::heap::INSERT) => (2, &[(0x01, First, VM_VALID_BITS)]),
            // xmax, offset number, infobits
            (rmgr::HEAP, rmgr::heap::DELETE) => (7, &[(0x01, First, VM_VALID_BITS)]),
            // old xmax, offset number, infobits
            (rmgr::HEAP, rmgr::heap::UPDATE | rmgr::heap::HOT_UPDATE) => {
                (7, &[(0x01, SecondElseFirst, VM_VALID_BITS), (0x02, First, VM_VALID_BITS)])
            }
            // xid, offset number, infobits; the same in both kinds
            (rmgr::HEAP, rmgr::heap::LOCK) | (rmgr::HEAP2, rmgr::heap2::LOCK_UPDATED) => {
                (7, &[(0x01, First, VM_ALL_FROZEN)])
            }
            // The flags come first, so it does not matter whether the array of offsets is there.
            (rmgr::HEAP2, rmgr::heap2::MULTI_INSERT) => (0, &[(0x01, First, VM_VALID_BITS)]),
            _ => return Ok(SmallVec::new()),
        };
    let mut reader = Reader::new(data);
    reader.bytes("heap record", flags_offset)?;
    let flags = reader.u8("flags")?;
    Ok(effects
        .iter()
        .filter(|(flag, ..)| flags & flag != 0)
        .map(|&(_, block, bits)| VisibilityClear { block, bits })
        .collect())
}
