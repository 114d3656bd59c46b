//! Who makes a value, and who gets it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use crate::cache::Cache;
use crate::guard::Lookup;
use crate::sync::Arc;
use crate::{check_sums, explore, put, spawn};

/// Counts makings. Not loom's atomics: what a test remembers is no place to switch threads.
#[derive(Default)]
struct Makings {
    now: AtomicBool,
    done: AtomicU32,
}

impl Makings {
    /// A making that gives the number of those before it.
    fn make(&self, cache: &Cache<u32, u32>) -> Arc<u32> {
        let made = cache.get_or_make(1, || {
            assert!(!self.now.swap(true, SeqCst), "two make the same");
            // Somebody else may come now.
            loom::thread::yield_now();
            self.now.store(false, SeqCst);
            Ok::<_, ()>((self.done.fetch_add(1, SeqCst), 10))
        });
        made.unwrap()
    }
}

#[test]
fn a_value_is_made_once_however_many_ask() {
    explore(|| {
        let cache = Cache::new(100);
        let makings = std::sync::Arc::new(Makings::default());
        let others = [(); 2].map(|()| {
            let makings = makings.clone();
            spawn(&cache, move |cache| makings.make(cache))
        });
        let mine = makings.make(&cache);
        for other in others {
            assert!(Arc::ptr_eq(&other.join().unwrap(), &mine));
        }
        assert_eq!(makings.done.load(SeqCst), 1);
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.hits + stats.waits), (1, 2));
        drop(mine);
        check_sums(&cache, &[1], |_| 10);
    });
}

#[test]
fn a_guard_that_is_dropped_unfilled_hands_over() {
    explore(|| {
        let cache = Cache::new(100);
        let makings = std::sync::Arc::new(Makings::default());
        let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
        let others = [(); 2].map(|()| {
            let makings = makings.clone();
            spawn(&cache, move |cache| makings.make(cache))
        });
        drop(guard);
        let [first, second] = others.map(|other| other.join().unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(makings.done.load(SeqCst), 1);
        drop((first, second));
        check_sums(&cache, &[1], |_| 10);
    });
}

#[test]
fn whoever_fails_leaves_it_to_the_next() {
    explore(|| {
        let cache = Cache::new(100);
        let failing = spawn(&cache, |cache| cache.get_or_make(1, || Err(())));
        assert_eq!(*put(&cache, 1, 7, 10), 7);
        let failed = match failing.join().unwrap() {
            // It came later, or waited.
            Ok(value) => {
                assert_eq!(*value, 7);
                0
            }
            Err(()) => 1,
        };
        assert_eq!(cache.stats().abandoned, failed);
        check_sums(&cache, &[1], |_| 10);
    });
}

/// One stops waiting just when the maker gives up: the other one must hear of it, and if there is none, nothing may
/// stay behind.
#[test]
fn who_stops_waiting_takes_nobodys_turn() {
    explore(|| {
        let cache = Cache::new(100);
        let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
        let impatient = spawn(&cache, |cache| match cache.lookup(1) {
            Lookup::Wait(waiter) => drop(waiter.wait_timeout(Duration::ZERO)),
            other => drop(other),
        });
        let patient = spawn(&cache, |cache| assert_eq!(*put(cache, 1, 7, 10), 7));
        drop(guard);
        impatient.join().unwrap();
        patient.join().unwrap();
        check_sums(&cache, &[1], |_| 10);
    });
}

#[test]
fn nothing_stays_of_what_nobody_wanted_in_the_end() {
    explore(|| {
        let cache = Cache::<u32, u32>::new(100);
        let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
        let others = [(); 2].map(|()| {
            spawn(&cache, |cache| match cache.lookup(1) {
                Lookup::Wait(waiter) => drop(waiter.wait_timeout(Duration::ZERO)),
                other => drop(other),
            })
        });
        drop(guard);
        for other in others {
            other.join().unwrap();
        }
        check_sums(&cache, &[1], |_| 10);
    });
}

/// A value whose making began before its key was removed reaches those who asked before, and nobody who asks later.
#[test]
fn a_doomed_value_reaches_nobody_who_asks_later() {
    const OLD: u32 = 1;
    const NEW: u32 = 2;
    explore(|| {
        let cache = Cache::new(100);
        let removing = std::sync::Arc::new(AtomicBool::new(false));
        let ask = |removing: std::sync::Arc<AtomicBool>| {
            move |cache: &Cache<u32, u32>| {
                let make = || if removing.load(SeqCst) { NEW } else { OLD };
                *cache.get_or_make(1, || Ok::<_, ()>((make(), 10))).unwrap()
            }
        };
        let other = spawn(&cache, ask(removing.clone()));
        removing.store(true, SeqCst);
        cache.remove_if(|&key| key == 1);
        assert_eq!(*put(&cache, 1, NEW, 10), NEW);
        other.join().unwrap();
        assert!(cache.peek(&1).is_none_or(|value| *value == NEW));
        check_sums(&cache, &[1], |_| 10);
    });
}

/// The same with one who waits for it, and may have to make it in the end.
#[test]
fn who_waits_for_a_doomed_value_is_not_left_alone() {
    explore(|| {
        let cache = Cache::new(100);
        let Lookup::Make(guard) = cache.lookup(1) else { panic!("nobody else asked") };
        let waiting = spawn(&cache, |cache| *put(cache, 1, 2, 10));
        let removing = spawn(&cache, |cache| assert!(cache.remove_if(|_| true) <= 1));
        // Given up, so that the duty is handed over before, while or after it is removed.
        drop(guard);
        assert_eq!(waiting.join().unwrap(), 2);
        removing.join().unwrap();
        check_sums(&cache, &[1], |_| 10);
    });
}
