//! `Lsn`, a byte position in the write-ahead log.
//!
//! Source of the rules: PostgreSQL `access/xlogdefs.h`, `access/xlog_internal.h`.

use std::fmt;
use std::str::FromStr;

/// Size in bytes of a WAL page (PostgreSQL's `XLOG_BLCKSZ`, fixed at its default).
pub const XLOG_BLCKSZ: u64 = 8192;
/// Size in bytes of the header of the first page of every segment (`SizeOfXLogLongPHD`).
pub const XLOG_LONG_PAGE_HEADER_SIZE: u64 = 40;
/// Size in bytes of the header of every other page (`SizeOfXLogShortPHD`).
pub const XLOG_SHORT_PAGE_HEADER_SIZE: u64 = 24;

/// Size in bytes of a WAL segment file: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalSegmentSize(u32);

impl WalSegmentSize {
    /// PostgreSQL's default, 16 MiB.
    pub const DEFAULT: WalSegmentSize = WalSegmentSize(16 * 1024 * 1024);

    /// `None` unless `bytes` is a size that PostgreSQL accepts.
    pub fn new(bytes: u32) -> Option<WalSegmentSize> {
        let ok = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        ok.then_some(WalSegmentSize(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }
}

/// Number of a WAL segment counted from the beginning of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// Where the segment begins.
    pub fn start(self, size: WalSegmentSize) -> Lsn {
        Lsn(self.0 * size.bytes())
    }

    /// PostgreSQL's name of the segment file on PostgreSQL timeline `tli` (`XLogFileName`).
    pub fn file_name(self, tli: u32, size: WalSegmentSize) -> String {
        let per_id = (1u64 << 32) / size.bytes();
        format!("{:08X}{:08X}{:08X}", tli, self.0 / per_id, self.0 % per_id)
    }
}

/// A position in the write-ahead log, in bytes since its beginning.
///
/// Positions are compared and moved, never added to one another. `Lsn::INVALID` (zero) is
/// PostgreSQL's "no position"; prefer `Option<Lsn>` over it in our own interfaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// PostgreSQL's `InvalidXLogRecPtr`.
    pub const INVALID: Lsn = Lsn(0);
    /// Greater than or equal to every position.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position `bytes` bytes after the beginning of the log.
    pub const fn new(bytes: u64) -> Lsn {
        Lsn(bytes)
    }

    /// The position as PostgreSQL's 64-bit number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether this is a position at all, that is, not `INVALID`.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// `bytes` further, or `None` past the end of 64 bits.
    pub fn checked_add(self, bytes: u64) -> Option<Lsn> {
        self.0.checked_add(bytes).map(Lsn)
    }

    /// `bytes` further, stopping at `Lsn::MAX`.
    pub fn saturating_add(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to `self`, or `None` if `earlier` is in fact later.
    pub fn distance_from(self, earlier: Lsn) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The next position that is a multiple of 8 (`MAXALIGN`).
    pub fn align_up(self) -> Lsn {
        Lsn(self.0.saturating_add(7) & !7)
    }

    /// Offset in bytes within its WAL page.
    pub fn page_offset(self) -> u64 {
        self.0 % XLOG_BLCKSZ
    }

    /// Where its WAL page begins.
    pub fn page_start(self) -> Lsn {
        Lsn(self.0 - self.page_offset())
    }

    /// The segment that holds the byte at this position.
    pub fn segment(self, size: WalSegmentSize) -> SegmentNumber {
        SegmentNumber(self.0 / size.bytes())
    }

    /// Offset in bytes within its segment.
    pub fn segment_offset(self, size: WalSegmentSize) -> u64 {
        self.0 % size.bytes()
    }

    /// Size in bytes of the header of the WAL page that holds this position.
    pub fn page_header_size(self, size: WalSegmentSize) -> u64 {
        if self.page_start().segment_offset(size) == 0 {
            XLOG_LONG_PAGE_HEADER_SIZE
        } else {
            XLOG_SHORT_PAGE_HEADER_SIZE
        }
    }

    /// The first position at or after this one where a record can begin: aligned to 8 bytes and
    /// not inside a page header.
    ///
    /// PostgreSQL gives the end of a record that fills its page as the beginning of the next page;
    /// the next record begins behind that page's header.
    pub fn normalized(self, size: WalSegmentSize) -> Lsn {
        let lsn = self.align_up();
        let header = lsn.page_header_size(size);
        if lsn.page_offset() < header { Lsn(lsn.page_start().0 + header) } else { lsn }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN such as `0/16B3748`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an LSN: expected two hexadecimal numbers with a slash, as in 0/16B3748")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let half = |digits: &str| {
                let ok = (1..=8).contains(&digits.len())
                    && digits.bytes().all(|b| b.is_ascii_hexdigit());
                ok.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
            };
            Some(Lsn(half(high)? << 32 | half(low)?))
        };
        parse().ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for n in [0, 1, 0x16B3748, 0x1_0000_0000, u64::MAX] {
            assert_eq!(Lsn(n).to_string().parse::<Lsn>(), Ok(Lsn(n)));
        }
        for bad in ["", "/", "0/", "/0", "0/16B3748x", "+1/2", "0/123456789", "0 /1", "0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn records_begin_behind_page_headers() {
        let size = WalSegmentSize::DEFAULT;
        assert_eq!(Lsn(0x1000000).normalized(size), Lsn(0x1000028));
        assert_eq!(Lsn(0x1002000).normalized(size), Lsn(0x1002018));
        assert_eq!(Lsn(0x1002019).normalized(size), Lsn(0x1002020));
        assert_eq!(Lsn(0x1001FF9).normalized(size), Lsn(0x1002018));
        assert_eq!(Lsn(0x1002018).normalized(size), Lsn(0x1002018));
    }

    #[test]
    fn segment_names_are_postgresqls() {
        let size = WalSegmentSize::DEFAULT;
        assert_eq!(Lsn(0x1_0200_0000).segment(size).file_name(1, size), "000000010000000100000002");
    }
}
