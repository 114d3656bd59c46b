//! `ZerosAhead`: how much of a segment is written with zeros before its WAL comes.
//!
//! Where commits wait for us, each is a small write and a sync. If the write makes the file longer, the sync
//! has to write what the file system notes of that as well, or its journal, which takes as long as the WAL itself;
//! where zeros stand already that are durable, nothing but the WAL is written. So one write in many makes the
//! file longer by more than it needs, and its sync makes these zeros durable together with the WAL before them.
//! Space that is merely allocated is not enough: that it has been written to has to be noted, too.
//!
//! It is done only while somebody waits, only where little is synced at a time, and never further than has been
//! received since somebody began to wait, so that a branch that receives little takes little of the disk.

use postgres_formats::lsn::{SegmentNumber, XLOG_BLCKSZ};

/// So many bytes of zeros at a time, at most.
const BYTES_MAX: u64 = 256 << 10;
/// Where more than so much WAL is synced at a time, on average, as many zeros are too much for what they save: a sync
/// of 48 KB is a third shorter with them, one of 96 KB a fifth.
const BYTES_PER_SYNC_MAX: u64 = 64 << 10;
/// The average is that of about so many syncs.
const AVERAGE_OVER: u64 = 8;

/// Decides for one store.
#[derive(Default)]
pub(super) struct ZerosAhead {
    on: bool,
    /// The segment that is written to, and the offset in it up to which it has zeros.
    filled: Option<(SegmentNumber, u64)>,
    /// Bytes written since it was switched on, as far as that matters.
    received: u64,
    /// Bytes written since the last sync.
    unsynced: u64,
    /// How many were synced at a time lately, on average.
    per_sync: Option<u64>,
}

impl ZerosAhead {
    /// Whether commits wait from now on.
    pub(super) fn switch(&mut self, on: bool) {
        *self = ZerosAhead { on, ..ZerosAhead::default() };
    }

    /// Files have been changed: there may be no zeros.
    pub(super) fn forget(&mut self) {
        self.filled = None;
    }

    /// Everything written has been synced.
    pub(super) fn synced(&mut self) {
        let now = std::mem::take(&mut self.unsynced);
        let before = self.per_sync.unwrap_or(now);
        self.per_sync = Some((before * (AVERAGE_OVER - 1) + now) / AVERAGE_OVER);
    }

    /// Whether little is synced at a time, and soon.
    pub(super) fn is_little(&self) -> bool {
        let is_little = |bytes| bytes <= BYTES_PER_SYNC_MAX;
        self.on && is_little(self.unsynced) && self.per_sync.is_some_and(is_little)
    }

    /// `len` bytes have been written that end at the offset `end` of a segment of `segment_bytes`. Gives up to which
    /// offset zeros are to be written behind them.
    pub(super) fn written(
        &mut self,
        segment: SegmentNumber,
        end: u64,
        len: u64,
        segment_bytes: u64,
    ) -> Option<u64> {
        if !self.on {
            return None;
        }
        self.received = (self.received + len).min(BYTES_MAX);
        self.unsynced = self.unsynced.saturating_add(len);
        if self.filled.is_some_and(|(filled, upto)| filled == segment && end <= upto) {
            return None;
        }
        self.filled = None;
        let upto = (end + self.received).next_multiple_of(XLOG_BLCKSZ).min(segment_bytes);
        if !self.is_little() || upto <= end {
            return None;
        }
        self.filled = Some((segment, upto));
        Some(upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 16 << 20;

    /// Writes of `len` bytes, each of them synced, from `at` to `to`: how many zeros are written, and how often.
    fn zeros(ahead: &mut ZerosAhead, mut at: u64, to: u64, len: u64) -> (u64, u64) {
        let (mut bytes, mut times) = (0, 0);
        while at < to {
            at += len;
            let received = ahead.received + len;
            if let Some(upto) = ahead.written(SegmentNumber(1), at, len, SEGMENT_BYTES) {
                assert!(upto > at && upto <= SEGMENT_BYTES);
                assert!(upto - at < received + XLOG_BLCKSZ);
                (bytes, times) = (bytes + upto - at, times + 1);
            }
            ahead.synced();
        }
        (bytes, times)
    }

    #[test]
    fn small_writes_have_zeros_and_no_more_than_was_received() {
        let mut ahead = ZerosAhead::default();
        assert_eq!(zeros(&mut ahead, 0, 1 << 20, 500), (0, 0), "nobody waits");
        ahead.switch(true);
        assert_eq!(zeros(&mut ahead, 0, 500, 500), (0, 0), "the first is not known to be small");
        let (bytes, times) = zeros(&mut ahead, 500, 10_000, 500);
        assert!(bytes > 10_000 && times == 2, "{bytes} {times}");
        let (bytes, times) = zeros(&mut ahead, 10_000, 4 << 20, 500);
        assert!((3 << 20..5 << 20).contains(&bytes) && times < 30, "{bytes} {times}");
        ahead.switch(false);
        assert_eq!(zeros(&mut ahead, 4 << 20, 5 << 20, 500), (0, 0));
    }

    #[test]
    fn large_writes_have_none() {
        let mut ahead = ZerosAhead::default();
        ahead.switch(true);
        assert_eq!(zeros(&mut ahead, 0, 2 << 20, 128 << 10), (0, 0));
        // It is noticed when they become small.
        let (bytes, _) = zeros(&mut ahead, 2 << 20, 3 << 20, 1000);
        assert!(bytes > 512 << 10, "{bytes}");
        assert!(zeros(&mut ahead, 3 << 20, 8 << 20, 128 << 10).0 <= BYTES_MAX);
    }

    #[test]
    fn no_zeros_go_over_the_end_of_a_segment() {
        let mut ahead = ZerosAhead::default();
        ahead.switch(true);
        zeros(&mut ahead, 0, SEGMENT_BYTES - 1000, 1000);
        assert_eq!(ahead.written(SegmentNumber(1), SEGMENT_BYTES, 500, SEGMENT_BYTES), None);
        assert!(ahead.written(SegmentNumber(2), 500, 500, SEGMENT_BYTES).is_some());
        assert_eq!(ahead.written(SegmentNumber(2), 1000, 500, SEGMENT_BYTES), None);
        ahead.forget();
        assert!(ahead.written(SegmentNumber(2), 1500, 500, SEGMENT_BYTES).is_some());
    }
}
