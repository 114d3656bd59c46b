//! `WalStreamDecoder`: from the bytes of the WAL to whole, checked records.
//!
//! It undoes what PostgreSQL's `xlog.c` does when it lays records onto pages: page headers are
//! checked and taken out, records that go over pages and segments are joined, padding and the
//! unused rest of a switched segment are passed over. What the record means is not looked at;
//! that is `record.rs`. There is no IO: whoever receives or reads WAL feeds it in.
//!
//! A record that lies within one page and within one chunk of input is not copied: it shares the
//! chunk's memory. Whoever keeps records for long should copy them, or they keep whole chunks.

use bytes::{Bytes, BytesMut};

use super::error::{WalDecodeError, WalDecodeErrorKind as Kind};
use super::input::Input;
use super::page_header::{PageHeader, XLP_FIRST_IS_CONTRECORD, XLP_FIRST_IS_OVERWRITE_CONTRECORD};
use super::record_header::{RECORD_HEADER_SIZE, RecordHeader, check_length, record_crc};
use super::rmgr;
use crate::lsn::{WalSegmentSize, XLOG_BLCKSZ};
use crate::{Lsn, SystemId};

/// One record, its checksum verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRecord {
    /// Where its header begins.
    pub start: Lsn,
    /// PostgreSQL's `EndRecPtr`, which redo stamps on the pages: the end rounded up to 8 bytes; the
    /// beginning of the next page if it fills its page; of the next segment after a switch.
    ///
    /// The next record begins at `end.normalized(..)`.
    pub end: Lsn,
    /// The record: `xl_tot_len` bytes in one piece, without the page headers in between.
    pub bytes: Bytes,
}

/// Decodes WAL that is fed in pieces of any size. After an error it only repeats that error.
#[derive(Debug)]
pub struct WalStreamDecoder {
    seg_size: WalSegmentSize,
    system_id: Option<SystemId>,
    /// The only `xlp_tli` that pages may have.
    only_tli: Option<u32>,
    input: Input,
    /// Position of the first byte of `input`.
    position: Lsn,
    state: State,
    /// `xlp_tli` of the last page header, 0 before the first.
    tli: u32,
    /// Start of the last complete record.
    prev: Option<Lsn>,
    /// Where the first record that is not complete yet begins.
    next_start: Lsn,
    /// Start of a record that a page header gave up; the next record must say so too.
    abandoned: Option<Lsn>,
    failed: Option<WalDecodeError>,
}

#[derive(Debug)]
enum State {
    /// `position` is where a record begins, or at the beginning of the page on which it does.
    Boundary,
    /// A record that goes over a page boundary is being joined.
    Joining { start: Lsn, tot_len: u32, header_checked: bool, bytes: BytesMut },
    /// Everything before `to` is padding.
    Skipping { to: Lsn },
}

/// Bytes reserved at most for a record before they have come: a wrong length must not cost memory.
const RESERVE_MAX: usize = 1 << 20;

impl WalStreamDecoder {
    /// A decoder for WAL that begins with the record at `start`, which may also be given as the
    /// beginning of the page whose first record it is. With a `system_id`, segments of another
    /// cluster are refused.
    pub fn new(
        start: Lsn,
        seg_size: WalSegmentSize,
        system_id: Option<SystemId>,
    ) -> WalStreamDecoder {
        let next_start = start.normalized(seg_size);
        // From the beginning of a page we can read its header, otherwise it is already behind us.
        let position = if start.page_offset() == 0 { start } else { next_start };
        WalStreamDecoder {
            seg_size,
            system_id,
            only_tli: None,
            input: Input::default(),
            position,
            state: State::Boundary,
            tli: 0,
            prev: None,
            next_start,
            abandoned: None,
            failed: None,
        }
    }

    /// Makes the first record's `xl_prev` be checked too: it must be `prev`.
    pub fn with_prev(mut self, prev: Lsn) -> WalStreamDecoder {
        self.prev = Some(prev);
        self
    }

    /// Makes pages of any other PostgreSQL timeline than `tli` be refused.
    pub fn with_tli(mut self, tli: u32) -> WalStreamDecoder {
        self.only_tli = Some(tli);
        self
    }

    /// Where the next bytes to feed must begin.
    pub fn expected_lsn(&self) -> Lsn {
        self.position.saturating_add(self.input.len() as u64)
    }

    /// Where the first record that has not been returned yet begins (normalised): decoding can be
    /// taken up again from here.
    pub fn next_record_start(&self) -> Lsn {
        self.next_start
    }

    /// Start of the last record returned, which is `xl_prev` of the next.
    pub fn last_record_start(&self) -> Option<Lsn> {
        self.prev
    }

    /// Adds a copy of `bytes`, which stand at `lsn` in the WAL and must continue those fed before.
    pub fn feed(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<(), WalDecodeError> {
        self.feed_bytes(lsn, Bytes::copy_from_slice(bytes))
    }

    /// Like [`WalStreamDecoder::feed`], but shares the memory of `bytes`.
    pub fn feed_bytes(&mut self, lsn: Lsn, bytes: Bytes) -> Result<(), WalDecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let expected = self.expected_lsn();
        if lsn != expected || lsn.checked_add(bytes.len() as u64).is_none() {
            return Err(WalDecodeError { lsn, kind: Kind::Gap { expected } });
        }
        self.input.push(bytes);
        Ok(())
    }

    /// The next record, or `None` if its bytes have not all been fed yet.
    pub fn next_record(&mut self) -> Result<Option<WalRecord>, WalDecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn advance(&mut self) -> Result<Option<WalRecord>, WalDecodeError> {
        loop {
            match &mut self.state {
                State::Boundary => {
                    if self.position.page_offset() == 0 {
                        let page = self.position;
                        let Some(header) = self.take_page_header()? else { return Ok(None) };
                        if header.has(XLP_FIRST_IS_CONTRECORD) {
                            return Err(at(page, Kind::UnexpectedContinuation));
                        }
                    }
                    // Records begin at multiples of 8, so these four bytes never cross a page.
                    let Some(tot_len) = self.input.peek_u32() else { return Ok(None) };
                    let start = self.position;
                    check_length(tot_len).map_err(|kind| at(start, kind))?;
                    let page_left = XLOG_BLCKSZ - start.page_offset();
                    if u64::from(tot_len) <= page_left {
                        let Some(bytes) = self.input.take(tot_len as usize) else {
                            return Ok(None);
                        };
                        self.position = self.position.saturating_add(u64::from(tot_len));
                        return self.complete(start, bytes, false).map(Some);
                    }
                    let bytes = BytesMut::with_capacity((tot_len as usize).min(RESERVE_MAX));
                    self.state = State::Joining { start, tot_len, header_checked: false, bytes };
                }
                State::Skipping { to } => {
                    let to = *to;
                    let left = to.distance_from(self.position).unwrap_or(0);
                    let skipped = self.input.skip(left);
                    self.position = self.position.saturating_add(skipped);
                    if skipped < left {
                        return Ok(None);
                    }
                    self.state = State::Boundary;
                }
                State::Joining { .. } => match self.join()? {
                    Joined::NeedMore => return Ok(None),
                    Joined::GivenUp => {}
                    Joined::Complete(start, bytes) => {
                        return self.complete(start, bytes, true).map(Some);
                    }
                },
            }
        }
    }

    /// Takes as much of the record being joined as there is.
    fn join(&mut self) -> Result<Joined, WalDecodeError> {
        loop {
            let State::Joining { start, tot_len, header_checked, bytes } = &mut self.state else {
                return Ok(Joined::GivenUp);
            };
            let (start, tot_len) = (*start, *tot_len);
            let missing = tot_len - bytes.len() as u32;
            if missing == 0 {
                return Ok(Joined::Complete(start, std::mem::take(bytes).freeze()));
            }
            if self.position.page_offset() != 0 {
                let page_left = XLOG_BLCKSZ - self.position.page_offset();
                let wanted = u64::from(missing).min(page_left);
                let taken = self.input.append_to(bytes, wanted);
                self.position = self.position.saturating_add(taken);
                // A wrong header is an error as soon as it is there, not with the next bytes.
                if !*header_checked && bytes.len() >= RECORD_HEADER_SIZE {
                    check_header(bytes, start, self.prev)?;
                    *header_checked = true;
                }
                if taken < wanted {
                    return Ok(Joined::NeedMore);
                }
                continue;
            }
            let page = self.position;
            let Some(header) = self.take_page_header()? else { return Ok(Joined::NeedMore) };
            if header.has(XLP_FIRST_IS_OVERWRITE_CONTRECORD) {
                self.abandoned = Some(start);
                self.next_start = self.position;
                self.state = State::Boundary;
                return Ok(Joined::GivenUp);
            }
            let found = if header.has(XLP_FIRST_IS_CONTRECORD) { header.remaining } else { 0 };
            if found != missing {
                return Err(at(page, Kind::WrongRemainder { found, expected: missing }));
            }
        }
    }

    /// Takes the header of the page at `position`, `None` if it has not all come yet.
    fn take_page_header(&mut self) -> Result<Option<PageHeader>, WalDecodeError> {
        let page = self.position;
        let size = page.page_header_size(self.seg_size);
        let Some(bytes) = self.input.take(size as usize) else { return Ok(None) };
        let header = PageHeader::decode_checked(&bytes, page, self.seg_size, self.system_id)
            .map_err(|kind| at(page, kind))?;
        if let Some(expected) = self.only_tli.filter(|only| *only != header.tli) {
            return Err(at(page, Kind::WrongTimeline { found: header.tli, expected }));
        }
        if header.tli < self.tli {
            let kind = Kind::TimelineWentBack { found: header.tli, before: self.tli };
            return Err(at(page, kind));
        }
        self.tli = header.tli;
        self.position = self.position.saturating_add(size);
        Ok(Some(header))
    }

    /// Checks a record whose bytes are all there; `position` is just behind its last byte.
    fn complete(
        &mut self,
        start: Lsn,
        bytes: Bytes,
        header_checked: bool,
    ) -> Result<WalRecord, WalDecodeError> {
        let header = if header_checked {
            RecordHeader::decode(&bytes).map_err(|_| at(start, Kind::BadLength(0)))?
        } else {
            check_header(&bytes, start, self.prev)?
        };
        let computed = record_crc(&bytes).unwrap_or(0);
        if computed != header.crc {
            return Err(at(start, Kind::BadCrc { found: header.crc, computed }));
        }
        if let Some(abandoned) = self.abandoned.take()
            && overwritten_lsn(&header, &bytes) != Some(abandoned)
        {
            return Err(at(start, Kind::BadOverwriteNote { abandoned }));
        }
        let mut end = self.position.align_up();
        if header.is_switch() && end.segment_offset(self.seg_size) != 0 {
            let left = self.seg_size.bytes() - end.segment_offset(self.seg_size);
            end = end.saturating_add(left);
        }
        self.state = State::Skipping { to: end };
        self.prev = Some(start);
        self.next_start = end.normalized(self.seg_size);
        Ok(WalRecord { start, end, bytes })
    }
}

/// What came of an attempt to join a record.
enum Joined {
    NeedMore,
    /// The record will never be complete; what follows is another one.
    GivenUp,
    Complete(Lsn, Bytes),
}

fn at(lsn: Lsn, kind: Kind) -> WalDecodeError {
    WalDecodeError { lsn, kind }
}

fn check_header(
    bytes: &[u8],
    start: Lsn,
    prev: Option<Lsn>,
) -> Result<RecordHeader, WalDecodeError> {
    let header =
        RecordHeader::decode(bytes).map_err(|_| at(start, Kind::BadLength(bytes.len() as u32)))?;
    header.check(start, prev).map_err(|kind| at(start, kind))?;
    Ok(header)
}

/// The record that an `XLOG_OVERWRITE_CONTRECORD` record gives up, `None` for any other record.
///
/// Source: `xl_overwrite_contrecord` in PostgreSQL `access/xlog_internal.h`; 16 bytes of main data
/// behind a short data header.
fn overwritten_lsn(header: &RecordHeader, bytes: &[u8]) -> Option<Lsn> {
    const XLR_BLOCK_ID_DATA_SHORT: u8 = 255;
    if header.rmid != rmgr::XLOG || header.rmgr_info() != rmgr::xlog::OVERWRITE_CONTRECORD {
        return None;
    }
    let data = bytes.get(RECORD_HEADER_SIZE..)?.strip_prefix(&[XLR_BLOCK_ID_DATA_SHORT, 16])?;
    data.first_chunk().map(|&lsn| Lsn::new(u64::from_le_bytes(lsn)))
}

#[cfg(test)]
mod tests;
