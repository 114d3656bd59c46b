//! A stock server on stubs whose base moves while it works, crashes and loses power.
//!
//! The page server's pages at a base are those of a stock server that has recovered to that LSN
//! from the origin's files and the server's own WAL, so that nothing of ours is its own judge.

#![allow(clippy::unwrap_used)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "kill and geteuid in the test's support")]

mod support;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lazyfiles_core::base::BaseLsn;
use postgres_formats::Lsn;
use support::cluster::succeed;
use support::stubs::Origin;
use support::{Cluster, Server};

const TABLES: &[&str] = &[
    "create extension amcheck",
    "create table t (id int primary key, a int, b text) with (fillfactor = 80)",
    "insert into t select n, n % 1000, repeat(md5(n::text), 3) from generate_series(1, 20000) n",
    "create index on t (a); create index on t using hash (b); create index on t using brin (id)",
    "create table cut as select * from t; create index on cut (id)",
    "create table gone as select * from t; vacuum analyze",
];

/// Everything that recovery needs stays in `pg_wal`.
const SETTINGS: &[&str] = &["wal_level=replica", "wal_keep_size=1GB", "checkpoint_timeout=1h"];

const CHECKS: &str = "select count(*), sum(a), sum(hashtext(b)) from t; \
    select count(*), sum(a) from cut; select count(*) from pg_class; \
    select (select sum(abalance) from pgbench_accounts), \
    (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)";

/// The files of a stock server that has recovered to `lsn`, all of them written.
fn recovered(origin: &Origin, wal_of: &Cluster, lsn: Lsn) -> Cluster {
    let cluster = origin.plain(&format!("at-{:X}", lsn.as_u64()));
    fs::write(cluster.pgdata.join("recovery.signal"), "").unwrap();
    cluster.account.give(&cluster.pgdata);
    let restore = format!("restore_command=cp {}/pg_wal/%f %p", wal_of.pgdata.display());
    let target = format!("recovery_target_lsn={lsn}");
    let settings = [
        "fsync=off",
        "hot_standby=off",
        "autovacuum=off",
        "recovery_target_inclusive=off",
        "recovery_target_action=promote",
        &restore,
        &target,
    ];
    // Nobody connects: looking at pages may change them.
    let server = cluster.spawn(&settings, &[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !cluster.log().contains("ready to accept connections") {
        assert!(Instant::now() < deadline, "{}", cluster.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    server.stop();
    cluster
}

/// The end of a record, up to which and a little beyond the server's WAL is durable.
fn durable_end(server: &Server) -> Lsn {
    let lsn = server.psql("select pg_current_wal_insert_lsn()");
    server.psql("select pg_logical_emit_message(true, 'test', 'on')");
    lsn.parse().unwrap()
}

#[test]
fn a_moving_base_loses_nothing_under_load() {
    let origin = Origin::made_by(|cluster| {
        let server = cluster.start(&["fsync=off"], &[]);
        succeed(server.client("pgbench").args(["-i", "-q", "-s", "2"]));
        TABLES.iter().for_each(|sql| drop(server.psql(sql)));
        server.stop();
    });
    let pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    let base = BaseLsn::open(&lazy.base).unwrap();
    for round in 0..3 {
        // Without page images redo relies on every page that it reads.
        let images = if round == 1 { "full_page_writes=off" } else { "full_page_writes=on" };
        let settings = [SETTINGS, &[images]].concat();
        let server = lazy.start(&settings);
        let mut load = server.client("pgbench");
        let load = load.args(["-n", "-c", "2", "-T", "600"]).stdout(Stdio::null());
        let mut load = load.stderr(Stdio::null()).spawn().unwrap();
        server.psql(&format!("update t set a = a + 1 where id % 97 = {round}"));
        match round {
            0 => server.psql("checkpoint; delete from cut where id > 3000; vacuum cut"),
            1 => server.psql("drop table gone; delete from cut where id > 500; vacuum cut"),
            _ => server.psql("create database copied strategy file_copy; vacuum full cut"),
        };
        let lsn = durable_end(&server);
        pages.add(lsn, recovered(&origin, &lazy.cluster, lsn).pgdata);
        base.advance(lsn).unwrap();
        // Then more happens, and pages are read at the new base.
        server.psql("select count(*) from t where a = 7; update t set a = a - 1 where id % 53 = 0");
        server.crash();
        let _ = load.kill();
        load.wait().unwrap();
        if round > 0 {
            lazy.lose_power();
        }
        let server = lazy.start(&settings);
        let found = server.psql(CHECKS);
        let end = durable_end(&server);
        // The same as a stock server that knows only the WAL.
        let stock = recovered(&origin, &lazy.cluster, end);
        succeed(server.client("pg_amcheck").args(["--heapallindexed", "-d", "postgres"]));
        server.stop();
        let stock = stock.start(&["fsync=off", "restore_command="], &[]);
        assert_eq!(found, stock.psql(CHECKS), "round {round}");
    }
    assert!(!lazy.cluster.log().contains("PANIC"), "{}", lazy.cluster.log());
    succeed(lazy.offline("pg_checksums").arg("--check"));
}
