//! The visibility map: two bits for each page of a table.
//!
//! Source: PostgreSQL `backend/access/heap/visibilitymap.c`.

use postgres_formats::wal::DecodedRecord;
use postgres_formats::wal::records::heap::{HeapBlock, visibility_clears};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, PageImage, RelTag};
use smallvec::SmallVec;

use super::sibling;
use crate::damage;
use crate::ingest::change::{Change, Changes};
use crate::ingest::error::{IngestError, RecordName};
use crate::key::PageKey;

/// Where the bits begin: behind the page header.
const CONTENTS_OFFSET: usize = 24;
/// Bits for one page of the table.
const BITS_PER_HEAP_BLOCK: u32 = 2;
/// Pages of the table in one byte of the map.
const HEAP_BLOCKS_PER_BYTE: u32 = 8 / BITS_PER_HEAP_BLOCK;
/// Pages of the table in one page of the map.
const HEAP_BLOCKS_PER_PAGE: u32 = (BLCKSZ - CONTENTS_OFFSET) as u32 * HEAP_BLOCKS_PER_BYTE;

/// Where the bits of one page of the table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct MapAddress {
    /// Page of the map.
    pub(in crate::ingest) block: BlockNumber,
    /// Byte within that page.
    byte: usize,
    /// Lowest of the bits within that byte.
    shift: u32,
}

impl MapAddress {
    pub(in crate::ingest) fn of(heap_block: BlockNumber) -> MapAddress {
        let in_page = heap_block.0 % HEAP_BLOCKS_PER_PAGE;
        MapAddress {
            block: BlockNumber(heap_block.0 / HEAP_BLOCKS_PER_PAGE),
            byte: CONTENTS_OFFSET + (in_page / HEAP_BLOCKS_PER_BYTE) as usize,
            shift: in_page % HEAP_BLOCKS_PER_BYTE * BITS_PER_HEAP_BLOCK,
        }
    }

    /// Whether these are the first bits of their page.
    fn is_first(&self) -> bool {
        self.byte == CONTENTS_OFFSET && self.shift == 0
    }
}

/// One page of a table whose bits a record clears.
struct Clear {
    map: RelTag,
    address: MapAddress,
    bits: u8,
}

fn clears(record: RecordName, dec: &DecodedRecord) -> Result<SmallVec<[Clear; 2]>, IngestError> {
    visibility_clears(record.rmid, record.info, &dec.main_data)
        .map_err(|source| IngestError::Content { record, source })?
        .into_iter()
        .map(|clear| {
            let block = match clear.block {
                HeapBlock::First => dec.block(0),
                HeapBlock::SecondElseFirst => dec.block(1).or(dec.block(0)),
            };
            let block = block.ok_or(IngestError::MissingBlock { record, id: 0 })?;
            Ok(Clear {
                map: sibling(block.rel, ForkNumber::Vm),
                address: MapAddress::of(block.block),
                bits: clear.bits,
            })
        })
        .collect()
}

/// A new version of each page of the map in which a table record clears bits. The map need not be
/// there: the flag in the record only says that the table's page was marked.
pub(in crate::ingest) fn push_clears(
    record: RecordName,
    dec: &DecodedRecord,
    changes: &mut Changes,
) -> Result<(), IngestError> {
    let mut previous = None;
    for clear in clears(record, dec)? {
        let key = PageKey::Rel { rel: clear.map, block: clear.address.block };
        // There are two at most, and both often lie on the same page of the map.
        if previous.replace(key) != Some(key) {
            changes.list.push(Change::NativePage { key, will_init: false, must_exist: true });
        }
    }
    Ok(())
}

/// Clears all bits that the record clears in this page; false if there are none.
pub(super) fn apply_clears(
    record: RecordName,
    dec: &DecodedRecord,
    rel: RelTag,
    block: BlockNumber,
    page: &mut PageImage,
) -> Result<bool, IngestError> {
    let mut applied = false;
    for clear in clears(record, dec)? {
        if clear.map == rel && clear.address.block == block {
            if !damage::keeps_visibility(record.start) {
                page[clear.address.byte] &= !(clear.bits << clear.address.shift);
            }
            applied = true;
        }
    }
    Ok(applied)
}

/// What is left of the map when the table is cut to `heap_blocks` pages: its size, and the page
/// whose tail stands for pages that are gone, if any.
pub(super) fn truncated(heap_blocks: BlockNumber) -> (BlockNumber, Option<BlockNumber>) {
    let first_gone = MapAddress::of(heap_blocks);
    if first_gone.is_first() {
        (first_gone.block, None)
    } else {
        (BlockNumber(first_gone.block.0 + 1), Some(first_gone.block))
    }
}

/// Clears the bits for pages of the table from `heap_blocks` on, in the page that `truncated` gave.
pub(super) fn clear_tail(heap_blocks: BlockNumber, page: &mut PageImage) {
    let first_gone = MapAddress::of(heap_blocks);
    page[first_gone.byte] &= (1u8 << first_gone.shift) - 1;
    page[first_gone.byte + 1..].fill(0);
}
