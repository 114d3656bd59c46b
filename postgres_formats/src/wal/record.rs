//! `DecodedRecord`: a WAL record taken apart into block references and data.
//!
//! Source: PostgreSQL `access/xlogrecord.h`, `access/transam/xlogreader.c` (`DecodeXLogRecord`).
//!
//! ```text
//! header (24 bytes)
//! block header*      id u8, fork and flags u8, data length u16
//!                    [image: length u16, hole offset u16, flags u8 [, hole length u16]]
//!                    [tablespace u32, database u32, relation u32, unless that of the one before]
//!                    block number u32
//! [253: origin u16] [252: top-level transaction u32]
//! [255: main data length u8 | 254: main data length u32]
//! for each block: image bytes, data bytes
//! main data
//! ```

use bytes::Bytes;
use smallvec::SmallVec;

use super::image::{BlockImage, ImageCompression};
use super::record_header::{RECORD_HEADER_SIZE, RecordHeader};
use crate::field_reader::{FieldReader, Truncated};
use crate::page::BLCKSZ;
use crate::rel::{BlockNumber, ForkNumber, Oid, RelFileLocator, RelTag};

/// Highest id of a block reference (`XLR_MAX_BLOCK_ID`).
const BLOCK_ID_MAX: u8 = 32;
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOPLEVEL_XID: u8 = 252;

const BKPBLOCK_FORK_MASK: u8 = 0x0F;
const BKPBLOCK_HAS_IMAGE: u8 = 0x10;
const BKPBLOCK_HAS_DATA: u8 = 0x20;
const BKPBLOCK_WILL_INIT: u8 = 0x40;
const BKPBLOCK_SAME_REL: u8 = 0x80;

const BKPIMAGE_HAS_HOLE: u8 = 0x01;
const BKPIMAGE_APPLY: u8 = 0x02;
const BKPIMAGE_COMPRESS_PGLZ: u8 = 0x04;
const BKPIMAGE_COMPRESS_LZ4: u8 = 0x08;
const BKPIMAGE_COMPRESS_ZSTD: u8 = 0x10;
const BKPIMAGE_COMPRESSED: u8 =
    BKPIMAGE_COMPRESS_PGLZ | BKPIMAGE_COMPRESS_LZ4 | BKPIMAGE_COMPRESS_ZSTD;

/// A record's bytes contradict themselves although its checksum is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordParseError {
    /// A part reaches past the end of the record.
    #[error("WAL record ends too early: {0}")]
    Truncated(#[from] Truncated),
    /// `xl_tot_len` is not the length of the bytes.
    #[error("WAL record says that it has {said} bytes, but there are {len}")]
    WrongLength {
        /// `xl_tot_len`.
        said: u32,
        /// Bytes given.
        len: usize,
    },
    /// An id that is neither a block's nor another known part's.
    #[error("WAL record has a part with unknown id {0}")]
    UnknownId(u8),
    /// Block references must come in ascending order of their ids.
    #[error("WAL record has block reference {0} out of order")]
    BlockOutOfOrder(u8),
    /// The flags of a block reference, or the lengths they speak of, contradict each other.
    #[error("WAL record's block reference {id} is inconsistent: {what}")]
    InconsistentBlock {
        /// Id of the block reference.
        id: u8,
        /// The contradiction.
        what: &'static str,
    },
    /// The parts together are not as long as the record.
    #[error("WAL record has {found} bytes of data, but its headers speak of {expected}")]
    WrongDataLength {
        /// Bytes behind the headers.
        found: usize,
        /// What the headers add up to.
        expected: usize,
    },
}

/// A record taken apart. All byte ranges share the record's memory.
#[derive(Debug, Clone)]
pub struct DecodedRecord {
    /// The fixed header.
    pub header: RecordHeader,
    /// The pages that the record changes, in ascending order of their ids.
    pub blocks: SmallVec<[BlockRef; 4]>,
    /// Data that belongs to no page.
    pub main_data: Bytes,
    /// Replication origin that the change came from.
    pub origin: Option<u16>,
    /// The top-level transaction, on a subtransaction's first record under `wal_level = logical`.
    pub toplevel_xid: Option<u32>,
}

/// A page that a record changes, and how.
#[derive(Debug, Clone)]
pub struct BlockRef {
    /// Id by which the resource manager knows it, 0 to 32.
    pub id: u8,
    /// Relation and fork.
    pub rel: RelTag,
    /// Page of that fork.
    pub block: BlockNumber,
    /// Redo makes the page anew without looking at what it was (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// A copy of the whole page.
    pub image: Option<BlockImage>,
    /// The resource manager's data for this page.
    pub data: Bytes,
}

impl BlockRef {
    /// Whether the page after this record does not depend on what it was before.
    pub fn replaces_page(&self) -> bool {
        self.will_init || self.image.as_ref().is_some_and(|image| image.apply)
    }
}

impl DecodedRecord {
    /// Takes apart the bytes of a record, as [`super::WalRecord`] has them.
    pub fn parse(bytes: &Bytes) -> Result<DecodedRecord, RecordParseError> {
        let header = RecordHeader::decode(bytes)?;
        if header.tot_len as usize != bytes.len() {
            return Err(RecordParseError::WrongLength { said: header.tot_len, len: bytes.len() });
        }
        let mut fields = FieldReader::new(bytes);
        fields.skip(RECORD_HEADER_SIZE)?;

        let mut blocks: SmallVec<[BlockRef; 4]> = SmallVec::new();
        // Bytes of image and of data of each block.
        let mut lengths: SmallVec<[(u16, u16); 4]> = SmallVec::new();
        let mut origin = None;
        let mut toplevel_xid = None;
        let mut main_len = 0;
        // Bytes of data that the headers read so far speak of: where these are all that is left,
        // the headers end.
        let mut data_len = 0;
        while fields.remaining() > data_len {
            match fields.u8()? {
                ID_DATA_SHORT => {
                    main_len = usize::from(fields.u8()?);
                    data_len += main_len;
                    break;
                }
                ID_DATA_LONG => {
                    main_len = fields.u32()? as usize;
                    data_len = data_len.saturating_add(main_len);
                    break;
                }
                ID_ORIGIN => origin = Some(fields.u16()?),
                ID_TOPLEVEL_XID => toplevel_xid = Some(fields.u32()?),
                id if id <= BLOCK_ID_MAX => {
                    let (image_len, own_len) = read_block(id, &mut fields, &mut blocks)?;
                    data_len += usize::from(image_len) + usize::from(own_len);
                    lengths.push((image_len, own_len));
                }
                id => return Err(RecordParseError::UnknownId(id)),
            }
        }
        if fields.remaining() != data_len {
            return Err(RecordParseError::WrongDataLength {
                found: fields.remaining(),
                expected: data_len,
            });
        }

        let mut at = fields.offset();
        for (block, (image_len, own_len)) in blocks.iter_mut().zip(lengths) {
            if let Some(image) = &mut block.image {
                image.data = take(bytes, &mut at, image_len);
            }
            block.data = take(bytes, &mut at, own_len);
        }
        debug_assert_eq!(bytes.len() - at, main_len);
        Ok(DecodedRecord { header, blocks, main_data: bytes.slice(at..), origin, toplevel_xid })
    }

    /// The block reference with this id.
    pub fn block(&self, id: u8) -> Option<&BlockRef> {
        self.blocks.iter().find(|block| block.id == id)
    }
}

/// The next `len` bytes from `at` on, which were found to be there. An empty piece holds no
/// reference to the record's memory, which would cost an atomic operation for nothing.
fn take(bytes: &Bytes, at: &mut usize, len: u16) -> Bytes {
    if len == 0 {
        return Bytes::new();
    }
    let start = *at;
    *at += usize::from(len);
    bytes.slice(start..*at)
}

/// Reads the header of a block reference behind its id and adds the block, still without its bytes.
/// Returns how many bytes of image and of data belong to it.
fn read_block(
    id: u8,
    fields: &mut FieldReader<'_>,
    blocks: &mut SmallVec<[BlockRef; 4]>,
) -> Result<(u16, u16), RecordParseError> {
    let before = blocks.last();
    if before.is_some_and(|before| before.id >= id) {
        return Err(RecordParseError::BlockOutOfOrder(id));
    }
    let wrong = |what| RecordParseError::InconsistentBlock { id, what };
    let flags = fields.u8()?;
    let fork =
        ForkNumber::from_u8(flags & BKPBLOCK_FORK_MASK).ok_or(wrong("there is no such fork"))?;
    let data_len = fields.u16()?;
    if (flags & BKPBLOCK_HAS_DATA != 0) != (data_len != 0) {
        return Err(wrong("the flag for data does not agree with its length"));
    }
    let (image, image_len) = if flags & BKPBLOCK_HAS_IMAGE != 0 {
        let (image, len) = read_image(id, fields)?;
        (Some(image), len)
    } else {
        (None, 0)
    };
    let locator = if flags & BKPBLOCK_SAME_REL != 0 {
        before.ok_or(wrong("the relation of the block before, but there is none"))?.rel.locator()
    } else {
        RelFileLocator { spc: Oid(fields.u32()?), db: Oid(fields.u32()?), rel: Oid(fields.u32()?) }
    };
    let block = BlockNumber(fields.u32()?);
    if block > BlockNumber::MAX {
        return Err(wrong("block number is not valid"));
    }
    blocks.push(BlockRef {
        id,
        rel: locator.fork(fork),
        block,
        will_init: flags & BKPBLOCK_WILL_INIT != 0,
        image,
        data: Bytes::new(),
    });
    Ok((image_len, data_len))
}

/// Reads the header of a page image. Returns the image, still without its bytes, and how many
/// there are.
fn read_image(id: u8, fields: &mut FieldReader<'_>) -> Result<(BlockImage, u16), RecordParseError> {
    const PAGE_LEN: u16 = BLCKSZ as u16;
    let wrong = |what| Err(RecordParseError::InconsistentBlock { id, what });
    let len = fields.u16()?;
    let hole_offset = fields.u16()?;
    let info = fields.u8()?;
    let has_hole = info & BKPIMAGE_HAS_HOLE != 0;
    let compression = match info & BKPIMAGE_COMPRESSED {
        0 => ImageCompression::None,
        BKPIMAGE_COMPRESS_PGLZ => ImageCompression::Pglz,
        BKPIMAGE_COMPRESS_LZ4 => ImageCompression::Lz4,
        BKPIMAGE_COMPRESS_ZSTD => ImageCompression::Zstd,
        _ => return wrong("an image compressed in two ways"),
    };
    let compressed = compression != ImageCompression::None;
    let hole_length = match (has_hole, compressed) {
        (false, _) => 0,
        (true, true) => fields.u16()?,
        (true, false) => PAGE_LEN.saturating_sub(len),
    };
    if has_hole && (hole_offset == 0 || hole_length == 0 || len == PAGE_LEN) {
        return wrong("an image with a hole that is not one");
    }
    if !has_hole && hole_offset != 0 {
        return wrong("an image without a hole that has one");
    }
    if !has_hole && !compressed && len != PAGE_LEN {
        return wrong("an image that is not a whole page");
    }
    if compressed && len >= PAGE_LEN || len > PAGE_LEN {
        return wrong("an image that is too long");
    }
    if u32::from(hole_offset) + u32::from(hole_length) > u32::from(PAGE_LEN) {
        return wrong("an image whose hole reaches past the page");
    }
    let apply = info & BKPIMAGE_APPLY != 0;
    let data = Bytes::new();
    Ok((BlockImage { apply, hole_offset, hole_length, compression, data }, len))
}

mod without_images;

#[cfg(test)]
mod tests;
