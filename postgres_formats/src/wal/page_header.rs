//! The header of a WAL page.
//!
//! Source: `XLogPageHeaderData` and `XLogLongPageHeaderData` in PostgreSQL `access/xlog_internal.h`.
//!
//! ```text
//! offset  size  field
//!      0     2  xlp_magic        0xD110 for PostgreSQL 15
//!      2     2  xlp_info         flags
//!      4     4  xlp_tli          PostgreSQL's timeline number
//!      8     8  xlp_pageaddr     position of the page
//!     16     4  xlp_rem_len      bytes still missing from a record that began earlier
//!     20     4  padding
//!     24     8  xlp_sysid        from here on only on the first page of a segment
//!     32     4  xlp_seg_size
//!     36     4  xlp_xlog_blcksz
//! ```

use super::error::WalDecodeErrorKind;
use crate::field_reader::{FieldReader, Truncated};
use crate::lsn::{WalSegmentSize, XLOG_BLCKSZ};
use crate::{Lsn, SystemId};

/// `XLOG_PAGE_MAGIC` of PostgreSQL 15.
pub const XLOG_PAGE_MAGIC: u16 = 0xD110;

/// `XLP_FIRST_IS_CONTRECORD`: the page begins with the rest of a record.
pub const XLP_FIRST_IS_CONTRECORD: u16 = 0x0001;
/// `XLP_LONG_HEADER`: the first page of a segment.
pub const XLP_LONG_HEADER: u16 = 0x0002;
/// `XLP_BKP_REMOVABLE`: full page images that begin on this page are optional.
pub const XLP_BKP_REMOVABLE: u16 = 0x0004;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: the rest of a record should stand here, but a crash kept
/// it from being written, and the record is given up.
pub const XLP_FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;

const XLP_ALL_FLAGS: u16 = XLP_FIRST_IS_CONTRECORD
    | XLP_LONG_HEADER
    | XLP_BKP_REMOVABLE
    | XLP_FIRST_IS_OVERWRITE_CONTRECORD;

/// What the header of every page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// `xlp_magic`.
    pub magic: u16,
    /// `xlp_info`.
    pub info: u16,
    /// `xlp_tli`.
    pub tli: u32,
    /// `xlp_pageaddr`.
    pub page_address: Lsn,
    /// `xlp_rem_len`, in bytes.
    pub remaining: u32,
    /// What only the first page of a segment says.
    pub segment: Option<SegmentHeader>,
}

/// What the header of the first page of a segment says besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// `xlp_sysid`.
    pub system_id: SystemId,
    /// `xlp_seg_size`, in bytes.
    pub seg_size: u32,
    /// `xlp_xlog_blcksz`, in bytes.
    pub page_size: u32,
}

impl PageHeader {
    /// Reads a header; the long form if the flag for it is set. Nothing is checked.
    pub fn decode(bytes: &[u8]) -> Result<PageHeader, Truncated> {
        let mut fields = FieldReader::new(bytes);
        let magic = fields.u16()?;
        let info = fields.u16()?;
        let tli = fields.u32()?;
        let page_address = Lsn::new(fields.u64()?);
        let remaining = fields.u32()?;
        fields.skip(4)?;
        let segment = if info & XLP_LONG_HEADER != 0 {
            Some(SegmentHeader {
                system_id: SystemId(fields.u64()?),
                seg_size: fields.u32()?,
                page_size: fields.u32()?,
            })
        } else {
            None
        };
        Ok(PageHeader { magic, info, tli, page_address, remaining, segment })
    }

    /// The header's bytes: 24 of them, or 40 with what the first page of a segment says.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend_from_slice(&self.magic.to_le_bytes());
        bytes.extend_from_slice(&self.info.to_le_bytes());
        bytes.extend_from_slice(&self.tli.to_le_bytes());
        bytes.extend_from_slice(&self.page_address.as_u64().to_le_bytes());
        bytes.extend_from_slice(&self.remaining.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        if let Some(segment) = &self.segment {
            bytes.extend_from_slice(&segment.system_id.0.to_le_bytes());
            bytes.extend_from_slice(&segment.seg_size.to_le_bytes());
            bytes.extend_from_slice(&segment.page_size.to_le_bytes());
        }
        bytes
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.info & flag != 0
    }

    /// Reads the header of the page at `page` and checks all that can be checked without knowing
    /// what stood on the pages before. `bytes` is as long as a header at that place has to be.
    pub fn decode_checked(
        bytes: &[u8],
        page: Lsn,
        seg_size: WalSegmentSize,
        system_id: Option<SystemId>,
    ) -> Result<PageHeader, WalDecodeErrorKind> {
        use WalDecodeErrorKind as Kind;

        if bytes.iter().all(|&b| b == 0) {
            return Err(Kind::EmptyPage);
        }
        let magic = bytes.first_chunk().map_or(0, |&b| u16::from_le_bytes(b));
        if magic != XLOG_PAGE_MAGIC {
            return Err(Kind::BadMagic { found: magic, expected: XLOG_PAGE_MAGIC });
        }
        // Too short means: the flag says long, but the place says short.
        let info = bytes.get(2..4).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        let header = PageHeader::decode(bytes).map_err(|_| Kind::BadPageFlags { info })?;
        let first_of_segment = page.segment_offset(seg_size) == 0;
        if info & !XLP_ALL_FLAGS != 0 || header.segment.is_some() != first_of_segment {
            return Err(Kind::BadPageFlags { info });
        }
        if let Some(segment) = header.segment {
            if let Some(expected) = system_id.filter(|&id| id != segment.system_id) {
                return Err(Kind::WrongSystemId {
                    found: segment.system_id.0,
                    expected: expected.0,
                });
            }
            if u64::from(segment.seg_size) != seg_size.bytes()
                || u64::from(segment.page_size) != XLOG_BLCKSZ
            {
                return Err(Kind::WrongGeometry {
                    seg_size: segment.seg_size,
                    page_size: segment.page_size,
                });
            }
        }
        if header.page_address < page {
            return Err(Kind::StalePage { found: header.page_address });
        }
        if header.page_address > page {
            return Err(Kind::WrongPageAddress { found: header.page_address });
        }
        Ok(header)
    }
}
