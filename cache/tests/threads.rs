//! Many threads at once.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use cache::{Cache, Lookup};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PATIENCE: Duration = Duration::from_secs(20);

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::yield_now();
    }
}

#[test]
fn a_value_is_made_once_however_many_ask() {
    const THREADS: usize = 16;
    let cache = Cache::<u32, String>::new(1000);
    let made = AtomicUsize::new(0);
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let value = cache.get_or_make(7, || {
                    made.fetch_add(1, SeqCst);
                    // Not before everybody else has come.
                    wait_until("waiters", || cache.stats().waits == THREADS as u64 - 1);
                    Ok::<_, ()>(("seven".to_owned(), 5))
                });
                assert_eq!(*value.unwrap(), "seven");
            });
        }
    });
    assert_eq!(made.load(SeqCst), 1);
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.entries, stats.bytes), (1, 1, 5));
}

#[test]
fn an_error_is_the_makers_own_and_the_next_tries() {
    const THREADS: usize = 8;
    let cache = Cache::<u32, usize>::new(1000);
    let tries = AtomicUsize::new(0);
    let (failed, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let result = cache.get_or_make(1, || {
                    if tries.fetch_add(1, SeqCst) == 0 {
                        wait_until("waiters", || cache.stats().waits == THREADS as u64 - 1);
                        return Err("first try");
                    }
                    Ok((42, 1))
                });
                match result {
                    Ok(value) => assert_eq!(*value, 42),
                    Err(_) => drop(failed.fetch_add(1, SeqCst)),
                }
                found.fetch_add(1, SeqCst);
            });
        }
    });
    assert_eq!((failed.load(SeqCst), tries.load(SeqCst), found.load(SeqCst)), (1, 2, THREADS));
    assert_eq!(cache.stats().abandoned, 1);
}

#[test]
fn a_maker_that_panics_is_replaced() {
    let cache = Cache::<u32, u32>::new(1000);
    let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
    let Lookup::Wait(waiter) = cache.lookup(1) else { panic!("it is being made") };
    let maker = thread::spawn(move || {
        let _guard = guard;
        std::panic::resume_unwind(Box::new("died"));
    });
    let Lookup::Make(guard) = waiter.wait() else { panic!("the duty passes on") };
    assert!(maker.join().is_err());
    drop(guard);
    assert!(matches!(cache.lookup(1), Lookup::Make(_)));
}

#[test]
fn waiting_ends_in_time_and_leaves_nothing_behind() {
    let cache = Cache::<u32, u32>::new(1000);
    let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
    let Lookup::Wait(waiter) = cache.lookup(1) else { panic!("it is being made") };
    let waiter = waiter.wait_timeout(Duration::from_millis(5)).unwrap_err();
    // The last who waited leaves after the maker did: the key is nobody's.
    drop(guard);
    drop(waiter);
    assert_eq!(cache.remove_if(|_| true), 0);
    // A value that came in time.
    let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
    let Lookup::Wait(waiter) = cache.lookup(1) else { panic!("it is being made") };
    guard.fill(9, 1);
    let Ok(Lookup::Hit(value)) = waiter.wait_timeout(Duration::ZERO) else { panic!("it is there") };
    assert_eq!(*value, 9);
}

#[test]
fn what_is_removed_while_it_is_made_is_not_kept() {
    let cache = Cache::<u32, u32>::new(1000);
    let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
    let Lookup::Wait(waiter) = cache.lookup(1) else { panic!("it is being made") };
    assert_eq!(cache.remove_if(|&key| key == 1), 1);
    let Lookup::Make(second) = cache.lookup(1) else { panic!("the first is forgotten") };
    guard.fill(1, 10);
    let Lookup::Hit(value) = waiter.wait() else { panic!("it was waited for") };
    assert_eq!(*value, 1);
    second.fill(2, 20);
    assert_eq!(cache.peek(&1).as_deref(), Some(&2));
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.entries), (20, 1));
}

#[test]
fn values_in_use_are_not_evicted() {
    let cache = Cache::<u32, u32>::new(100);
    let held = cache.get_or_make(0, || Ok::<_, ()>((0, 50))).unwrap();
    for key in 1..100 {
        cache.get_or_make(key, || Ok::<_, ()>((key, 10))).unwrap();
        assert!(cache.stats().bytes <= 100);
    }
    assert!(Arc::ptr_eq(&held, &cache.peek(&0).unwrap()));
    assert_eq!(cache.stats().rejections, 0);
    // If all is in use, what comes is given out but not kept.
    let all: Vec<_> = (0..100).filter_map(|key| cache.peek(&key)).collect();
    let value = cache.get_or_make(1000, || Ok::<_, ()>((5, 90))).unwrap();
    assert_eq!(*value, 5);
    assert!(cache.peek(&1000).is_none());
    assert_eq!(cache.stats().rejections, 1);
    drop(all);
    // Larger than the whole cache: never kept, and nothing is thrown out for it.
    let before = cache.stats().entries;
    cache.get_or_make(1001, || Ok::<_, ()>((5, 101))).unwrap();
    assert_eq!(cache.stats().entries, before);
}

/// A value that sees, when it goes, that it is still counted, so that no other takes its room before.
struct Counted(Arc<OnceLock<Cache<u32, Counted>>>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(cache) = self.0.get() {
            assert_eq!(cache.stats().bytes, 60);
        }
    }
}

#[test]
fn bytes_count_until_they_are_free() {
    let cache = Cache::new(100);
    let handle = Arc::new(OnceLock::new());
    let put = |key| drop(cache.get_or_make(key, || Ok::<_, ()>((Counted(handle.clone()), 60))));
    put(1);
    handle.set(cache.clone()).ok().unwrap();
    put(2);
    assert_eq!(cache.stats().evictions, 1);
    assert_eq!(cache.remove_if(|_| true), 1);
    assert_eq!(cache.stats().bytes, 0);
}

#[test]
fn what_is_asked_for_again_outlives_what_is_not() {
    let cache = Cache::<u32, ()>::new(1000);
    let ask = |key| drop(cache.get_or_make(key, || Ok::<_, ()>(((), 10))).unwrap());
    (0..20).for_each(ask);
    for key in 1000..3000 {
        ask(key);
        (0..20).for_each(ask);
    }
    let stats = cache.stats();
    // 2,000 values asked for once go through; the twenty stay, but for accidents of the hand.
    assert!(stats.misses < 2_020 + 200, "{stats:?}");
}

/// The hand went on with the value that had come last, which took the place of the one that had to go: so the new ones
/// drove each other out, and what nobody wanted any more stayed.
#[test]
fn what_comes_in_takes_the_place_of_what_was_wanted_earlier() {
    let cache = Cache::<u32, ()>::new(16_000);
    let ask = |key| drop(cache.get_or_make(key, || Ok::<_, ()>(((), 10))).unwrap());
    (0..1_600).for_each(ask);
    (10_000..10_400).for_each(ask);
    let there = (10_000..10_400).filter(|key| cache.peek(key).is_some()).count();
    assert!(there > 390, "{there} of 400 are there");
}

#[test]
fn one_that_is_asked_for_all_the_time_stays() {
    let cache = Cache::<u32, u32>::new(100);
    for key in 0..200 {
        cache.get_or_make(key, || Ok::<_, ()>((key, 10))).unwrap();
        assert!(cache.peek(&0).is_some(), "gone after {key}");
    }
}

/// One maker per key at any time, right values, the bound held at every moment, nothing lost.
#[test]
fn storm() {
    const KEYS: usize = 64;
    const BYTES_MAX: u64 = 2_000;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let cache = Cache::<usize, usize>::new(BYTES_MAX);
    let making: Vec<AtomicBool> = (0..KEYS).map(|_| AtomicBool::new(false)).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|number| {
                let cache = cache.clone();
                let making = &making;
                scope.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(seed ^ number);
                    let mut held = Vec::new();
                    for _ in 0..3_000 {
                        // Some keys are asked for often, some seldom.
                        let key = rng.random_range(0..KEYS).min(rng.random_range(0..KEYS));
                        let result = cache.get_or_make(key, || {
                            assert!(!making[key].swap(true, SeqCst), "two makers of {key}");
                            if rng.random_ratio(1, 50) {
                                thread::yield_now();
                            }
                            making[key].store(false, SeqCst);
                            if rng.random_ratio(1, 10) {
                                return Err(());
                            }
                            Ok((key * 3, 1 + key as u64 * 2))
                        });
                        if let Ok(value) = result {
                            assert_eq!(*value, key * 3);
                            if rng.random_ratio(1, 20) {
                                held.push(value);
                            }
                        }
                        if held.len() > 5 {
                            held.clear();
                        }
                        if rng.random_ratio(1, 500) {
                            drop(cache.lookup(key));
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(SeqCst) {
                assert!(cache.stats().bytes <= BYTES_MAX);
                thread::yield_now();
            }
        });
        for worker in workers {
            let joined = worker.join();
            if joined.is_err() {
                over.store(true, SeqCst);
            }
            joined.unwrap();
        }
        over.store(true, SeqCst);
    });
    let kept: Vec<usize> = (0..KEYS).filter(|key| cache.peek(key).is_some()).collect();
    let stats = cache.stats();
    assert_eq!(stats.bytes, kept.iter().map(|key| 1 + key * 2).sum::<usize>() as u64);
    assert_eq!(stats.entries, kept.len() as u64);
    assert!(stats.hits > 0 && stats.evictions > 0 && stats.abandoned > 0, "{stats:?}");
    assert_eq!(cache.remove_if(|_| true), kept.len());
    assert_eq!((cache.stats().bytes, cache.stats().entries), (0, 0));
}

/// As `storm`, but with removals in between, after which a key may have two makers: one for those
/// who asked before, one for those who ask after.
#[test]
fn storm_with_removals() {
    const KEYS: usize = 16;
    let cache = Cache::<usize, usize>::new(100);
    thread::scope(|scope| {
        for number in 0..6u64 {
            let cache = cache.clone();
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(number);
                for _ in 0..5_000 {
                    let key = rng.random_range(0..KEYS);
                    if rng.random_ratio(1, 20) {
                        cache.remove_if(|&k| k % 4 == key % 4);
                    }
                    let made = cache.get_or_make(key, || Ok::<_, ()>((key, 10)));
                    assert_eq!(*made.unwrap(), key);
                }
            });
        }
    });
    let kept = (0..KEYS).filter(|key| cache.peek(key).is_some()).count() as u64;
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.entries), (kept * 10, kept));
}
