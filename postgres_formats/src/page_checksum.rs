//! The checksum in the header of a page (`pd_checksum`).
//!
//! Source: the algorithm described in PostgreSQL `storage/checksum_impl.h`. The page is taken as
//! rows of 32 little-endian words. Each of the 32 columns is hashed by itself, in the manner of
//! FNV-1a with an extra shift, and begins with a value of its own; two rounds of zeros follow. The
//! columns are joined by exclusive or, together with the block number, so that a page at a wrong
//! place is noticed, and the result is brought into 1..=65535.

use byteorder::{ByteOrder, LittleEndian};

use crate::page::BLCKSZ;
use crate::{BlockNumber, PageImage};

const COLUMNS: usize = 32;
const ROW_BYTES: usize = COLUMNS * 4;
const FNV_PRIME: u32 = 16_777_619;
/// Offset in bytes of `pd_checksum`, which counts as zero: the upper half of the page's third word.
const CHECKSUM_OFFSET: usize = 8;

const START: [u32; COLUMNS] = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
];

/// A page does not carry the checksum of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumError {
    /// The checksum is wrong.
    #[error("page {block} carries checksum {found:04X}, but its bytes give {computed:04X}")]
    Mismatch {
        /// The block number that the page was checked for.
        block: BlockNumber,
        /// `pd_checksum`.
        found: u16,
        /// What it should be.
        computed: u16,
    },
    /// The header says that the page was never initialised, but it is not all zeros.
    #[error("page {block} has an empty header, but is not empty")]
    NotEmpty {
        /// The block number that the page was checked for.
        block: BlockNumber,
    },
}

#[inline]
fn mix(hash: u32, word: u32) -> u32 {
    let mixed = hash ^ word;
    mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
}

/// The checksum that a page must carry as block `block` of its fork. What it carries now does not
/// matter. A part of whoever calls it, so that it is made for the processor that the caller is made for.
#[inline(always)]
pub fn checksum(page: &[u8; BLCKSZ], block: BlockNumber) -> u16 {
    let mut columns = START;
    for (number, row) in page.chunks_exact(ROW_BYTES).enumerate() {
        let mut words = [0u32; COLUMNS];
        LittleEndian::read_u32_into(row, &mut words);
        if number == 0 {
            words[CHECKSUM_OFFSET / 4] &= 0xFFFF_0000;
        }
        for (column, word) in columns.iter_mut().zip(words) {
            *column = mix(*column, word);
        }
    }
    let hash = columns.into_iter().fold(block.0, |hash, column| hash ^ mix(mix(column, 0), 0));
    (hash % 65535 + 1) as u16
}

/// Writes the checksum into the page. Pages never initialised carry none and stay as they are.
pub fn set_checksum(page: &mut [u8; BLCKSZ], block: BlockNumber) {
    if !crate::page::is_new(page) {
        let sum = checksum(page, block);
        page[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Checks a page as PostgreSQL does when it reads one: either it is all zeros, or it carries the
/// right checksum for block `block`.
pub fn verify(page: &PageImage, block: BlockNumber) -> Result<(), ChecksumError> {
    if page.is_new() {
        let empty = page.iter().all(|&byte| byte == 0);
        return if empty { Ok(()) } else { Err(ChecksumError::NotEmpty { block }) };
    }
    let found = u16::from_le_bytes([page[CHECKSUM_OFFSET], page[CHECKSUM_OFFSET + 1]]);
    let computed = checksum(page, block);
    if found == computed { Ok(()) } else { Err(ChecksumError::Mismatch { block, found, computed }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_moved_page_does_not_verify() {
        let mut page = PageImage::zeroed();
        set_checksum(&mut page, BlockNumber(5));
        assert_eq!(page, PageImage::zeroed());
        assert_eq!(verify(&page, BlockNumber(5)), Ok(()));
        page[100] = 1;
        assert_eq!(
            verify(&page, BlockNumber(5)),
            Err(ChecksumError::NotEmpty { block: BlockNumber(5) })
        );
        page[15] = 0x20;
        set_checksum(&mut page, BlockNumber(5));
        assert_eq!(verify(&page, BlockNumber(5)), Ok(()));
        assert!(verify(&page, BlockNumber(6)).is_err());
        for at in [0, 7, 8, 9, 10, 4000, 8191] {
            page[at] ^= 4;
            assert!(verify(&page, BlockNumber(5)).is_err(), "byte {at}");
            page[at] ^= 4;
        }
    }
}
