//! The last bytes of a file: what is in it and where the index begins. A file without is none.

use std::ops::RangeInclusive;

use crate::block::{self, BLOCK_HEADER_BYTES, BlockRef};
use crate::error::ReadError;
use crate::header::HEADER_BYTES;
use crate::input::Input;
use crate::limits::BOUND_BYTES_MAX;
use crate::{FileId, KeyRange, Lsn, ReadAt};

/// Size in bytes of the footer.
pub(crate) const FOOTER_BYTES: usize = 248;
const MAGIC: [u8; 8] = *b"ZTHLYEND";
/// Stands for the length of the upper bound where there is none.
const UNBOUNDED: u8 = 255;

/// What a file contains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Which keys the layer speaks of, whether they are in it or not.
    pub keys: KeyRange,
    /// Number of entries.
    pub entry_count: u64,
    /// Number of different keys.
    pub key_count: u64,
    /// Number of blocks of entries.
    pub block_count: u64,
    /// The lowest and the highest position of an entry. `None` if there is no entry.
    pub entry_lsns: Option<RangeInclusive<Lsn>>,
    /// Bytes of keys, values and their lengths and positions before compression.
    pub raw_bytes: u64,
    /// What these take in the file.
    pub stored_bytes: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
}

/// The footer: a summary, and where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub(crate) file: FileId,
    pub(crate) root: BlockRef,
    /// The filter of all keys, if the root is a leaf.
    pub(crate) root_filter: Option<BlockRef>,
    pub(crate) summary: Summary,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let summary = &self.summary;
        let filter = self.root_filter.unwrap_or(BlockRef { offset: 0, length: 0 });
        let lsns = summary.entry_lsns.clone().unwrap_or(Lsn::INVALID..=Lsn::INVALID);
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.file.0);
        for number in [summary.file_bytes, self.root.offset, filter.offset] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.root.length.to_le_bytes());
        out.extend_from_slice(&filter.length.to_le_bytes());
        for number in [
            summary.entry_count,
            summary.key_count,
            summary.block_count,
            summary.raw_bytes,
            summary.stored_bytes,
            lsns.start().as_u64(),
            lsns.end().as_u64(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let end_length = summary.keys.end.as_ref().map_or(UNBOUNDED, |end| end.len() as u8);
        out.extend_from_slice(&[summary.keys.start.len() as u8, end_length]);
        for bound in [&summary.keys.start[..], summary.keys.end.as_deref().unwrap_or(&[])] {
            out.extend_from_slice(bound);
            out.resize(out.len() + BOUND_BYTES_MAX - bound.len(), 0);
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        debug_assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    /// Reads the footer of a file of `file_bytes` bytes.
    pub(crate) fn read(
        source: &(impl ReadAt + ?Sized),
        file: FileId,
        file_bytes: u64,
    ) -> Result<Footer, ReadError> {
        let corrupt = ReadError::corrupt(file_bytes.saturating_sub(FOOTER_BYTES as u64));
        let offset = file_bytes
            .checked_sub(FOOTER_BYTES as u64)
            .filter(|&offset| offset >= (HEADER_BYTES + BLOCK_HEADER_BYTES) as u64)
            .ok_or_else(|| corrupt("the file is too short"))?;
        let bytes = block::read_bytes(source, offset, FOOTER_BYTES)?;
        let footer = parse(&bytes).map_err(&corrupt)?;
        match footer.fault(file, file_bytes, offset) {
            Some(fault) => Err(corrupt(fault)),
            None => Ok(footer),
        }
    }

    fn fault(&self, file: FileId, file_bytes: u64, offset: u64) -> Option<&'static str> {
        if self.file != file {
            return Some("the footer belongs to another file");
        }
        if self.summary.file_bytes != file_bytes {
            return Some("the file has another length than its footer says");
        }
        // It is the last block.
        if self.root.offset < HEADER_BYTES as u64 || self.root.end() != offset {
            return Some("the root of the index does not end where the footer begins");
        }
        let summary = &self.summary;
        if summary.key_count > summary.entry_count || summary.block_count > summary.entry_count {
            return Some("there are more keys or blocks than entries");
        }
        None
    }
}

fn parse(bytes: &[u8]) -> Result<Footer, &'static str> {
    let (checked, checksum) = bytes.split_last_chunk::<4>().ok_or("the footer is too short")?;
    if crc32c::crc32c(checked) != u32::from_le_bytes(*checksum) {
        return Err("the checksum of the footer does not hold");
    }
    if !checked.starts_with(&MAGIC) {
        return Err("there is no footer");
    }
    fields(checked).ok_or("the footer makes no sense")
}

fn fields(bytes: &[u8]) -> Option<Footer> {
    let mut input = Input::new(bytes);
    input.bytes(MAGIC.len())?;
    let file = FileId(input.array()?);
    let (file_bytes, root, filter) = (input.u64()?, input.u64()?, input.u64()?);
    let root = BlockRef { offset: root, length: input.u32()? };
    let filter = BlockRef { offset: filter, length: input.u32()? };
    let root_filter = match filter {
        BlockRef { offset: 0, length: 0 } => None,
        // As everywhere: what is referred to stands in front.
        there if there.offset >= HEADER_BYTES as u64 && there.end() <= root.offset => Some(there),
        _ => return None,
    };
    let (entry_count, key_count, block_count) = (input.u64()?, input.u64()?, input.u64()?);
    let (raw_bytes, stored_bytes) = (input.u64()?, input.u64()?);
    let (lowest, highest) = (Lsn::new(input.u64()?), Lsn::new(input.u64()?));
    let (start_length, end_length) = (input.u8()?, input.u8()?);
    let start = bound(input.array()?, start_length)?;
    let end = match end_length {
        UNBOUNDED => bound(input.array()?, 0).map(|_| None)?,
        length => Some(bound(input.array()?, length)?),
    };
    let entry_lsns = (entry_count > 0).then_some(lowest..=highest);
    let keys = KeyRange { start, end };
    let summary = Summary {
        keys,
        entry_count,
        key_count,
        block_count,
        entry_lsns,
        raw_bytes,
        stored_bytes,
        file_bytes,
    };
    Some(Footer { file, root, root_filter, summary })
}

/// A bound of this length, followed by zeros.
fn bound(bytes: [u8; BOUND_BYTES_MAX], length: u8) -> Option<Vec<u8>> {
    let (bound, zeros) = bytes.split_at_checked(usize::from(length))?;
    zeros.iter().all(|&byte| byte == 0).then(|| bound.to_vec())
}
