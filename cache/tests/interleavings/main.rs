//! Every order in which a few threads can come, explored by loom: the cache's own files, compiled with loom's
//! locks and atomics in place of those of `src/sync.rs`.
//!
//! loom ends a run in which all threads wait for each other, and one that drops something twice or never; so each
//! test here is also one of lost wake-ups. An order may interrupt threads `PREEMPTIONS` times where they would have
//! gone on; `LOOM_MAX_PREEMPTIONS` sets another number.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

#[path = "../../src/cache.rs"]
mod cache;
#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/entry.rs"]
mod entry;
#[path = "../../src/guard.rs"]
mod guard;
#[path = "../../src/stats.rs"]
mod stats;
mod sync;

mod making;
mod room;

use loom::thread::{self, JoinHandle};

use cache::Cache;
use sync::Arc;

const PREEMPTIONS: usize = 2;

/// Runs a scenario in every order. What is shared within it must be made in it.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.max_branches = 10_000;
    builder.check(scenario);
}

fn spawn<T: 'static>(
    cache: &Cache<u32, u32>,
    work: impl FnOnce(&Cache<u32, u32>) -> T + 'static,
) -> JoinHandle<T> {
    let cache = cache.clone();
    thread::spawn(move || work(&cache))
}

/// Puts a value in, unless one is there.
fn put(cache: &Cache<u32, u32>, key: u32, value: u32, bytes: u64) -> Arc<u32> {
    cache.get_or_make(key, || Ok::<_, ()>((value, bytes))).unwrap()
}

/// What is there when nobody works any more is what is counted, and no more than allowed; the values are as large as
/// `bytes_of` says.
fn check_sums(cache: &Cache<u32, u32>, keys: &[u32], bytes_of: impl Fn(u32) -> u64) {
    let there: Vec<u32> = keys.iter().filter_map(|key| cache.peek(key)).map(|v| *v).collect();
    let stats = cache.stats();
    assert_eq!(stats.bytes, there.iter().map(|&value| bytes_of(value)).sum::<u64>());
    assert_eq!(stats.entries, there.len() as u64);
    assert!(stats.bytes <= stats.bytes_max);
    // And no entry without a value stays behind.
    assert_eq!(cache.remove_if(|_| true), there.len());
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.entries), (0, 0));
}
