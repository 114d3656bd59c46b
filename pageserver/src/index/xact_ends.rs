//! `XactEnds`: when the transactions of a timeline ended, for finding a place in the WAL by a time.

use postgres_formats::Lsn;

/// Ends of transactions, commits and aborts alike, in the order of the WAL.
///
/// A transaction takes the time before it gets its place in the WAL, and clocks are set back: the
/// times are not in order. So each entry has the latest time of all up to it, which is.
#[derive(Default)]
pub struct XactEnds {
    /// End of the record, and the latest time so far in microseconds since 2000-01-01 UTC.
    ends: Vec<(Lsn, i64)>,
}

/// What was found of a time in a part of the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndedBy {
    /// End of the record of the last transaction before the first that ended later than the time.
    pub last: Option<Lsn>,
    /// Whether there is one that ended later.
    pub later: bool,
}

impl XactEnds {
    /// Adds the transaction whose record ends at `lsn`, behind all others.
    pub fn push(&mut self, lsn: Lsn, time: i64) {
        let latest = self.ends.last().map_or(time, |(_, latest)| time.max(*latest));
        self.ends.push((lsn, latest));
    }

    /// All, each with the latest time so far.
    pub fn all(&self) -> &[(Lsn, i64)] {
        &self.ends
    }

    /// Those whose records end at or before `upto`.
    fn until(&self, upto: Lsn) -> &[(Lsn, i64)] {
        let behind = self.ends.partition_point(|(lsn, _)| *lsn <= upto);
        self.ends.get(..behind).unwrap_or_default()
    }

    /// Where `time` is in the WAL up to `upto`.
    pub fn ended_by(&self, time: i64, upto: Lsn) -> EndedBy {
        let ends = self.until(upto);
        let behind = ends.partition_point(|(_, latest)| *latest <= time);
        let last = behind.checked_sub(1).and_then(|last| ends.get(last)).map(|(lsn, _)| *lsn);
        EndedBy { last, later: behind < ends.len() }
    }

    /// When the latest of those up to `upto` ended.
    pub fn latest(&self, upto: Lsn) -> Option<i64> {
        self.until(upto).last().map(|(_, latest)| *latest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(times: &[i64]) -> XactEnds {
        let mut ends = XactEnds::default();
        for (lsn, time) in (8_u64..).step_by(8).zip(times) {
            ends.push(Lsn::new(lsn), *time);
        }
        ends
    }

    #[test]
    fn stops_before_the_first_that_is_later() {
        let ends = ends(&[10, 30, 20, 30, 40]);
        let at = |time| ends.ended_by(time, Lsn::MAX);
        let found = |last: Option<u64>, later| EndedBy { last: last.map(Lsn::new), later };
        assert_eq!(at(9), found(None, true));
        assert_eq!(at(10), found(Some(8), true));
        // The one of 20 stands behind one of 30, so it is not there yet.
        assert_eq!(at(29), found(Some(8), true));
        assert_eq!(at(30), found(Some(32), true));
        assert_eq!(at(i64::MAX), found(Some(40), false));
        assert_eq!(ends.ended_by(10, Lsn::new(15)), found(Some(8), false));
        assert_eq!(ends.latest(Lsn::new(7)), None);
        assert_eq!(ends.latest(Lsn::new(24)), Some(30));
    }

    proptest! {
        #[test]
        fn as_by_looking_at_each(
            times in prop::collection::vec(0_i64..50, 0..40),
            time in -1_i64..51,
            upto in 0_u64..400,
        ) {
            let numbered = || (8_u64..).step_by(8).zip(&times).take_while(|(lsn, _)| *lsn <= upto);
            let before = || numbered().take_while(|(_, ended)| **ended <= time);
            let expected = EndedBy {
                last: before().last().map(|(lsn, _)| Lsn::new(lsn)),
                later: before().count() < numbered().count(),
            };
            let ends = ends(&times);
            prop_assert_eq!(ends.ended_by(time, Lsn::new(upto)), expected);
            prop_assert_eq!(ends.latest(Lsn::new(upto)), numbered().map(|(_, time)| *time).max());
        }
    }
}
