//! How many blocks to fetch when one is missed, and how many to ask for ahead.
//!
//! What counts is in which order blocks are read, whether they were present or not. A row of blocks read
//! one after the other is a *run*. Within a run each miss fetches twice as much as the one before, up to
//! a bound, and once that is reached the next fetches are under way before they are waited for. A run
//! that follows two long ones is taken to become as long as the shorter and no longer, until it does:
//! the processes of a parallel scan take turns at pieces of a table, and what is behind a piece is
//! another's, though now and then one gets two pieces in a row. Where such pieces are short and follow each other
//! closely, some further on, which nobody has come to yet, are fetched along: a round trip and what is done for it costs as
//! much as dozens of pages, and whoever comes to them finds them.
//!
//! A miss that continues nothing fetches the few blocks around it, if the file is a relation's: the page
//! server keeps so many pages compressed together, and to have them costs it and the way here hardly more
//! than one.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// The most blocks that one fetch asks for, read-ahead included.
pub const BLOCKS_PER_FETCH_MAX: u32 = 64;

/// How many fetches of the longest kind may be under way besides the one that is waited for.
const FETCHES_AHEAD: u32 = 3;

/// The most pages that are under way to a process, or in its memory, before anybody waits for them.
pub const BLOCKS_AHEAD_MAX: u32 = (FETCHES_AHEAD + 1) * BLOCKS_PER_FETCH_MAX;

/// As many pages as there are in a compressed block of a layer (32 KiB): the first miss of a run fetches
/// the blocks of its group of so many.
pub const BLOCKS_PER_GROUP: u32 = 4;

/// From the second miss of a run on so many blocks are fetched at least.
const WINDOW_MIN: u32 = 4;

/// A run of so many blocks is long: others are expected to be like it.
const RUN_LONG: u32 = 16;

/// How many pieces are fetched along at most, and how far they are from one another, in pieces: so far that no process
/// comes to them before they are here.
const PIECES_ALONG: u32 = 3;
const PIECES_APART: u32 = 16;
/// How far a process's pieces are from one another, in pieces, while it takes turns with others.
const TURN_PIECES_MAX: u32 = 32;
/// So many pieces in a row that are one process's are still taken to be its turns.
const PIECES_IN_A_ROW: u32 = 4;

/// The reads of one open file. A round trip costs far more than a page.
#[derive(Debug)]
pub struct ReadAhead {
    /// The first miss of a run fetches a group of so many blocks.
    group: u32,
    /// The first block of the present run.
    start: AtomicU32,
    /// The block after the last that was read.
    next: AtomicU32,
    /// The first block of the run before; `u32::MAX` if there was none.
    start_before: AtomicU32,
    /// Length of the run before, and of the one before that.
    before: [AtomicU32; 2],
    /// How many blocks the last fetch within the present run was to ask for; 0 before the first.
    window: AtomicU32,
}

/// What to fetch, as a block and ends of ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// From here on, at the earliest, at the latest from the missed block.
    pub around: u32,
    /// Up to here now.
    pub fetch: u32,
    /// Up to here before long.
    pub ahead: u32,
    /// So many pieces further on as well, each as long as what is fetched from the missed block on.
    pub along: u32,
}

impl Plan {
    /// The pieces further on.
    pub fn pieces(&self, missed: u32) -> impl Iterator<Item = Range<u32>> + use<> {
        let length = self.fetch.saturating_sub(missed);
        let apart = length.saturating_mul(PIECES_APART);
        (1..=self.along).map(move |number| {
            let first = missed.saturating_add(number.saturating_mul(apart));
            first..first.saturating_add(length)
        })
    }
}

impl ReadAhead {
    /// Nothing read yet. The first miss of a run is to fetch a group of `group` blocks, at least 1.
    pub fn new(group: u32) -> ReadAhead {
        ReadAhead {
            group: group.max(1),
            start: AtomicU32::new(0),
            next: AtomicU32::new(u32::MAX),
            start_before: AtomicU32::new(u32::MAX),
            before: [AtomicU32::new(0), AtomicU32::new(0)],
            window: AtomicU32::new(0),
        }
    }

    /// The blocks from `first` up to `end` are being read.
    #[inline]
    pub fn read(&self, first: u32, end: u32) {
        let next = self.next.load(Ordering::Relaxed);
        // The same block again is no new run.
        if first != next && first.wrapping_add(1) != next {
            let length = next.wrapping_sub(self.start.load(Ordering::Relaxed));
            let [last, earlier] = &self.before;
            earlier.store(last.load(Ordering::Relaxed), Ordering::Relaxed);
            last.store(if next == u32::MAX { 0 } else { length }, Ordering::Relaxed);
            let start = if next == u32::MAX { next } else { self.start.load(Ordering::Relaxed) };
            self.start_before.store(start, Ordering::Relaxed);
            self.start.store(first, Ordering::Relaxed);
            self.window.store(0, Ordering::Relaxed);
        }
        self.next.store(end, Ordering::Relaxed);
    }

    /// Block `missed`, one of those that are being read, is absent, and `needed` blocks from there on are
    /// waited for.
    pub fn miss(&self, missed: u32, needed: u32) -> Plan {
        let start = self.start.load(Ordering::Relaxed);
        let [last, earlier] = self.before.each_ref().map(|length| length.load(Ordering::Relaxed));
        let expected = last.min(earlier);
        // Which piece of that length it is, of those that the run has.
        let number = missed.saturating_sub(start).checked_div(expected).unwrap_or(0);
        let is_like_before = expected >= RUN_LONG && number < PIECES_IN_A_ROW;
        let window = match self.window.load(Ordering::Relaxed) {
            // If it becomes longer than that, it is a long one.
            _ if is_like_before => BLOCKS_PER_FETCH_MAX / 2,
            0 if missed == start => self.group,
            last => (last * 2).clamp(WINDOW_MIN, BLOCKS_PER_FETCH_MAX),
        };
        let needed_end = missed.saturating_add(needed.min(BLOCKS_PER_FETCH_MAX));
        let piece = start.saturating_add(expected.saturating_mul(number));
        let bound = if is_like_before { piece.saturating_add(expected) } else { u32::MAX };
        let now = if is_like_before { BLOCKS_PER_FETCH_MAX } else { window };
        let is_first = missed == start && !is_like_before;
        let around = if is_first { missed - missed % self.group } else { missed };
        let fetch = around.saturating_add(now).min(bound).max(needed_end);
        self.window.store(window, Ordering::Relaxed);
        let ahead = if now < BLOCKS_PER_FETCH_MAX { 0 } else { now * FETCHES_AHEAD };
        let before = self.start_before.load(Ordering::Relaxed);
        let is_in_turns = is_like_before
            && missed == piece
            && expected <= BLOCKS_PER_FETCH_MAX
            && start.checked_sub(before).is_some_and(|way| way <= expected * TURN_PIECES_MAX);
        Plan {
            around,
            fetch,
            ahead: fetch.saturating_add(ahead).min(bound).max(fetch),
            along: if is_in_turns { PIECES_ALONG } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `blocks` one by one, of which nothing is present before; gives what was fetched and how far
    /// ahead pages were asked for.
    fn scan(ahead: &ReadAhead, blocks: std::ops::Range<u32>) -> Vec<(u32, u32)> {
        let mut fetched = blocks.start;
        let mut plans = Vec::new();
        for block in blocks {
            ahead.read(block, block + 1);
            if block >= fetched {
                let plan = ahead.miss(block, 1);
                plans.push((plan.fetch - block, plan.ahead - plan.fetch));
                fetched = plan.fetch;
            }
        }
        plans
    }

    #[test]
    fn a_run_widens_the_window() {
        let ahead = ReadAhead::new(BLOCKS_PER_GROUP);
        let growing = [(4, 0), (8, 0), (16, 0), (32, 0), (64, 192), (64, 192)];
        assert_eq!(scan(&ahead, 100..280), growing);
        let ahead = ReadAhead::new(1);
        assert_eq!(scan(&ahead, 100..120), [(1, 0), (4, 0), (8, 0), (16, 0)]);
        // At another place it begins anew.
        let ahead = ReadAhead::new(BLOCKS_PER_GROUP);
        for (block, around, fetch) in [(7, 4, 8), (300, 300, 304), (22, 20, 24), (23, 23, 31)] {
            ahead.read(block, block + 1);
            assert_eq!(ahead.miss(block, 1), Plan { around, fetch, ahead: fetch, along: 0 });
        }
    }

    #[test]
    fn present_blocks_are_part_of_a_run() {
        let ahead = ReadAhead::new(BLOCKS_PER_GROUP);
        (0..30).for_each(|block| ahead.read(block, block + 1));
        assert_eq!(ahead.miss(29, 1), Plan { around: 29, fetch: 33, ahead: 33, along: 0 });
        ahead.read(29, 30);
        ahead.read(30, 31);
        assert_eq!(ahead.miss(30, 1).fetch, 30 + 2 * WINDOW_MIN);
    }

    #[test]
    fn a_run_is_taken_to_be_like_the_one_before() {
        let ahead = ReadAhead::new(BLOCKS_PER_GROUP);
        // Pieces of 128 blocks, of which every third is ours.
        scan(&ahead, 0..128);
        scan(&ahead, 384..512);
        assert_eq!(scan(&ahead, 768..896), [(64, 64), (64, 0)]);
        assert_eq!(scan(&ahead, 1152..1280), [(64, 64), (64, 0)]);
        // One that is longer is taken to be several in a row, and then a long one.
        let longer = [(64, 64), (64, 0)].repeat(4);
        assert_eq!(scan(&ahead, 2000..2512), longer);
        assert_eq!(scan(&ahead, 3000..3128), [(64, 64), (64, 0)]);
        assert_eq!(scan(&ahead, 4000..4128), [(64, 64), (64, 0)]);
        assert_eq!(scan(&ahead, 5000..5640), [longer, vec![(64, 192); 2]].concat());
        assert_eq!(scan(&ahead, 6000..6128), [(64, 64), (64, 0)]);
        // A short one is not what others are measured by.
        assert_eq!(scan(&ahead, 5..6), [(64, 64)]);
        assert_eq!(scan(&ahead, 90..91), [(2, 0)]);
    }

    #[test]
    fn pieces_that_nobody_has_come_to_are_fetched_along() {
        let ahead = ReadAhead::new(BLOCKS_PER_GROUP);
        let miss = |first: u32| {
            ahead.read(first, first + 1);
            let plan = ahead.miss(first, 1);
            (first + 1..first + 32).for_each(|block| ahead.read(block, block + 1));
            plan
        };
        assert_eq!((miss(0).along, miss(96).along), (0, 0));
        let plan = miss(160);
        assert_eq!((plan.fetch, plan.ahead, plan.along), (192, 192, PIECES_ALONG));
        assert_eq!(plan.pieces(160).collect::<Vec<_>>(), [672..704, 1184..1216, 1696..1728]);
        // Not behind the first of a piece, but with the next one that it gets in a row.
        ahead.read(256, 257);
        ahead.read(257, 258);
        assert_eq!(ahead.miss(257, 1).along, 0);
        (258..289).for_each(|block| ahead.read(block, block + 1));
        let plan = ahead.miss(288, 1);
        assert_eq!((plan.fetch, plan.along), (320, PIECES_ALONG));
        (289..320).for_each(|block| ahead.read(block, block + 1));
        assert_eq!(miss(384).along, PIECES_ALONG);
        // Neither backwards nor far away is it what a scan does that has its turn.
        assert_eq!((miss(32).along, miss(32 + 32 * 33).along), (0, 0));
        assert_eq!(miss(u32::MAX - 64).pieces(u32::MAX - 64).count(), 0);
    }

    #[test]
    fn what_is_needed_is_fetched_within_bounds() {
        let ahead = ReadAhead::new(BLOCKS_PER_GROUP);
        ahead.read(5, 13);
        assert_eq!(ahead.miss(5, 8), Plan { around: 4, fetch: 13, ahead: 13, along: 0 });
        ahead.read(40, 1040);
        assert_eq!(ahead.miss(40, 1000).fetch, 40 + BLOCKS_PER_FETCH_MAX);
        ahead.read(u32::MAX - 1, u32::MAX);
        assert_eq!(ahead.miss(u32::MAX - 1, 1).ahead, u32::MAX);
    }
}
