//! One thread, any sequence of operations, against a naive model.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use cache::{Cache, Lookup, MakeGuard};
use proptest::prelude::*;

const BYTES_MAX: u64 = 100;
const KEYS: u8 = 12;

#[derive(Clone, Debug)]
enum Step {
    /// Look up; if it is to be made, fill it with this size.
    Ask {
        key: u8,
        size: u8,
        hold: bool,
    },
    /// Look up; if it is to be made, keep the duty.
    Begin {
        key: u8,
    },
    /// Fill what was begun.
    Finish {
        key: u8,
        size: u8,
    },
    /// Give up what was begun.
    Abandon {
        key: u8,
    },
    Peek {
        key: u8,
    },
    ReleaseAll,
    Remove {
        below: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let size = prop_oneof![4 => 0..30u8, 1 => 80..120u8];
    prop_oneof![
        8 => (key.clone(), size.clone(), prop::bool::weighted(0.2))
            .prop_map(|(key, size, hold)| Step::Ask { key, size, hold }),
        2 => key.clone().prop_map(|key| Step::Begin { key }),
        2 => (key.clone(), size).prop_map(|(key, size)| Step::Finish { key, size }),
        1 => key.clone().prop_map(|key| Step::Abandon { key }),
        2 => key.clone().prop_map(|key| Step::Peek { key }),
        1 => Just(Step::ReleaseAll),
        1 => key.prop_map(|below| Step::Remove { below }),
    ]
}

/// What may be in the cache: the newest value of each key, unless it was evicted.
#[derive(Default)]
struct Model {
    newest: HashMap<u8, (u32, u64)>,
    held: HashMap<u8, Arc<u32>>,
    /// Guards of keys that are still wanted, and of keys removed since.
    begun: HashMap<u8, MakeGuard<u8, u32>>,
    doomed: Vec<MakeGuard<u8, u32>>,
    serial: u32,
}

impl Model {
    fn fill(&mut self, cache: &Cache<u8, u32>, guard: MakeGuard<u8, u32>, size: u8) -> Arc<u32> {
        let key = *guard.key();
        let before = cache.stats();
        self.serial += 1;
        let value = guard.fill(self.serial, u64::from(size));
        assert_eq!(*value, self.serial);
        let after = cache.stats();
        let fits = before.bytes + u64::from(size) <= BYTES_MAX;
        if fits {
            assert_eq!(after.evictions, before.evictions, "evicted without need");
        }
        if after.rejections > before.rejections {
            assert!(!fits, "rejected without need");
            self.newest.remove(&key);
        } else {
            self.newest.insert(key, (self.serial, u64::from(size)));
        }
        value
    }

    fn check(&mut self, cache: &Cache<u8, u32>) {
        let mut bytes = 0;
        let mut entries = 0;
        for key in 0..KEYS {
            match (cache.peek(&key), self.newest.get(&key)) {
                (Some(value), Some(&(serial, size))) => {
                    assert_eq!(*value, serial, "an old value of {key}");
                    bytes += size;
                    entries += 1;
                }
                (Some(_), None) => panic!("{key} should not be there"),
                (None, Some(&(serial, _))) => {
                    let in_use = self.held.get(&key).is_some_and(|value| **value == serial);
                    assert!(!in_use, "{key} was evicted while in use");
                    self.newest.remove(&key);
                }
                (None, None) => {}
            }
        }
        let stats = cache.stats();
        assert!(stats.bytes <= BYTES_MAX);
        assert_eq!((stats.bytes, stats.entries), (bytes, entries));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let cache = Cache::<u8, u32>::new(BYTES_MAX);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Ask { key, size, hold } => {
                    let value = match cache.lookup(key) {
                        Lookup::Hit(value) => Some(value),
                        Lookup::Make(guard) => Some(model.fill(&cache, guard, size)),
                        Lookup::Wait(_) => {
                            prop_assert!(model.begun.contains_key(&key));
                            None
                        }
                    };
                    if let (Some(value), true) = (value, hold) {
                        model.held.insert(key, value);
                    }
                }
                Step::Begin { key } => {
                    if let Lookup::Make(guard) = cache.lookup(key) {
                        prop_assert!(model.begun.insert(key, guard).is_none(), "two makers");
                    }
                }
                Step::Finish { key, size } => {
                    if let Some(guard) = model.begun.remove(&key) {
                        model.fill(&cache, guard, size);
                    } else if let Some(guard) = model.doomed.pop() {
                        guard.fill(u32::MAX, u64::from(size));
                    }
                }
                Step::Abandon { key } => drop(model.begun.remove(&key)),
                Step::Peek { key } => drop(cache.peek(&key)),
                Step::ReleaseAll => model.held.clear(),
                Step::Remove { below } => {
                    cache.remove_if(|&key| key < below);
                    model.newest.retain(|&key, _| key >= below);
                    let begun = std::mem::take(&mut model.begun);
                    for (key, guard) in begun {
                        if key < below {
                            model.doomed.push(guard);
                        } else {
                            model.begun.insert(key, guard);
                        }
                    }
                }
            }
            model.check(&cache);
        }
    }
}
