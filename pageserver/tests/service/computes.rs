//! Computes: made from base backups at any LSN, followed, killed, and followed again.

use std::collections::BTreeMap;
use std::io::Read;

use nix::sys::signal::Signal;
use pageserver_client::PageClientError;
use pageserver_client::protocol::ErrorCode;
use postgres_formats::slru::SlruKind;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag};
use postgres_testing::{Cluster, text};

use crate::fixture::{Server, wait_for};

/// What every kind of file in a base backup is needed for.
const WORK: [&str; 4] = [
    "create table t (id int primary key, v text);
    insert into t select n, repeat('x', n % 300) from generate_series(1, 5000) n;
    create unlogged table u (id int primary key);
    insert into u select generate_series(1, 1000);
    create table s (n int);
    begin; insert into s values (1);
    savepoint a; insert into s values (2); rollback to a;
    savepoint b; insert into s values (3); release b; commit;
    begin; insert into s values (10); prepare transaction 'undecided'",
    "vacuum full pg_class",
    "vacuum analyze t",
    "checkpoint",
];

fn checksums_are_right(cluster: &Cluster) {
    cluster.run("pg_checksums", &["--check", "-D", text(&cluster.data_dir())]);
}

fn insert_lsn(cluster: &Cluster) -> Lsn {
    cluster.sql("select pg_current_wal_insert_lsn()").parse().unwrap()
}

#[test]
fn a_branch_has_what_the_original_has_lost() {
    let server = Server::start_new();
    let settings = "max_prepared_transactions = 5";
    let mut main = server.compute("main", None, settings);
    checksums_are_right(&main);
    main.start();
    server.follow("main", &main);
    for statements in WORK {
        main.sql(statements);
    }
    main.sql("create database d strategy file_copy");
    main.sql("create database w strategy wal_log");
    main.sql_in("d", "create table in_d as select 1 as one");
    let before = insert_lsn(&main);
    main.sql("rollback prepared 'undecided'");
    main.sql("delete from t; drop table s");
    main.sql("drop database d");
    server.catch_up("main", &main);

    // The moment before is as good a name for it: no transaction ended in between.
    let moment = server.value(&format!("timestamp_at main {before}"), "timestamp");
    let at_moment: Lsn = server.value(&format!("lsn_at main {moment}"), "lsn").parse().unwrap();
    assert!(at_moment <= before, "{at_moment} {before}");
    let again = server.value(&format!("timestamp_at main {at_moment}"), "timestamp");
    assert_eq!(again, moment);

    server.row(&format!("branch_create dev main@{before}"));
    let mut dev = server.compute("dev", None, settings);
    checksums_are_right(&dev);
    dev.start();
    assert_eq!(dev.sql("select count(*), sum(length(v)) from t"), "5000|737700");
    assert_eq!(dev.sql("select string_agg(n::text, ',' order by n) from s"), "1,3");
    assert_eq!(dev.sql("select gid from pg_prepared_xacts"), "undecided");
    dev.sql("commit prepared 'undecided'");
    assert_eq!(dev.sql("select max(n) from s"), "10");
    // As after a crash: there, and empty.
    assert_eq!(dev.sql("select count(*) from u"), "0");
    dev.sql("insert into u values (1)");
    assert_eq!(dev.sql_in("d", "select one from in_d"), "1");
    dev.run("pg_amcheck", &["-h", text(dev.dir()), "-U", "postgres", "--install-missing", "-a"]);
    assert_eq!(main.sql("select count(*) from t"), "0");

    // Both go on, on their own.
    server.follow("dev", &dev);
    dev.sql("insert into t values (6000, 'dev')");
    main.sql("insert into t values (7000, 'main')");
    server.catch_up("dev", &dev);
    server.catch_up("main", &main);
    dev.stop();
    // The compute's disk is lost: another one, from what the page server has.
    drop(dev);
    let mut again = server.compute("dev", None, settings);
    again.start();
    assert_eq!(again.sql("select count(*), max(id) from t"), "5001|6000");
    server.follow("dev", &again);
    again.sql("insert into t values (6001, 'again')");
    server.catch_up("dev", &again);
}

#[test]
fn whatever_dies_goes_on_where_it_was() {
    let mut server = Server::start_new();
    let mut main = server.compute("main", None, "");
    main.start();
    server.follow("main", &main);
    main.pgbench(&["-i", "-s", "1", "-q"]);
    std::thread::scope(|scope| {
        let bench = scope.spawn(|| main.pgbench(&["-c", "3", "-T", "4"]));
        for _ in 0..3 {
            // In the middle of the work: once the page server has some more of it.
            let received = server.value("timeline_show main", "received_lsn");
            wait_for("more WAL", || {
                (server.value("timeline_show main", "received_lsn") != received).then_some(())
            });
            server.end(Signal::SIGKILL);
            server.start();
        }
        bench.join().unwrap();
    });
    // It follows by itself, as it did before.
    let end = server.catch_up("main", &main);
    let expected = main.sql("select sum(abalance), count(*) from pgbench_accounts");
    let history = main.sql("select count(*) from pgbench_history");
    let mut copy = server.compute("main", Some(end), "");
    checksums_are_right(&copy);
    copy.start();
    assert_eq!(copy.sql("select sum(abalance), count(*) from pgbench_accounts"), expected);
    assert_eq!(copy.sql("select count(*) from pgbench_history"), history);
    copy.stop();

    // A compute that crashes and recovers.
    main.signal(Signal::SIGQUIT);
    wait_for("the compute's end", || {
        (!main.data_dir().join("postmaster.pid").exists()).then_some(())
    });
    main.start();
    main.sql("insert into pgbench_history (tid) values (-1)");
    server.catch_up("main", &main);

    // A compute that is stopped has handed over everything, its last record included.
    main.stop();
    let control = main.run("pg_controldata", &[text(&main.data_dir())]);
    let line = control.lines().find(|l| l.starts_with("Latest checkpoint location")).unwrap();
    let checkpoint: Lsn = line.split_whitespace().last().unwrap().parse().unwrap();
    let received: Lsn = server.value("timeline_show main", "received_lsn").parse().unwrap();
    assert!(received > checkpoint, "{received} {checkpoint}");
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
    assert!(!server.log().contains("ERRO"), "{}", server.log());
}

#[test]
fn commits_can_wait_for_the_page_server() {
    let mut server = Server::start_new();
    let settings = "synchronous_standby_names = 'zenith_pageserver'\nsynchronous_commit = local";
    let mut main = server.compute("main", None, settings);
    main.start();
    server.follow("main", &main);
    main.sql("create table t (n int)");
    for n in 0..20 {
        main.sql(&format!("set synchronous_commit = on; insert into t values ({n})"));
    }
    // Both lose everything that was not durable.
    assert_eq!(server.end(Signal::SIGKILL), None);
    drop(main);
    server.start();
    let mut again = server.compute("main", None, "");
    again.start();
    assert_eq!(again.sql("select count(*) from t"), "20");
}

#[test]
fn a_server_of_another_cluster_is_refused() {
    let server = Server::start_new();
    let mut stranger = Cluster::init("");
    stranger.start();
    server.follow("main", &stranger);
    let message = wait_for("the refusal", || {
        let row = server.row("compute_list");
        (row.text("state").unwrap() == "broken").then(|| row.text("message").unwrap().to_owned())
    });
    assert!(message.contains("system identifier"), "{message}");
    let in_use = server.try_command("branch_delete main").unwrap_err();
    assert_eq!(in_use.sqlstate().unwrap().code(), "55006");
    server.row("forgetmemaybe main");
    assert!(server.try_command("compute_list").unwrap().is_empty());
}

#[test]
fn page_requests_are_answered_one_by_one() {
    let server = Server::start_new();
    let mut pages = server.pages("main");
    let end: Lsn = server.value("timeline_show main", "last_record_lsn").parse().unwrap();
    // pg_database: shared, mapped, and never elsewhere in a fresh cluster.
    let rel =
        RelTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid(0), rel: Oid(1262), fork: ForkNumber::Main };
    let refused = |result: Result<_, PageClientError>| match result.map(|_: Option<u32>| ()) {
        Err(PageClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(pages.rel_size(rel, end).unwrap(), Some(1));
    let missing = pages.get_page(rel, BlockNumber(1), end).map(|_| None);
    assert_eq!(refused(missing), ErrorCode::NotFound);
    assert_eq!(refused(pages.rel_size(rel, Lsn::new(0x28))), ErrorCode::BelowHorizon);
    let far = end.saturating_add(1 << 30);
    assert_eq!(refused(pages.rel_size(rel, far)), ErrorCode::LsnTimeout);
    // The stream is none the worse for it.
    assert!(!pages.get_page(rel, BlockNumber(0), end).unwrap().is_new());
    assert!(pages.db_size(Oid(5), end).unwrap() > 1 << 20);
    assert_eq!(pages.slru_segment(0, 0, end).unwrap().len(), 8192);
    let absent = RelTag { rel: Oid(99999), ..rel };
    assert_eq!(pages.rel_size(absent, end).unwrap(), None);
}

/// The same pages, whether a base backup has them or lists their files as stubs.
#[test]
fn slrus_can_be_left_out_of_a_base_backup() {
    let server = Server::start_new();
    let base = server.value("timeline_show main", "last_record_lsn");
    let mut whole = BTreeMap::new();
    let mut at_start = BTreeMap::new();
    let mut list = String::new();
    for form in ["", " stubs"] {
        let mut connection = server.connect();
        let tar = connection.copy_out(&format!("basebackup main {base}{form}")).unwrap();
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if let Some(page) = path.strip_prefix("zenith.pages/") {
                at_start.insert(page.to_owned(), bytes);
            } else if path == "zenith.relations" {
                list = String::from_utf8(bytes).unwrap();
            } else if SlruKind::ALL.iter().any(|kind| kind.dir() == folder) && !bytes.is_empty() {
                assert_eq!(form, "", "{path} is no stub");
                whole.insert(path, bytes);
            }
        }
    }
    assert!(whole.contains_key("pg_xact/0000") && whole.contains_key("pg_multixact/offsets/0000"));
    let mut pages = server.pages("main");
    for (path, bytes) in &whole {
        assert!(list.lines().any(|line| line == format!("{path} {}", bytes.len())), "{list}");
        let (folder, _) = path.rsplit_once('/').unwrap();
        let kind = SlruKind::ALL.into_iter().find(|kind| kind.dir() == folder).unwrap() as u8;
        let count = u16::try_from(bytes.len() / BLCKSZ).unwrap();
        let got = pages.get_slru_pages(kind, 0, count, base.parse().unwrap()).unwrap();
        assert_eq!(got, bytes, "{path}");
        assert_eq!(at_start.get(&format!("{path}/0")), Some(&bytes[..BLCKSZ].to_vec()));
    }
    for (kind, first) in [(0, 1000), (9, 0)] {
        let error = pages.get_slru_pages(kind, first, 1, base.parse().unwrap()).unwrap_err();
        assert!(
            matches!(error, PageClientError::Refused { code: ErrorCode::NotFound, .. }),
            "{error}"
        );
    }
}
