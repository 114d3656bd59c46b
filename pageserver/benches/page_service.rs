//! Pages out of a page server's caches, over its Unix socket: one at a time, and requests sent ahead of the answers.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/service/fixture.rs"]
#[allow(dead_code)]
mod fixture;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fixture::Server;
use pageserver_client::RequestKind;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag};

/// Requests sent ahead, and the pages that each asks for.
const REQUESTS: u32 = 16;
const PAGES: u16 = 32;

fn page_service(criterion: &mut Criterion) {
    let server = Server::start_new();
    let mut main = server.compute("main", None, "");
    main.start();
    server.follow("main", &main);
    main.pgbench(&["-i", "-q", "-s", "1"]);
    let path = main.sql("select pg_relation_filepath('pgbench_accounts')");
    let lsn: Lsn = server.catch_up("main", &main);
    main.stop();
    let numbers: Vec<u32> = path.split('/').skip(1).map(|n| n.parse().unwrap()).collect();
    let fork = ForkNumber::Main;
    let [db, rel] = numbers.try_into().unwrap();
    let rel = RelTag { spc: Oid(1663), db: Oid(db), rel: Oid(rel), fork };
    let mut pages = server.pages("main");
    let blocks = pages.rel_size(rel, lsn).unwrap().unwrap();
    for first in (0..blocks).step_by(usize::from(PAGES)) {
        let count = (blocks - first).min(u32::from(PAGES)) as u16;
        pages.get_pages(rel, BlockNumber(first), count, lsn).unwrap();
    }

    let mut group = criterion.benchmark_group("page service");
    let mut number = 0u32;
    let mut next = |bound: u32| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number % bound
    };
    group.throughput(Throughput::Elements(1));
    group.bench_function("one page", |b| {
        b.iter(|| pages.get_page(rel, BlockNumber(next(blocks)), lsn).unwrap());
    });
    let bytes = u64::from(REQUESTS) * u64::from(PAGES) * BLCKSZ as u64;
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(format!("{REQUESTS} requests for {PAGES} pages each"), |b| {
        b.iter(|| {
            for _ in 0..REQUESTS {
                let first = BlockNumber(next(blocks - u32::from(PAGES)));
                pages.send(lsn, RequestKind::GetPages { rel, first, count: PAGES }).unwrap();
            }
            pages.flush().unwrap();
            for _ in 0..REQUESTS {
                pages.recv().unwrap();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, page_service);
criterion_main!(benches);
