//! Bits of visibility maps that are cleared before the WAL says so.
//!
//! Whoever changes a row clears the bits of its page first and writes the record after that
//! (`heap_insert` and its like in `access/heap/heapam.c`), and does not hold the map's page meanwhile.
//! Another backend may set bits of other pages on it in between, and its record gets an image of the
//! map in which the first bit is cleared already. So such a bit is right if the record that clears it
//! comes, and wrong if it does not.

use std::collections::HashMap;

use postgres_formats::wal::DecodedRecord;
use postgres_formats::wal::records::heap::{HeapBlock, visibility_clears};
use postgres_formats::{BlockNumber, ForkNumber, Lsn, PageImage, RelTag};

use crate::verify::report::Difference;

/// Bytes of a map's page before the bits (`MAXALIGN(SizeOfPageHeaderData)`).
const HEADER_BYTES: usize = 24;
/// Pages of the table whose bits share a byte (`HEAPBLOCKS_PER_BYTE`,
/// `access/heap/visibilitymap.c`).
const BLOCKS_PER_BYTE: u32 = 4;
/// Those whose bits share a page.
const BLOCKS_PER_PAGE: u32 = (8192 - HEADER_BYTES as u32) * BLOCKS_PER_BYTE;

type PageName = (RelTag, BlockNumber);

/// A table's page whose bit is cleared in an image that ends at `after`.
struct Expected {
    table_page: PageName,
    after: Lsn,
    difference: Difference,
}

/// What is known of it.
#[derive(Default)]
pub(super) struct ClearedEarly {
    expected: Vec<Expected>,
    /// End of the last record that clears the bits of a table's page.
    cleared: HashMap<PageName, Lsn>,
}

impl ClearedEarly {
    /// Takes note of a record that ends at `end`, and may clear bits.
    pub fn note(&mut self, end: Lsn, record: &DecodedRecord) {
        // One that makes no sense clears nothing; ingest has stopped there.
        let header = &record.header;
        let clears = visibility_clears(header.rmid, header.info, &record.main_data);
        for clear in clears.into_iter().flatten() {
            let block = match clear.block {
                HeapBlock::First => record.block(0),
                HeapBlock::SecondElseFirst => record.block(1).or(record.block(0)),
            };
            if let Some(block) = block {
                self.cleared.insert((block.rel, block.block), end);
            }
        }
    }

    /// Whether the only difference is that bits are cleared in the image, which is to be explained
    /// by later records.
    pub fn expect(
        &mut self,
        page: PageName,
        after: Lsn,
        ours: &PageImage,
        image: &PageImage,
        difference: &Difference,
    ) -> bool {
        let header_equal = ours[10..HEADER_BYTES] == image[10..HEADER_BYTES];
        let mut bytes = ours.iter().zip(image.iter()).skip(HEADER_BYTES);
        if !header_equal || bytes.any(|(ours, image)| image & !ours != 0) {
            return false;
        }
        let table = RelTag { fork: ForkNumber::Main, ..page.0 };
        let first = page.1.0.saturating_mul(BLOCKS_PER_PAGE);
        let pairs = ours.iter().zip(image.iter()).skip(HEADER_BYTES);
        for (at, (our, image)) in (0u32..).zip(pairs) {
            for n in 0..BLOCKS_PER_BYTE {
                let bits = 3 << (2 * n);
                if our & bits != image & bits {
                    let block = BlockNumber(first + at * BLOCKS_PER_BYTE + n);
                    let (table_page, difference) = ((table, block), difference.clone());
                    self.expected.push(Expected { table_page, after, difference });
                }
            }
        }
        true
    }

    /// The images whose cleared bits no later record explains, once each.
    pub fn into_unexplained(self) -> Vec<Difference> {
        let ClearedEarly { expected, cleared } = self;
        let explained = |expected: &Expected| {
            cleared.get(&expected.table_page).is_some_and(|end| *end > expected.after)
        };
        let mut left: Vec<Difference> =
            expected.into_iter().filter(|e| !explained(e)).map(|e| e.difference).collect();
        left.dedup();
        left
    }
}
