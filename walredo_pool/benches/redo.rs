//! Records applied in a second by the pool: short and long chains, one by one and many at once.
//!
//! `insert`s of small tuples into a heap page, which is as cheap as redo gets: what is measured is the
//! pool and the pipes as much as PostgreSQL.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::wal::heap_request;
use common::{pool, scratch};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use walredo_pool::PendingRedo;

/// Requests in flight.
const MANY: u32 = 256;

fn redo(criterion: &mut Criterion) {
    let processes = std::thread::available_parallelism().map_or(1, |n| n.get());
    let dir = scratch();
    let pool = pool(dir.path(), processes);
    assert!(pool.wait_ready(Duration::from_secs(60)));
    let mut group = criterion.benchmark_group("redo");
    for records in [2, 100] {
        group.throughput(Throughput::Elements(u64::from(records)));
        group.bench_function(format!("one page of {records} records"), |b| {
            b.iter_batched(
                || heap_request(1, records),
                |request| pool.request_redo(request).unwrap(),
                criterion::BatchSize::SmallInput,
            );
        });
        group.throughput(Throughput::Elements(u64::from(records) * u64::from(MANY)));
        let name = format!("{MANY} pages of {records} records at once, {processes} processes");
        group.bench_function(name, |b| {
            b.iter_batched(
                || (0..MANY).map(|block| heap_request(block, records)).collect::<Vec<_>>(),
                |requests| {
                    let pending: Vec<PendingRedo> =
                        requests.into_iter().map(|request| pool.submit(request)).collect();
                    pending.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, redo);
criterion_main!(benches);
