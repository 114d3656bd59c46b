//! The "simple LRU" files: commit log, multitransactions and commit timestamps.
//!
//! Source: PostgreSQL `access/slru.h`, `backend/access/transam/{clog,multixact,commit_ts,slru}.c`.

use std::fmt;

use crate::page::BLCKSZ;
use crate::xid::{MultiXactId, TransactionId};

/// Pages in one segment file (`SLRU_PAGES_PER_SEGMENT`).
pub const SLRU_PAGES_PER_SEGMENT: u32 = 32;
/// Transactions on one page of the commit log: two bits each.
pub const CLOG_XACTS_PER_PAGE: u32 = BLCKSZ as u32 * 4;
/// Multitransactions on one page of offsets: four bytes each.
pub const MULTIXACT_OFFSETS_PER_PAGE: u32 = BLCKSZ as u32 / 4;
/// Size in bytes of a group of four members: four bytes of flags, then four transaction ids.
pub const MULTIXACT_MEMBER_GROUP_SIZE: u32 = 20;
/// Members on one page: whole groups only, the bytes behind the last one are unused.
pub const MULTIXACT_MEMBERS_PER_PAGE: u32 = BLCKSZ as u32 / MULTIXACT_MEMBER_GROUP_SIZE * 4;
/// Size in bytes of a commit timestamp: the time in microseconds since 2000-01-01 UTC, and the
/// number of the replication origin that the transaction came from (`CommitTimestampEntry`).
pub const COMMIT_TS_ENTRY_SIZE: u32 = 10;
/// Commit timestamps on one page; the two bytes behind the last one are unused.
pub const COMMIT_TS_XACTS_PER_PAGE: u32 = BLCKSZ as u32 / COMMIT_TS_ENTRY_SIZE;

/// Which of the files that storage keeps. Others (`pg_subtrans`, `pg_notify`, `pg_serial`) are not
/// logged and start empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SlruKind {
    /// `pg_xact`: whether each transaction committed.
    Clog = 0,
    /// `pg_multixact/offsets`: where each multitransaction's members begin.
    MultixactOffsets = 1,
    /// `pg_multixact/members`: the transactions and lock modes.
    MultixactMembers = 2,
    /// `pg_commit_ts`: when each transaction committed, if `track_commit_timestamp` is on.
    CommitTs = 3,
}

impl SlruKind {
    /// Every kind.
    pub const ALL: [SlruKind; 4] = [
        SlruKind::Clog,
        SlruKind::MultixactOffsets,
        SlruKind::MultixactMembers,
        SlruKind::CommitTs,
    ];

    /// The kind with our number `n`.
    pub fn from_u8(n: u8) -> Option<SlruKind> {
        SlruKind::ALL.get(usize::from(n)).copied()
    }

    /// The directory, relative to the data directory.
    pub fn dir(self) -> &'static str {
        match self {
            SlruKind::Clog => "pg_xact",
            SlruKind::MultixactOffsets => "pg_multixact/offsets",
            SlruKind::MultixactMembers => "pg_multixact/members",
            SlruKind::CommitTs => "pg_commit_ts",
        }
    }

    /// Path of the file of segment `segment`, relative to the data directory.
    pub fn segment_path(self, segment: u32) -> String {
        format!("{}/{}", self.dir(), segment_file_name(segment))
    }

    /// How many entries (transactions, multitransactions, members) a page holds.
    pub fn entries_per_page(self) -> u32 {
        match self {
            SlruKind::Clog => CLOG_XACTS_PER_PAGE,
            SlruKind::MultixactOffsets => MULTIXACT_OFFSETS_PER_PAGE,
            SlruKind::MultixactMembers => MULTIXACT_MEMBERS_PER_PAGE,
            SlruKind::CommitTs => COMMIT_TS_XACTS_PER_PAGE,
        }
    }

    /// The page that holds entry number `entry`.
    pub fn page_of(self, entry: u32) -> u32 {
        entry / self.entries_per_page()
    }

    /// The last page before entry numbers wrap around.
    pub fn max_page(self) -> u32 {
        self.page_of(u32::MAX)
    }

    /// Whether `page` is logically older than `cutoff`, as PostgreSQL's truncation understands it
    /// (`CLOGPagePrecedes`, `MultiXactOffsetPagePrecedes`, `MultiXactMemberPagePrecedes`,
    /// `CommitTsPagePrecedes`): every entry of `page` must be older than the first and the last
    /// entry of `cutoff`.
    pub fn page_precedes(self, page: u32, cutoff: u32) -> bool {
        let per_page = self.entries_per_page();
        // One above the first id that is never special, so that no special id is compared.
        let first = match self {
            SlruKind::Clog | SlruKind::CommitTs => TransactionId::FIRST_NORMAL.0 + 1,
            SlruKind::MultixactOffsets => MultiXactId::FIRST.0 + 1,
            SlruKind::MultixactMembers => 0,
        };
        let entry = page.wrapping_mul(per_page).wrapping_add(first);
        let cutoff_first = cutoff.wrapping_mul(per_page).wrapping_add(first);
        let cutoff_last = cutoff_first.wrapping_add(per_page - 1);
        let precedes = |a: u32, b: u32| match self {
            SlruKind::Clog | SlruKind::CommitTs => TransactionId(a).precedes(TransactionId(b)),
            SlruKind::MultixactOffsets | SlruKind::MultixactMembers => {
                MultiXactId(a).precedes(MultiXactId(b))
            }
        };
        precedes(entry, cutoff_first) && precedes(entry, cutoff_last)
    }
}

impl fmt::Display for SlruKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dir())
    }
}

/// Name of the file of segment `segment`: four hexadecimal digits, more if needed (`SlruFileName`).
pub fn segment_file_name(segment: u32) -> String {
    format!("{segment:04X}")
}

/// The segment in the file with this name, or `None` if no segment's file is called so.
pub fn parse_segment_file_name(name: &str) -> Option<u32> {
    // Longer than any segment's number and shorter than what would overflow.
    let segment = if name.len() <= 7 { u32::from_str_radix(name, 16).ok()? } else { return None };
    // Excludes small letters, a sign, and too many or too few zeros in front.
    (segment_file_name(segment) == name).then_some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_is_postgresqls() {
        assert_eq!(SlruKind::Clog.entries_per_page(), 32768);
        assert_eq!(SlruKind::MultixactOffsets.entries_per_page(), 2048);
        assert_eq!(SlruKind::MultixactMembers.entries_per_page(), 1636);
        assert_eq!(SlruKind::MultixactMembers.max_page() / SLRU_PAGES_PER_SEGMENT, 0x14078);
        assert_eq!(segment_file_name(0x14078), "14078");
        assert_eq!(SlruKind::CommitTs.entries_per_page(), 819);
        assert_eq!(SlruKind::CommitTs.max_page(), 5_244_160);
    }

    #[test]
    fn file_names_round_trip() {
        for segment in [0, 1, 0xFFF, 0xFFFF, 0x14078] {
            assert_eq!(parse_segment_file_name(&segment_file_name(segment)), Some(segment));
        }
        for bad in ["", "000", "000g", "000a", "00012", "+001", "123456789"] {
            assert_eq!(parse_segment_file_name(bad), None, "{bad:?}");
        }
        assert_eq!(SlruKind::MultixactMembers.segment_path(10), "pg_multixact/members/000A");
    }

    #[test]
    fn older_pages_precede_across_the_wraparound() {
        for kind in [SlruKind::Clog, SlruKind::CommitTs] {
            let last = kind.max_page();
            assert!(kind.page_precedes(last, 0));
            assert!(!kind.page_precedes(0, last));
            assert!(!kind.page_precedes(7, 7));
            // Exactly half a circle away: neither end may be taken for the past.
            assert!(!kind.page_precedes(0, last.div_ceil(2)));
        }
    }
}
