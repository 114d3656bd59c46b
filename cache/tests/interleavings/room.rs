//! What is kept, what is dropped, and how much of it there is.

use crate::cache::Cache;
use crate::sync::Arc;
use crate::{check_sums, explore, put, spawn};

const BYTES_MAX: u64 = 10;

fn check_bound(cache: &Cache<u32, u32>) {
    let bytes = cache.stats().bytes;
    assert!(bytes <= BYTES_MAX, "{bytes}");
}

/// Values of which only one has room.
#[test]
fn the_bound_holds_at_every_moment() {
    explore(|| {
        let cache = Cache::new(BYTES_MAX);
        drop(put(&cache, 1, 6, 6));
        let other = spawn(&cache, |cache| {
            drop(put(cache, 2, 7, 7));
            check_bound(cache);
        });
        drop(put(&cache, 3, 8, 8));
        check_bound(&cache);
        other.join().unwrap();
        check_sums(&cache, &[1, 2, 3], u64::from);
    });
}

/// One looks at a value while another needs its room.
#[test]
fn what_is_in_use_is_not_dropped() {
    explore(|| {
        let cache = Cache::new(BYTES_MAX);
        drop(put(&cache, 1, 6, 6));
        let other = spawn(&cache, |cache| drop(put(cache, 2, 7, 7)));
        if let Some(value) = cache.peek(&1) {
            let again = cache.peek(&1).expect("it is in use");
            assert!(Arc::ptr_eq(&value, &again));
        }
        other.join().unwrap();
        check_sums(&cache, &[1, 2], u64::from);
    });
}

/// Whoever is dropped is made again, once, by one of those who want it back.
#[test]
fn what_was_dropped_is_made_again() {
    explore(|| {
        let cache = Cache::new(BYTES_MAX);
        drop(put(&cache, 1, 6, 6));
        let other = spawn(&cache, |cache| drop(put(cache, 2, 7, 7)));
        assert_eq!(*put(&cache, 1, 6, 6), 6);
        other.join().unwrap();
        check_sums(&cache, &[1, 2], u64::from);
    });
}

/// A value is kept, dropped to make room and removed at once: its bytes are given back once.
#[test]
fn bytes_are_given_back_once() {
    explore(|| {
        let cache = Cache::new(BYTES_MAX);
        drop(put(&cache, 1, 6, 6));
        let filling = spawn(&cache, |cache| drop(put(cache, 2, 7, 7)));
        cache.remove_if(|_| true);
        filling.join().unwrap();
        check_sums(&cache, &[1, 2], u64::from);
    });
}
