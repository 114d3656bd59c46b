//! `CachedUpto`: up to where a page may have versions in the cache.
//!
//! A page that is made of a long chain could use any version of the chain that is in the cache. To look
//! for each of hundreds costs more than to read them; mostly there is none, or an old one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use postgres_formats::{Lsn, TimelineId};

use crate::object::ObjectPage;

/// Number of places, a power of two; 8 bytes each.
const PLACES: usize = 1 << 16;

/// For each page, a bound of the LSNs of its versions that have ever been put into the cache. Pages share
/// places, so that a bound may be too high, but never too low.
pub struct CachedUpto {
    bounds: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for CachedUpto {
    fn default() -> CachedUpto {
        let bounds = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        CachedUpto { bounds, hasher: RandomState::new() }
    }
}

impl CachedUpto {
    fn place(&self, timeline: TimelineId, page: ObjectPage) -> Option<&AtomicU64> {
        let hash = self.hasher.hash_one((timeline, page));
        self.bounds.get(hash as usize % PLACES)
    }

    /// A version is about to be put into the cache.
    pub fn add(&self, timeline: TimelineId, page: ObjectPage, end: Lsn) {
        if let Some(bound) = self.place(timeline, page) {
            bound.fetch_max(end.as_u64(), Ordering::Relaxed);
        }
    }

    /// No version of the page that ends behind this is in the cache.
    pub fn bound(&self, timeline: TimelineId, page: ObjectPage) -> Lsn {
        let bound = self.place(timeline, page);
        Lsn::new(bound.map_or(u64::MAX, |bound| bound.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use postgres_formats::{BlockNumber, ForkNumber, Oid, RelTag};

    use super::*;
    use crate::object::ObjectTag;

    #[test]
    fn a_bound_is_never_too_low() {
        let rel = RelTag { spc: Oid(1), db: Oid(2), rel: Oid(3), fork: ForkNumber::Main };
        let page = |n| ObjectPage { object: ObjectTag::Rel(rel), block: BlockNumber(n) };
        let upto = CachedUpto::default();
        let timelines = [[1; 16], [2; 16]].map(TimelineId::from_bytes);
        assert_eq!(upto.bound(timelines[0], page(0)), Lsn::new(0));
        // More pages than places.
        let end = |n: u32| Lsn::new(u64::from(n) * 7919 % 65_537);
        for n in 0..80_000 {
            upto.add(timelines[n as usize % 2], page(n), end(n));
        }
        for n in 0..80_000 {
            assert!(upto.bound(timelines[n as usize % 2], page(n)) >= end(n));
        }
        upto.add(timelines[0], page(0), Lsn::new(1));
        assert!(upto.bound(timelines[0], page(0)) >= end(0));
    }
}
