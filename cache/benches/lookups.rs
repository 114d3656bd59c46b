//! What a lookup costs: a hit by one thread and by several, a value made, and one made in place of another.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use cache::{Cache, Lookup};
use criterion::{Criterion, criterion_group, criterion_main};

const KEYS: u64 = 10_000;
const BYTES: u64 = 8192;

fn full() -> Cache<u64, [u8; 64]> {
    let cache = Cache::new(KEYS * BYTES);
    (0..KEYS).for_each(|key| put(&cache, key));
    cache
}

fn put(cache: &Cache<u64, [u8; 64]>, key: u64) {
    if let Lookup::Make(guard) = cache.lookup(key) {
        guard.fill([7; 64], BYTES);
    }
}

/// Numbers without a pattern.
fn next(number: &mut u64) -> u64 {
    *number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *number >> 33
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    let cache = full();
    let mut number = 1;
    group.bench_function("hit", |b| b.iter(|| black_box(cache.peek(&(next(&mut number) % KEYS)))));
    for others in [1, 3] {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..others {
                let (cache, over) = (&cache, &over);
                scope.spawn(move || {
                    let mut number = n;
                    while !over.load(Relaxed) {
                        black_box(cache.peek(&(next(&mut number) % KEYS)));
                    }
                });
            }
            group.bench_function(format!("hit beside {others} more threads"), |b| {
                b.iter(|| black_box(cache.peek(&(next(&mut number) % KEYS))));
            });
            over.store(true, Relaxed);
        });
    }
    group.bench_function("no such key", |b| {
        b.iter(|| black_box(cache.peek(&(KEYS + next(&mut number)))));
    });
    // Each drops another one.
    let mut key = KEYS;
    group.bench_function("make in a full cache", |b| {
        b.iter(|| {
            key += 1;
            put(&cache, key);
        });
    });
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
