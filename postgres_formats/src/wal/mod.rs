//! The write-ahead log: from bytes to records, and what records say.
//!
//! [`WalStreamDecoder`] turns bytes into [`WalRecord`]s, [`DecodedRecord`] takes a record apart
//! into block references and data. Source of the formats: PostgreSQL `access/xlog_internal.h`,
//! `access/xlogrecord.h`, `access/transam/xlogreader.c`.

mod error;
mod image;
mod input;
mod page_header;
mod reassemble;
mod record;
mod record_header;
pub mod records;
pub mod rmgr;
mod stream;
pub mod synth;
mod writer;

pub use error::{WalDecodeError, WalDecodeErrorKind};
pub use image::{BlockImage, ImageCompression, ImageError};
pub use page_header::{
    PageHeader, SegmentHeader, XLOG_PAGE_MAGIC, XLP_BKP_REMOVABLE, XLP_FIRST_IS_CONTRECORD,
    XLP_FIRST_IS_OVERWRITE_CONTRECORD, XLP_LONG_HEADER,
};
pub use reassemble::{Reassembled, raw_len, reassemble, record_within_page};
pub use record::{BlockRef, DecodedRecord, RecordParseError};
pub use record_header::{RECORD_HEADER_SIZE, RECORD_SIZE_MAX, RecordHeader, record_crc};
pub use stream::{WalRecord, WalStreamDecoder};
pub use writer::{WalOrigin, WalWriter, encode_record};
