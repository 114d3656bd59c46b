//! Values too long for a block of entries: cut into pieces, each a block of its own, which stand one
//! after the other right before the block with the entry.

use std::io::Write;

use crate::block::{self, BLOCK_HEADER_BYTES, BlockHeader, BlockKind};
use crate::block_writer::BlockWriter;
use crate::error::{BuildError, ReadError};
use crate::limits::{PIECE_BYTES, VALUE_BYTES_MAX};
use crate::{FileId, ReadAt};

/// Where a long value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// Where its first block begins, in bytes from the beginning of the file.
    pub(crate) offset: u64,
    /// Length in bytes of all its blocks, with their headers.
    pub(crate) stored_bytes: u64,
    /// Length of the value in bytes.
    pub(crate) value_bytes: u32,
}

impl Run {
    /// Where the next block begins. No more than `u64::MAX`.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.stored_bytes)
    }

    /// What cannot be of a run, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let value_bytes = self.value_bytes as usize;
        if value_bytes == 0 || value_bytes > VALUE_BYTES_MAX {
            return Some("a long value has a length that none can have");
        }
        let pieces = value_bytes.div_ceil(PIECE_BYTES);
        let least = pieces * (BLOCK_HEADER_BYTES + 1);
        let most = pieces * BLOCK_HEADER_BYTES + value_bytes;
        let possible = (least as u64..=most as u64).contains(&self.stored_bytes);
        (!possible).then_some("the lengths of a long value contradict each other")
    }
}

/// Writes a value.
pub(crate) fn write(writer: &mut BlockWriter<impl Write>, value: &[u8]) -> Result<Run, BuildError> {
    let offset = writer.offset();
    for piece in value.chunks(PIECE_BYTES) {
        writer.write(BlockKind::Value, piece)?;
    }
    let stored_bytes = writer.offset() - offset;
    Ok(Run { offset, stored_bytes, value_bytes: value.len() as u32 })
}

/// Reads a value, whose place was found free of fault. Memory grows as pieces prove to be good.
pub(crate) fn read(
    source: &(impl ReadAt + ?Sized),
    file: &FileId,
    run: &Run,
) -> Result<Vec<u8>, ReadError> {
    let value_bytes = run.value_bytes as usize;
    let mut value = Vec::with_capacity(value_bytes.min(PIECE_BYTES));
    let mut offset = run.offset;
    while value.len() < value_bytes {
        let corrupt = ReadError::corrupt(offset);
        let header = block::read_bytes(source, offset, BLOCK_HEADER_BYTES)?;
        let header = BlockHeader::parse(&header, BlockKind::Value).map_err(&corrupt)?;
        let next = offset + header.block_bytes() as u64;
        if next > run.end() {
            return Err(corrupt("a piece of a value is longer than what is left of the value"));
        }
        let bytes = block::read_bytes(source, offset, header.block_bytes())?;
        let piece = block::decode(&bytes, file, offset, BlockKind::Value).map_err(&corrupt)?;
        if piece.len() != PIECE_BYTES.min(value_bytes - value.len()) {
            return Err(corrupt("a piece of a value has another length"));
        }
        if value.capacity() - value.len() < piece.len() {
            // Twice as much as was found good, but never more than the value needs.
            value.reserve_exact(value.len().max(piece.len()).min(value_bytes - value.len()));
        }
        value.extend_from_slice(&piece);
        offset = next;
    }
    if offset != run.end() {
        return Err(ReadError::corrupt(offset)("a value is followed by more than its pieces"));
    }
    Ok(value)
}
