//! `WalWriter`: lays records onto WAL pages, as PostgreSQL's `xlog.c` does.
//!
//! It is the reverse of [`super::WalStreamDecoder`], for the few records that storage itself has
//! to write and for tests that need WAL of a given shape.

use super::page_header::{
    PageHeader, SegmentHeader, XLOG_PAGE_MAGIC, XLP_FIRST_IS_CONTRECORD, XLP_LONG_HEADER,
};
use super::record_header::{RECORD_HEADER_SIZE, RecordHeader, record_crc};
use crate::lsn::{WalSegmentSize, XLOG_BLCKSZ};
use crate::{Lsn, SystemId};

/// What the page headers of a piece of WAL say about where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOrigin {
    /// The cluster.
    pub system_id: SystemId,
    /// PostgreSQL's timeline number.
    pub tli: u32,
    /// Size of a segment.
    pub seg_size: WalSegmentSize,
}

impl WalOrigin {
    /// The header of the page at `page`, whose first `remaining` bytes continue a record.
    pub fn page_header(&self, page: Lsn, remaining: u32) -> PageHeader {
        let first_of_segment = page.segment_offset(self.seg_size) == 0;
        let mut info = 0;
        if remaining > 0 {
            info |= XLP_FIRST_IS_CONTRECORD;
        }
        if first_of_segment {
            info |= XLP_LONG_HEADER;
        }
        PageHeader {
            magic: XLOG_PAGE_MAGIC,
            info,
            tli: self.tli,
            page_address: page,
            remaining,
            segment: first_of_segment.then(|| SegmentHeader {
                system_id: self.system_id,
                seg_size: self.seg_size.bytes() as u32,
                page_size: XLOG_BLCKSZ as u32,
            }),
        }
    }
}

/// Writes records one behind the other, with page headers where pages begin.
#[derive(Debug, Clone)]
pub struct WalWriter {
    origin: WalOrigin,
    start: Lsn,
    prev: Lsn,
    bytes: Vec<u8>,
}

impl WalWriter {
    /// A writer whose first record begins at `start` (normalised, or the beginning of a page), the
    /// one before it at `prev`.
    pub fn new(start: Lsn, prev: Lsn, origin: WalOrigin) -> WalWriter {
        WalWriter { origin, start, prev, bytes: Vec::new() }
    }

    /// Where the bytes written so far begin.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// Where they end.
    pub fn position(&self) -> Lsn {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// The bytes written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a record: its length, `xl_prev` and checksum are filled in, `header` gives the rest.
    /// `body` is what follows the fixed header. Returns the record's start and end.
    pub fn append(&mut self, header: RecordHeader, body: &[u8]) -> (Lsn, Lsn) {
        let record = encode_record(RecordHeader { prev: self.prev, ..header }, body);
        self.append_bytes(&record)
    }

    /// Appends the bytes of a complete record as they are. Returns the record's start and end.
    pub fn append_bytes(&mut self, record: &[u8]) -> (Lsn, Lsn) {
        self.begin_page_if_due(0);
        let start = self.position();
        let mut rest = record;
        while !rest.is_empty() {
            self.begin_page_if_due(rest.len() as u32);
            let page_left = (XLOG_BLCKSZ - self.position().page_offset()) as usize;
            let (here, later) = rest.split_at(page_left.min(rest.len()));
            self.bytes.extend_from_slice(here);
            rest = later;
        }
        self.pad_to(self.position().align_up());
        self.prev = start;
        (start, self.position())
    }

    /// Leaves the rest of the segment unused, as behind an `XLOG_SWITCH` record: empty pages.
    pub fn fill_segment(&mut self) {
        while self.position().segment_offset(self.origin.seg_size) != 0 {
            self.begin_page_if_due(0);
            self.pad_to(self.position().page_start().saturating_add(XLOG_BLCKSZ));
        }
    }

    /// Writes a page header if the position is where a page begins.
    fn begin_page_if_due(&mut self, remaining: u32) {
        let position = self.position();
        if position.page_offset() == 0 {
            self.bytes.extend_from_slice(&self.origin.page_header(position, remaining).encode());
        }
    }

    fn pad_to(&mut self, to: Lsn) {
        let len = to.distance_from(self.start).unwrap_or(0) as usize;
        self.bytes.resize(len, 0);
    }
}

/// The bytes of a record: `header` with its length and checksum filled in, then `body`.
pub fn encode_record(header: RecordHeader, body: &[u8]) -> Vec<u8> {
    let tot_len = (RECORD_HEADER_SIZE + body.len()) as u32;
    let mut record = Vec::with_capacity(tot_len as usize);
    record.extend_from_slice(&tot_len.to_le_bytes());
    record.extend_from_slice(&header.xid.to_le_bytes());
    record.extend_from_slice(&header.prev.as_u64().to_le_bytes());
    record.extend_from_slice(&[header.info, header.rmid, 0, 0]);
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(body);
    let crc = record_crc(&record).unwrap_or(0);
    if let Some(field) = record.get_mut(20..24) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    record
}
