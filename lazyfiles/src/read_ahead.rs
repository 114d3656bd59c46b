//! How many blocks to fetch when one is missed.

use std::sync::atomic::{AtomicU32, Ordering};

/// The most blocks that one fetch asks for, read-ahead included.
pub const BLOCKS_PER_FETCH_MAX: u32 = 64;

/// The longest read-ahead in blocks.
const WINDOW_MAX: u32 = 32;

/// A miss this many blocks or fewer behind the end of the last fetch still counts as sequential:
/// blocks in between may have been present.
const GAP_MAX: u32 = 16;

/// The misses of one open file: doubles the number of blocks to fetch as long as they are
/// sequential. One round trip costs far more than one page.
#[derive(Debug)]
pub struct ReadAhead {
    /// The block after the last fetch.
    next: AtomicU32,
    window: AtomicU32,
}

impl ReadAhead {
    /// No miss yet.
    pub fn new() -> ReadAhead {
        ReadAhead { next: AtomicU32::new(u32::MAX), window: AtomicU32::new(1) }
    }

    /// How far a fetch should reach that begins with the missed block `first`, and that must not
    /// go beyond the absent blocks of `run`. `needed` says how many blocks were really asked for.
    pub fn fetch_end(&self, first: u32, needed: u32) -> u32 {
        let next = self.next.load(Ordering::Relaxed);
        let sequential = first >= next && first - next <= GAP_MAX;
        let window =
            if sequential { (self.window.load(Ordering::Relaxed) * 4).min(WINDOW_MAX) } else { 1 };
        self.window.store(window, Ordering::Relaxed);
        first.saturating_add(window.max(needed).min(BLOCKS_PER_FETCH_MAX))
    }

    /// Blocks up to `end` have been fetched. How many to ask for ahead of the next miss, if the
    /// file is being read from one end to the other.
    pub fn fetched(&self, end: u32) -> Option<u32> {
        self.next.store(end, Ordering::Relaxed);
        let window = self.window.load(Ordering::Relaxed);
        (window == WINDOW_MAX).then_some(window)
    }
}

impl Default for ReadAhead {
    fn default() -> ReadAhead {
        ReadAhead::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_misses_widen_the_window_and_others_close_it() {
        let ahead = ReadAhead::new();
        let mut at = 100;
        let mut lengths = Vec::new();
        for _ in 0..5 {
            let end = ahead.fetch_end(at, 1);
            lengths.push(end - at);
            assert_eq!(ahead.fetched(end), (end - at == 32).then_some(32));
            at = end;
        }
        assert_eq!(lengths, [1, 4, 16, 32, 32]);
        assert_eq!(ahead.fetch_end(at + GAP_MAX, 1), at + GAP_MAX + 32);
        assert_eq!(ahead.fetch_end(5, 1), 6);
        assert_eq!(ahead.fetch_end(5, 8), 13);
        assert_eq!(ahead.fetch_end(5, 1000), 5 + BLOCKS_PER_FETCH_MAX);
    }
}
