//! A block: some bytes of the file, with what they are, how they are compressed, and a checksum that
//! holds only at their own place in their own file.

use crate::codec::{self, Codec};
use crate::error::ReadError;
use crate::input::Input;
use crate::limits::{NODE_BYTES_MAX, RAW_BYTES_MAX};
use crate::{FileId, ReadAt};

/// Size in bytes of what stands before the stored bytes of a block.
pub(crate) const BLOCK_HEADER_BYTES: usize = 16;
/// The part of it that the checksum, which follows, is made of.
const CHECKED_BYTES: usize = 12;

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlockKind {
    /// Entries.
    Data,
    /// A piece of a long value.
    Value,
    /// The filter of the keys under one leaf of the index.
    Filter,
    /// A node of the index.
    Node,
}

impl BlockKind {
    fn code(self) -> u8 {
        match self {
            BlockKind::Data => 1,
            BlockKind::Value => 2,
            BlockKind::Filter => 3,
            BlockKind::Node => 4,
        }
    }

    fn raw_bytes_max(self) -> usize {
        match self {
            BlockKind::Node => NODE_BYTES_MAX,
            _ => RAW_BYTES_MAX,
        }
    }
}

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockRef {
    /// Where its header begins, in bytes from the beginning of the file.
    pub(crate) offset: u64,
    /// Length in bytes, with its header.
    pub(crate) length: u32,
}

impl BlockRef {
    /// Where the next block begins. No more than `u64::MAX`.
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// CRC-32C of the file's id, the block's offset, and these bytes.
fn checksum(file: &FileId, offset: u64, header: &[u8], stored: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&file.0), &offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(place, header), stored)
}

/// Appends a whole block to `out`.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    file: &FileId,
    offset: u64,
    kind: BlockKind,
    raw_bytes: usize,
    (codec, stored): (Codec, &[u8]),
) {
    debug_assert!(raw_bytes <= kind.raw_bytes_max(), "a block no reader would accept");
    let mut header = Vec::with_capacity(BLOCK_HEADER_BYTES);
    header.extend_from_slice(&[kind.code(), codec.code(), 0, 0]);
    header.extend_from_slice(&(raw_bytes as u32).to_le_bytes());
    header.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    let checksum = checksum(file, offset, &header, stored);
    header.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(stored);
}

/// The header of a block, found plausible.
pub(crate) struct BlockHeader {
    codec: Codec,
    raw_bytes: usize,
    stored_bytes: usize,
    checksum: u32,
}

impl BlockHeader {
    /// Checks all but the checksum, so that no more is allocated than a block of this kind may need.
    pub(crate) fn parse(bytes: &[u8], kind: BlockKind) -> Result<BlockHeader, &'static str> {
        let mut input = Input::new(bytes);
        let fields = (|| {
            let codes = input.array::<4>()?;
            Some((codes, input.u32()? as usize, input.u32()? as usize, input.u32()?))
        })();
        let ([kind_code, codec, zero_a, zero_b], raw_bytes, stored_bytes, checksum) =
            fields.ok_or("a block is shorter than its header")?;
        if kind_code != kind.code() {
            return Err("a block is of another kind");
        }
        if zero_a != 0 || zero_b != 0 {
            return Err("reserved bytes of a block are not zero");
        }
        let codec = Codec::from_code(codec).ok_or("a block is compressed in an unknown way")?;
        if raw_bytes > kind.raw_bytes_max() {
            return Err("a block is longer than any can be");
        }
        let plausible = match codec {
            Codec::None => stored_bytes == raw_bytes,
            _ => stored_bytes < raw_bytes,
        };
        if !plausible {
            return Err("the lengths of a block contradict each other");
        }
        Ok(BlockHeader { codec, raw_bytes, stored_bytes, checksum })
    }

    /// Length in bytes of the block, with its header.
    pub(crate) fn block_bytes(&self) -> usize {
        BLOCK_HEADER_BYTES + self.stored_bytes
    }
}

/// The content of the block that is `bytes`, read from `offset`.
pub(crate) fn decode(
    bytes: &[u8],
    file: &FileId,
    offset: u64,
    kind: BlockKind,
) -> Result<Vec<u8>, &'static str> {
    let header = BlockHeader::parse(bytes, kind)?;
    let checked = bytes.get(..CHECKED_BYTES).unwrap_or(&[]);
    let stored = bytes.get(BLOCK_HEADER_BYTES..).unwrap_or(&[]);
    if stored.len() != header.stored_bytes {
        return Err("a block has another length than what refers to it says");
    }
    if checksum(file, offset, checked, stored) != header.checksum {
        return Err("the checksum of a block does not hold");
    }
    codec::decompress(header.codec, stored, header.raw_bytes)
        .ok_or("a block cannot be decompressed")
}

/// Reads the block at `place`.
pub(crate) fn read(
    source: &(impl ReadAt + ?Sized),
    file: &FileId,
    place: BlockRef,
    kind: BlockKind,
) -> Result<Vec<u8>, ReadError> {
    let corrupt = ReadError::corrupt(place.offset);
    let length = place.length as usize;
    if !(BLOCK_HEADER_BYTES..=BLOCK_HEADER_BYTES + kind.raw_bytes_max()).contains(&length) {
        return Err(corrupt("a block is referred to with a length that none can have"));
    }
    let bytes = read_bytes(source, place.offset, length)?;
    decode(&bytes, file, place.offset, kind).map_err(corrupt)
}

/// `length` bytes, which the caller has found acceptable, from `offset`.
pub(crate) fn read_bytes(
    source: &(impl ReadAt + ?Sized),
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; length];
    match source.read_exact_at(offset, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(ReadError::Corrupt { offset, what: "the file ends too early" })
        }
        Err(source) => Err(ReadError::Io { offset, source }),
    }
}
