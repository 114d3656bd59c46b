use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::thread;

use proptest::prelude::*;

use super::*;

#[test]
fn makes_each_value_once_however_many_ask() {
    let cache: Cache<u32, u32> = Cache::new(1 << 20);
    let made = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for key in 0..500 {
                    let make = || {
                        made.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, ()>((key * 2, 8))
                    };
                    assert_eq!(cache.get_or_make(key, make).map(|v| *v), Ok(key * 2));
                }
            });
        }
    });
    assert_eq!(made.into_inner(), 500);
    assert_eq!(cache.stats().bytes, 4000);
}

#[test]
fn a_failed_making_passes_to_the_next() {
    let cache: Cache<u32, u32> = Cache::new(1 << 20);
    let failures = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for key in 0..200 {
                    let make = || match failures.fetch_add(1, Ordering::Relaxed) % 3 {
                        0 => Ok((key, 8)),
                        _ => Err(()),
                    };
                    match cache.get_or_make(key, make) {
                        Ok(value) => assert_eq!(*value, key),
                        Err(()) => continue,
                    }
                }
            });
        }
    });
    // Nothing abandoned is left behind: each key is either there or can be made.
    for key in 0..200 {
        assert!(matches!(cache.lookup(key), Lookup::Hit(_) | Lookup::Make(_)));
    }
    assert_eq!(cache.shared.entries.len() as u64 * 8, cache.stats().bytes);
}

#[test]
fn stays_within_its_bound_and_spares_what_is_in_use() {
    let cache: Cache<u32, u32> = Cache::new(100);
    let make = |key| cache.get_or_make(key, || Ok::<_, ()>((key, 10))).expect("made");
    let held: Vec<_> = (0..5).map(make).collect();
    for key in 5..1000 {
        make(key);
        assert!(cache.stats().bytes <= 100);
    }
    for (key, value) in held.iter().enumerate() {
        assert!(Arc::ptr_eq(value, &make(key as u32)), "{key} was evicted while in use");
    }
    // With everything in use, more is served but not kept.
    let all: Vec<_> = (5..30).map(make).collect();
    assert_eq!(all.len(), 25);
    assert!(cache.stats().bytes <= 100);
    // Larger than the whole cache.
    assert_eq!(cache.get_or_make(5000, || Ok::<_, ()>((1, 101))).map(|v| *v), Ok(1));
    assert!(cache.peek(&5000).is_none());
}

#[test]
fn recently_used_values_stay() {
    let cache: Cache<u32, u32> = Cache::new(100);
    for key in 0..200 {
        cache.get_or_make(key, || Ok::<_, ()>((key, 10))).expect("made");
        cache.peek(&0).expect("a value used all the time stays");
    }
}

proptest! {
    /// Whatever is asked in whatever order, the value is right and the bound holds.
    #[test]
    fn equals_a_map(steps in proptest::collection::vec((0u32..20, 0u64..40, any::<bool>()), 0..200)) {
        let cache: Cache<u32, (u32, u64)> = Cache::new(100);
        let mut sizes = HashMap::new();
        for (key, size, remove) in steps {
            if remove {
                cache.remove_if(|k| *k == key);
                prop_assert!(cache.peek(&key).is_none());
                continue;
            }
            let make = || Ok::<_, ()>(((key, size), size));
            let value = cache.get_or_make(key, make).expect("made");
            prop_assert_eq!(value.0, key);
            sizes.insert(key, value.1);
            prop_assert!(cache.stats().bytes <= 100);
            let kept: u64 =
                (0..20).filter_map(|key| cache.peek(&key)).map(|value| value.1).sum();
            prop_assert_eq!(kept, cache.stats().bytes);
        }
    }
}
