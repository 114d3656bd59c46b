//! Stock PostgreSQL servers on stubs, filled from a page server, against servers on full copies.

#![allow(clippy::unwrap_used)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "kill and geteuid in the test's support")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::cluster::succeed;
use support::stubs::Origin;

/// Tables and indexes of several kinds, some thousand pages.
const TABLES: &[&str] = &[
    "create extension pg_prewarm; create extension amcheck",
    "create table t (id int primary key, a int, b text, c int[]) with (fillfactor = 80)",
    "insert into t select n, n * 7 % 1000, repeat(md5(n::text), 3), array[n % 10, n % 100] \
     from generate_series(1, 30000) n",
    "create index on t (a); create index on t using hash (b); create index on t using gin (c); \
     create index on t using brin (id); create index on t using gist (int4range(a, a + 10))",
    "create table u as select * from t; create table gone as select * from t",
    "create unlogged table scratch as select generate_series(1, 1000) n",
    "create sequence s; select nextval('s'); delete from t where id % 10 = 0; vacuum t; analyze",
];

/// Statements whose results must be those of a plain server, in this order.
const STATEMENTS: &[&str] = &[
    "set enable_seqscan = off; set enable_indexscan = off; set effective_io_concurrency = 64; \
     select count(*), sum(hashtext(b)) from t where a between 100 and 130",
    "select count(*), sum(id), sum(hashtext(b)) from t",
    "select sum(id) from t where a between 10 and 20",
    "select count(*) from t where c @> array[7, 77]",
    "select count(*) from t where b = repeat(md5('4711'), 3)",
    "select count(*) from t where int4range(a, a + 10) @> 500",
    "set enable_seqscan = off; select id, a from t where id in (1, 299, 15000, 29999)",
    "update t set a = a + 1 where id % 7 = 0",
    "select count(*), sum(a) from t",
    "begin; update t set a = 0; rollback; select sum(a) from t",
    "vacuum full u; select count(*), sum(hashtext(u::text)) from u",
    "truncate gone; select count(*) from gone",
    "insert into gone select * from u where id < 5000; select sum(a) from gone",
    "delete from t where id > 10000; vacuum t; select count(*), sum(a), pg_relation_size('t') from t",
    "insert into t select n, n, 'new', '{}' from generate_series(40001, 45000) n",
    "select count(*), sum(a), pg_relation_size('t') from t",
    "select count(*), sum(n) from scratch",
    "select nextval('s')",
    "create table x as select * from t; create index on x (b); drop table x",
    "reindex table t; cluster t using t_pkey; select count(*), sum(hashtext(t::text)) from t",
    "alter table u alter id type bigint; select sum(id) from u",
    "create database copied template postgres strategy file_copy",
    "create database logged template postgres strategy wal_log",
    "select bt_index_check(c.oid, true) from pg_class c where relkind = 'i' and relam = 403",
    "checkpoint",
    "select count(*), sum(hashtext(t::text)) from t",
];

fn run_all(server: &support::Server) -> Vec<String> {
    STATEMENTS.iter().map(|sql| server.psql(sql)).collect()
}

/// A fingerprint of the tables.
fn fingerprint(server: &support::Server) -> String {
    server.psql(
        "select (select (count(*), sum(hashtext(t::text))) from t), \
         (select (count(*), sum(hashtext(u::text))) from u)",
    )
}

#[test]
fn results_are_those_of_a_plain_server() {
    let origin = Origin::new(TABLES);
    let plain = origin.plain("plain");
    let plain_server = plain.start(&["fsync=off"], &[]);
    let expected = run_all(&plain_server);
    plain_server.stop();

    let pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    let at_first = lazy.bytes_on_disk();
    let server = lazy.start(&[]);
    assert!(at_first < 2 << 20, "the stubs hold {at_first} bytes");
    assert!(pages.pages() < 1000, "{} pages to start", pages.pages());
    for (sql, expected) in STATEMENTS.iter().zip(expected) {
        assert_eq!(server.psql(sql), expected, "{sql}");
    }
    let query = "select count(*), sum(hashtext(t::text)) from t";
    let connected = |database: &str, sql: &str| {
        succeed(server.client("psql").args(["-XAtq", "-d", database, "-c", sql]))
    };
    assert_eq!(connected("copied", query), connected("logged", query));
    server.psql("drop database copied; ");
    let expected = fingerprint(&server);
    server.stop();
    assert!(!lazy.cluster.log().contains("PANIC"), "{}", lazy.cluster.log());

    // All bits that matter are kept by a restart, and every block can be had.
    let server = lazy.start(&[]);
    assert_eq!(fingerprint(&server), expected);
    succeed(server.client("pg_amcheck").args(["--all", "--heapallindexed"]));
    server.stop();
    succeed(&mut lazy.offline("pg_checksums"));
}

#[test]
fn other_readers_of_files_see_whole_files() {
    let origin = Origin::new(TABLES);
    let pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    // Offline, every page has to be fetched to have a good checksum.
    succeed(&mut lazy.offline("pg_checksums"));
    let all = pages.pages();
    assert!(all > 3000, "{all} pages");

    let lazy = origin.lazy("lazy2");
    let server = lazy.start(&["wal_level=replica", "max_wal_senders=2"]);
    for mode in ["prefetch", "read", "buffer"] {
        let blocks = server.psql("select pg_relation_size('t') / 8192");
        assert_eq!(server.psql(&format!("select pg_prewarm('t', '{mode}')")), blocks);
    }
    let backup = lazy.cluster.folder.join("backup");
    let mut base_backup = server.client("pg_basebackup");
    succeed(base_backup.args(["-c", "fast", "-X", "stream", "-D"]).arg(&backup));
    let expected = fingerprint(&server);
    server.stop();
    let restored =
        support::Cluster { pgdata: backup, ..support::Cluster::at(&lazy.cluster.folder) };
    let server = restored.start(&[], &[]);
    assert_eq!(fingerprint(&server), expected);
}

#[test]
fn crashes_lose_nothing() {
    let origin = Origin::new(TABLES);
    let _pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    succeed(lazy.start(&[]).client("pgbench").args(["-i", "-q", "-s", "1"]));
    let balance = "select (select sum(abalance) from pgbench_accounts), \
        (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)";
    for round in 0..4 {
        let server = lazy.start(&["checkpoint_timeout=30s"]);
        let mut bench = server.client("pgbench");
        succeed(bench.args(["-n", "-c", "4", "-t", "50"]));
        if round % 2 == 0 {
            server.psql("checkpoint");
        }
        server.psql(&format!("update t set a = a + 1 where id % 13 = {round}; vacuum t"));
        server.psql(&format!("delete from u where id > {}; vacuum u", 25000 - round * 4000));
        let (balances, tables) = (server.psql(balance), fingerprint(&server));
        server.crash();
        // Every second time the machine goes down with it.
        if round >= 2 {
            let lost = lazy.lose_power();
            assert!(lost > 0, "nothing was at risk");
        }
        let server = lazy.start(&[]);
        assert_eq!(server.psql(balance), balances, "round {round}");
        assert_eq!(fingerprint(&server), tables, "round {round}");
        let sums: Vec<String> = balances.split('|').map(str::to_owned).collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{balances}");
        succeed(server.client("pg_amcheck").args(["--heapallindexed", "-d", "postgres"]));
        server.stop();
    }
    succeed(&mut lazy.offline("pg_checksums"));
}

/// Pages written before a crash of the server may be newer than the last checkpoint and yet older
/// than the one that ends recovery: nothing but the sync of everything with which recovery begins
/// makes them durable.
#[test]
fn a_recovery_makes_durable_what_it_finds() {
    let origin = Origin::new(TABLES);
    let _pages = origin.page_server();
    for method in ["fsync", "syncfs"] {
        let lazy = origin.lazy(method);
        let method = format!("recovery_init_sync_method={method}");
        // Page images in the WAL would make recovery write the pages again.
        let server = lazy.start(&["full_page_writes=off"]);
        // With one megabyte of buffers most of it is written at once.
        server.psql("update t set a = a + 1; update u set a = a + 2; vacuum u");
        let expected = fingerprint(&server);
        server.crash();
        let server = lazy.start(&[&method]);
        server.psql("checkpoint");
        server.crash();
        assert!(lazy.lose_power() > 0);
        let server = lazy.start(&[&method]);
        assert_eq!(fingerprint(&server), expected, "{method}");
        succeed(server.client("pg_amcheck").args(["--heapallindexed", "-d", "postgres"]));
        server.stop();
    }
}

#[test]
fn without_fsync_a_clean_stop_survives_a_reboot() {
    let origin = Origin::new(TABLES);
    let _pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    let server = lazy.start(&[]);
    server.psql("update t set a = a + 1");
    server.psql("alter system set fsync = off");
    server.psql("select pg_reload_conf()");
    server.psql("update u set a = a + 1; truncate gone");
    let expected = fingerprint(&server);
    server.stop();
    // Everything was written by the operating system, but the maps are in their next life.
    lazy.lose_power();
    let server = lazy.start(&["fsync=off"]);
    assert_eq!(fingerprint(&server), expected);
}

#[test]
fn an_unreachable_page_server_fails_queries_and_nothing_else() {
    let origin = Origin::new(TABLES);
    let pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    let server = lazy.start(&[]);
    let local = "select count(*) from generate_series(1, 10)";
    server.psql(local);
    drop(pages);

    let error = server.try_psql("select count(*) from t").unwrap_err();
    assert!(error.contains("Input/output error"), "{error}");
    assert!(lazy.cluster.log().contains("zenith: could not get block"));
    // Whoever wants to leave need not wait.
    let begin = Instant::now();
    let query = "set statement_timeout = 200; select count(*) from t";
    assert!(server.try_psql(query).is_err());
    assert!(begin.elapsed() < Duration::from_millis(1900), "{:?}", begin.elapsed());
    assert_eq!(server.psql(local), "10");

    let _pages = origin.page_server();
    assert_eq!(server.psql("select count(*) from t"), "27000");
    server.stop();
}

#[test]
fn children_of_the_server_are_ordinary_programs() {
    let origin = Origin::new(&["create table t (a int)"]);
    let _pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    let server = lazy.start(&[]);
    let out = lazy.cluster.folder.join("environment");
    server.psql(&format!("copy (select 1) to program 'env > {}'", out.display()));
    let environment = fs::read_to_string(out).unwrap();
    assert!(environment.contains("PATH="), "{environment}");
    assert!(!environment.contains("LD_PRELOAD") && !environment.contains("ZENITH_LAZY"));
}

#[test]
fn a_server_without_settings_does_not_start() {
    let origin = Origin::new(&["create table t (a int)"]);
    let mut lazy = origin.lazy("lazy");
    lazy.environment.retain(|(name, _)| name != lazyfiles_core::settings::BASE);
    let server = lazy.cluster.spawn(&[], &lazy.environment);
    assert!(!server.wait().success());
    let log = lazy.cluster.log();
    assert!(log.contains("ZENITH_LAZY_BASE is not set"), "{log}");
    // A damaged map is not taken for none.
    let lazy = origin.lazy("damaged");
    let _pages = origin.page_server();
    let server = lazy.start(&[]);
    let path = server.psql("select pg_relation_filepath('pg_proc')");
    server.stop();
    fs::write(lazy.maps.join(path), "").unwrap();
    let server = lazy.start(&[]);
    let error = server.try_psql("select count(*) from pg_proc").unwrap_err();
    assert!(error.contains("Input/output error"), "{error}");
    assert!(lazy.cluster.log().contains("is damaged"));
}
