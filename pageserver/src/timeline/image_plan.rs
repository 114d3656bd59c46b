//! Which pages go into which piece of an image.

use std::collections::BTreeMap;
use std::ops::Range;

use layers::KeyRange;
use postgres_formats::{BLCKSZ, BlockNumber};

use crate::layer::delta::keys::LayerKey;
use crate::object::{ObjectPage, ObjectTag};

/// A piece of an image.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct PiecePlan {
    /// The keys of which it has all there is.
    pub keys: KeyRange,
    /// Its pages, in the order of their keys.
    pub pages: Vec<(ObjectTag, Range<u32>)>,
    /// How many pages come before it.
    pub before: u64,
}

fn key(object: ObjectTag, block: u32) -> Vec<u8> {
    LayerKey::Page(ObjectPage { object, block: BlockNumber(block) }).encode()
}

/// The first block of the object, or its size, of which the key is not before `bound`.
fn first_block(object: ObjectTag, size: u32, bound: &[u8]) -> u32 {
    let (mut low, mut high) = (0, size);
    while low < high {
        let middle = low + (high - low) / 2;
        match key(object, middle).as_slice() < bound {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// The piece with which to go on where keys are missing: from the first of `gap` on so many pages as make
/// `bytes_max`, at least one, of `objects` with their sizes in pages.
pub(super) fn plan(
    objects: &BTreeMap<ObjectTag, u32>,
    gap: &KeyRange,
    bytes_max: u64,
) -> PiecePlan {
    let mut left = (bytes_max / BLCKSZ as u64).max(1);
    let mut plan = PiecePlan { keys: gap.clone(), pages: Vec::new(), before: 0 };
    for (object, size) in objects {
        let first = first_block(*object, *size, &gap.start);
        let end = gap.end.as_ref().map_or(*size, |end| first_block(*object, *size, end));
        plan.before += u64::from(first);
        if first >= end {
            continue;
        }
        if left == 0 {
            plan.keys.end = Some(key(*object, first));
            break;
        }
        let count = u64::from(end - first).min(left);
        left -= count;
        let last = first.saturating_add(u32::try_from(count).unwrap_or(u32::MAX)).min(end);
        plan.pages.push((*object, first..last));
        if last < end {
            plan.keys.end = Some(key(*object, last));
            break;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use postgres_formats::{ForkNumber, Oid, RelTag, SlruKind};
    use proptest::prelude::*;

    use super::*;
    use crate::layer::known_keys::KnownKeys;

    fn objects(sizes: &[u32]) -> BTreeMap<ObjectTag, u32> {
        let object = |number: u32| match number % 3 {
            0 => ObjectTag::Slru { kind: SlruKind::Clog, segment: number },
            fork => {
                let fork = if fork == 1 { ForkNumber::Main } else { ForkNumber::Fsm };
                ObjectTag::Rel(RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(number / 3), fork })
            }
        };
        (0..).map(object).zip(sizes.iter().copied()).collect()
    }

    proptest! {
        #[test]
        fn each_page_is_in_one_piece(
            sizes in prop::collection::vec(0_u32..9, 0..12),
            pages_max in prop::collection::vec(1_u64..10, 1..4),
        ) {
            let objects = objects(&sizes);
            let mut known = KnownKeys::default();
            let (mut pages, mut pieces) = (Vec::new(), pages_max.iter().cycle());
            while let Some(gap) = known.gap() {
                let pages_max = *pieces.next().unwrap_or(&1);
                let piece = plan(&objects, &gap, pages_max * BLCKSZ as u64 + 1);
                prop_assert_eq!(piece.before, pages.len() as u64);
                let before = pages.len();
                for (object, blocks) in &piece.pages {
                    for block in blocks.clone() {
                        prop_assert!(piece.keys.contains(&key(*object, block)));
                        pages.push((*object, block));
                    }
                }
                let count = (pages.len() - before) as u64;
                prop_assert!(count == pages_max || piece.keys.end.is_none() && count < pages_max);
                known.extend([&piece.keys]);
            }
            let all = objects.iter().flat_map(|(object, size)| (0..*size).map(|n| (*object, n)));
            prop_assert_eq!(pages, all.collect::<Vec<_>>());
        }
    }
}
