//! `KnownKeys`: which keys several files speak of together.

use layers::KeyRange;

/// A set of keys.
#[derive(Clone, Default, Debug)]
pub struct KnownKeys {
    /// None begins before the one before ends, nor where it does.
    ranges: Vec<KeyRange>,
}

impl KnownKeys {
    /// Adds ranges of keys.
    pub fn extend<'a>(&mut self, ranges: impl IntoIterator<Item = &'a KeyRange>) {
        let mut all = std::mem::take(&mut self.ranges);
        all.extend(ranges.into_iter().cloned());
        all.sort_by(|a, b| a.start.cmp(&b.start));
        for range in all {
            match self.ranges.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| range.start <= *end) => {
                    last.end = match (last.end.take(), range.end) {
                        (Some(a), Some(b)) => Some(a.max(b)),
                        _ => None,
                    };
                }
                _ => self.ranges.push(range),
            }
        }
    }

    /// The first range of keys that are not among them; `None` if all are.
    pub fn gap(&self) -> Option<KeyRange> {
        let start = match self.ranges.first() {
            Some(first) if first.start.is_empty() => first.end.clone()?,
            _ => Vec::new(),
        };
        let next = self.ranges.iter().map(|range| &range.start).find(|next| **next > start);
        Some(KeyRange { start, end: next.cloned() })
    }

    /// Whether all keys of a range are among them.
    pub fn cover(&self, keys: &KeyRange) -> bool {
        let before = self.ranges.partition_point(|range| range.start <= keys.start);
        let Some(range) = before.checked_sub(1).and_then(|at| self.ranges.get(at)) else {
            return false;
        };
        match (&range.end, &keys.end) {
            (None, _) => true,
            (Some(end), Some(wanted)) => wanted <= end,
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = KeyRange> {
        (0_u8..20, 1_u8..6, prop::bool::weighted(0.1)).prop_map(|(start, length, open)| KeyRange {
            start: if start == 0 { Vec::new() } else { vec![start] },
            end: (!open).then(|| vec![start + length]),
        })
    }

    /// Keys between all bounds that there can be.
    fn keys() -> impl Iterator<Item = Vec<u8>> {
        std::iter::once(Vec::new()).chain((0..30).map(|key| vec![key]))
    }

    proptest! {
        #[test]
        fn they_are_those_of_the_ranges(
            ranges in prop::collection::vec(range(), 0..8),
            more in prop::collection::vec(range(), 0..3),
            asked in range(),
        ) {
            let mut known = KnownKeys::default();
            known.extend(&ranges);
            known.extend(&more);
            let is_in = |key: &Vec<u8>| ranges.iter().chain(&more).any(|range| range.contains(key));
            let is_covered = keys().filter(|key| asked.contains(key)).all(|key| is_in(&key));
            prop_assert_eq!(known.cover(&asked), is_covered);
            let first = keys().find(|key| !is_in(key));
            let gap = known.gap();
            prop_assert_eq!(gap.as_ref().map(|gap| gap.start.clone()), first);
            if let Some(gap) = gap {
                prop_assert!(keys().filter(|key| gap.contains(key)).all(|key| !is_in(&key)));
                prop_assert!(gap.end.is_none_or(|end| is_in(&end)));
            }
        }
    }
}
