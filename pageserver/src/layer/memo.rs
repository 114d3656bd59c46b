//! `Memo`: what a layer says of objects, remembered for those that were asked about lately. Layers do not change, so
//! nothing of it is ever wrong; each object has one place where it can be, and the last that came there stays.

use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::object::ObjectTag;

/// Places; a power of two. A layer that is read has some 3 KiB of them.
const PLACES: usize = 32;

/// The object that came there last, and the facts about it.
type Place<F> = Mutex<Option<(ObjectTag, F)>>;

/// Facts about objects.
pub(super) struct Memo<F> {
    // LOCK ORDER: leaves, each held for a moment.
    places: OnceLock<Box<[Place<F>]>>,
}

impl<F> Default for Memo<F> {
    fn default() -> Memo<F> {
        Memo { places: OnceLock::new() }
    }
}

impl<F: Copy> Memo<F> {
    /// The facts about `object`, found by `find` unless they are remembered. No lock is held meanwhile.
    pub(super) fn get<E>(
        &self,
        object: ObjectTag,
        find: impl FnOnce() -> Result<F, E>,
    ) -> Result<F, E> {
        let places = self.places.get_or_init(|| (0..PLACES).map(|_| Mutex::new(None)).collect());
        let Some(place) = places.get(place_of(object)) else { return find() };
        if let Some((there, facts)) = &*place.lock()
            && *there == object
        {
            return Ok(*facts);
        }
        let facts = find()?;
        *place.lock() = Some((object, facts));
        Ok(facts)
    }

    /// Changes what is remembered of `object`, if anything is, into what `change` makes of it, and gives that.
    pub(super) fn change(&self, object: ObjectTag, change: impl FnOnce(Option<F>) -> F) -> F {
        let places = self.places.get_or_init(|| (0..PLACES).map(|_| Mutex::new(None)).collect());
        let Some(place) = places.get(place_of(object)) else { return change(None) };
        let mut place = place.lock();
        let known = place.filter(|(there, _)| *there == object).map(|(_, facts)| facts);
        let facts = change(known);
        *place = Some((object, facts));
        facts
    }
}

fn place_of(object: ObjectTag) -> usize {
    let number = match object {
        ObjectTag::Rel(rel) => {
            u64::from(rel.rel.0 ^ rel.db.0.rotate_left(20)) << 3 | rel.fork as u64
        }
        ObjectTag::Slru { kind, segment } => u64::from(segment) << 3 | kind as u64,
    };
    // Multiplied by the golden ratio, the upper bits depend on all of them.
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use postgres_formats::{ForkNumber, Oid, RelTag};

    use super::*;

    #[test]
    fn facts_are_those_of_the_object_and_found_once() {
        let object = |n| {
            ObjectTag::Rel(RelTag { spc: Oid(1), db: Oid(5), rel: Oid(n), fork: ForkNumber::Main })
        };
        let (memo, mut found) = (Memo::default(), 0);
        for _ in 0..3 {
            for n in 0..1000 {
                assert_eq!(memo.get(object(n), || Ok::<_, Infallible>(n)), Ok(n));
            }
        }
        for _ in 0..100 {
            let find = || {
                found += 1;
                Ok::<_, Infallible>(7)
            };
            assert_eq!(memo.get(object(7), find), Ok(7));
        }
        assert!(found <= 1);
        assert_eq!(memo.get(object(2000), || Err("failed")), Err("failed"));
        assert_eq!(memo.get(object(2000), || Ok::<_, &str>(1)), Ok(1));
        assert_eq!(memo.change(object(2000), |known| known.unwrap_or(0) + 1), 2);
        assert_eq!(memo.change(object(3000), |known| known.unwrap_or(0) + 1), 1);
    }
}
