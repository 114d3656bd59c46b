//! The fixed header of a WAL record, and its checksum.
//!
//! Source: `XLogRecord` in PostgreSQL `access/xlogrecord.h`.
//!
//! ```text
//! offset  size  field
//!      0     4  xl_tot_len   bytes of the record, this header included, page headers not
//!      4     4  xl_xid       transaction, or 0
//!      8     8  xl_prev      start of the record before
//!     16     1  xl_info      high four bits: the resource manager's; low four: flags
//!     17     1  xl_rmid      resource manager
//!     18     2  padding
//!     20     4  xl_crc       CRC-32C of bytes 24.. and then of bytes 0..20
//! ```

use super::error::WalDecodeErrorKind;
use super::rmgr;
use crate::Lsn;
use crate::field_reader::{FieldReader, Truncated};

/// Size in bytes of the fixed header (`SizeOfXLogRecord`).
pub const RECORD_HEADER_SIZE: usize = 24;

/// The longest record there can be, in bytes: PostgreSQL cannot allocate more than this at once
/// (`MaxAllocSize`).
pub const RECORD_SIZE_MAX: u32 = 0x3FFF_FFFF;

/// Offset in bytes of `xl_crc`.
const CRC_OFFSET: usize = 20;

/// Lowest number of a resource manager that an extension may register (`RM_MIN_CUSTOM_ID`).
const RMID_CUSTOM_MIN: u8 = 128;

/// The fixed header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the record, this header included.
    pub tot_len: u32,
    /// The transaction that wrote the record, or 0.
    pub xid: u32,
    /// Start of the record before this one.
    pub prev: Lsn,
    /// Kind of record (high four bits, given meaning by the resource manager) and flags.
    pub info: u8,
    /// Resource manager.
    pub rmid: u8,
    /// CRC-32C of the record.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads the header at the beginning of `bytes`. Nothing is checked.
    pub fn decode(bytes: &[u8]) -> Result<RecordHeader, Truncated> {
        let mut fields = FieldReader::new(bytes);
        let tot_len = fields.u32()?;
        let xid = fields.u32()?;
        let prev = Lsn::new(fields.u64()?);
        let info = fields.u8()?;
        let rmid = fields.u8()?;
        fields.skip(2)?;
        Ok(RecordHeader { tot_len, xid, prev, info, rmid, crc: fields.u32()? })
    }

    /// `info` without the flags that every resource manager shares.
    pub fn rmgr_info(&self) -> u8 {
        self.info & rmgr::RMGR_INFO_MASK
    }

    /// Whether the rest of the segment behind this record is unused (`XLOG_SWITCH`).
    pub fn is_switch(&self) -> bool {
        self.rmid == rmgr::XLOG && self.rmgr_info() == rmgr::xlog::SWITCH
    }

    /// Checks all that can be checked before the rest of the record is there. `start` is where the
    /// record begins, `prev` where the one before it did, if that is known.
    pub(super) fn check(&self, start: Lsn, prev: Option<Lsn>) -> Result<(), WalDecodeErrorKind> {
        check_length(self.tot_len)?;
        if self.rmid > rmgr::LOGICALMSG && self.rmid < RMID_CUSTOM_MIN {
            return Err(WalDecodeErrorKind::BadResourceManager(self.rmid));
        }
        let prev_is_right = match prev {
            Some(prev) => self.prev == prev,
            None => self.prev < start,
        };
        if !prev_is_right {
            return Err(WalDecodeErrorKind::WrongPrev { found: self.prev, expected: prev });
        }
        Ok(())
    }
}

/// Checks `xl_tot_len`, the one field that always stands on the record's first page.
pub(super) fn check_length(tot_len: u32) -> Result<(), WalDecodeErrorKind> {
    if tot_len == 0 {
        Err(WalDecodeErrorKind::ZeroLength)
    } else if tot_len < RECORD_HEADER_SIZE as u32 || tot_len > RECORD_SIZE_MAX {
        Err(WalDecodeErrorKind::BadLength(tot_len))
    } else {
        Ok(())
    }
}

/// CRC-32C that the record with these bytes must carry. `None` if they are shorter than a header.
pub fn record_crc(record: &[u8]) -> Option<u32> {
    let (header, body) = record.split_at_checked(RECORD_HEADER_SIZE)?;
    Some(crc32c::crc32c_append(crc32c::crc32c(body), header.get(..CRC_OFFSET)?))
}
