//! Commit log and multixacts as stubs: stock servers on them against servers on full copies.

#![allow(clippy::unwrap_used)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "kill and geteuid in the test's support")]

mod support;

use std::fs::{self, File};

use postgres_formats::slru::{CLOG_XACTS_PER_PAGE, SLRU_PAGES_PER_SEGMENT, SlruKind};
use support::cluster::{postgres_program, succeed};
use support::stubs::{LazyCluster, Origin};
use support::{Cluster, Server};

const PAGE: u64 = 8192;

/// Transactions in one segment file of the commit log.
const XIDS_PER_SEGMENT: u32 = CLOG_XACTS_PER_PAGE * SLRU_PAGES_PER_SEGMENT;

const TABLES: &str = "
    create table x (id int, part int) with (autovacuum_enabled = off);
    create table m (id int primary key, v int) with (autovacuum_enabled = off, fillfactor = 40);
    insert into m select n, 0 from generate_series(1, 100) n;
    create extension pg_prewarm;
    -- One transaction per row; every third is rolled back.
    create procedure spend(part int, count int) language plpgsql as $$ begin
        for i in 1..count loop
            begin
                insert into x values (i, part);
                if i % 3 = 0 then raise exception 'undo'; end if;
            exception when raise_exception then null;
            end;
            if i % 1000 = 0 then commit; end if;
        end loop;
    end $$;
    -- One multixact of two members per round.
    create procedure share(count int) language plpgsql as $$ begin
        for i in 1..count loop
            perform 1 from m where id = i % 100 + 1 for key share;
            begin
                update m set v = v + 1 where id = i % 100 + 1;
            exception when raise_exception then null;
            end;
            commit;
        end loop;
    end $$";

/// What depends on the fate of every transaction, and on the times of those that both servers have from
/// the origin. Reads tuples without hint bits.
const RESULTS: &str = "select part, count(*), sum(id) from x group by part order by part; \
    select count(*), sum(v) from m; \
    select count(*), sum(id) from x where pg_xact_status(xmin::text::xid8) = 'committed'; \
    select md5(string_agg(pg_xact_commit_timestamp(xmin)::text, ' ' order by part, id)) from x where part < 9";

/// A cluster whose transactions are spread over several segments of the commit log.
fn origin() -> Origin {
    Origin::made_by(|cluster| {
        let (multi, offset) = (65_536 - 500, 32 * 1636 - 1000);
        skip(cluster, SlruKind::MultixactOffsets, multi, &["-m", &format!("{multi},1")]);
        skip(cluster, SlruKind::MultixactMembers, offset, &["-O", &offset.to_string()]);
        let server = cluster.start(SETTINGS, &[]);
        server.psql(TABLES);
        server.psql("call share(2000)");
        server.stop();
        for part in 1..4 {
            // A little before the end of a page, and once of a segment.
            let next = part * XIDS_PER_SEGMENT - if part == 2 { 1000 } else { 33_500 };
            skip(cluster, SlruKind::Clog, next, &["-x", &next.to_string()]);
            let server = cluster.start(SETTINGS, &[]);
            server.psql(&format!("call spend({part}, 3000)"));
            server.stop();
        }
    })
}

const SETTINGS: &[&str] =
    &["fsync=off", "autovacuum=off", "synchronous_commit=off", "track_commit_timestamp=on"];

/// Makes `next` the next id of its kind, as if all those before it had been spent.
fn skip(cluster: &Cluster, kind: SlruKind, next: u32, reset: &[&str]) {
    let last = kind.page_of(next);
    for segment in 0..=last / SLRU_PAGES_PER_SEGMENT {
        let path = cluster.pgdata.join(kind.segment_path(segment));
        let pages = (last + 1 - segment * SLRU_PAGES_PER_SEGMENT).min(SLRU_PAGES_PER_SEGMENT);
        let file = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        file.set_len(u64::from(pages) * PAGE).unwrap();
        cluster.account.give(&path);
    }
    let mut program = cluster.account.command(postgres_program("pg_resetwal"));
    succeed(program.args(reset).arg("-D").arg(&cluster.pgdata));
}

/// Names and lengths of the files of all SLRUs.
fn files(cluster: &Cluster) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for kind in SlruKind::ALL {
        for entry in fs::read_dir(cluster.pgdata.join(kind.dir())).unwrap().flatten() {
            let name = format!("{kind}/{}", entry.file_name().display());
            found.push((name, entry.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}

/// Spends transactions and multixacts beyond the ends of pages and files.
fn spend_more(server: &Server) {
    server.psql("call spend(9, 34000)");
    server.psql("call share(1000)");
    server.psql("checkpoint");
    server.psql("begin; select count(*) from m; rollback");
}

/// Freezes everything, so that all but the newest files go.
fn freeze(server: &Server) {
    server.psql("update pg_database set datallowconn = true");
    let mut vacuum = server.client("vacuumdb");
    // Quietly, and with few pages of statistics to write.
    succeed(vacuum.env("PGOPTIONS", "-c vacuum_multixact_freeze_min_age=0").args(["-aFq"]));
    server.psql("checkpoint");
}

fn maps(lazy: &LazyCluster) -> usize {
    let folder = lazy.maps.join(SlruKind::Clog.dir());
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn commit_log_and_multixacts_are_those_of_a_plain_server() {
    let origin = origin();
    transactions_have_the_same_fate_as_on_a_plain_server(&origin);
    crashes_and_power_losses_lose_no_transaction(&origin);
}

fn transactions_have_the_same_fate_as_on_a_plain_server(origin: &Origin) {
    let plain = origin.plain("plain");
    let server = plain.start(SETTINGS, &[]);
    let expected = server.psql(RESULTS);
    assert!(expected.contains("1|2000|"), "{expected}");
    for kind in SlruKind::ALL {
        let folder = plain.pgdata.join(kind.dir());
        assert!(fs::read_dir(folder).unwrap().count() >= 2, "one file of {kind}");
    }
    spend_more(&server);
    let expected_later = server.psql(RESULTS);
    freeze(&server);
    let expected_files = files(&plain);
    let expected_frozen = server.psql(RESULTS.split_once("; select count(*), sum(id)").unwrap().0);
    server.stop();

    let pages = origin.page_server();
    let lazy = origin.lazy("lazy");
    let maps_before = maps(&lazy);
    let server = lazy.start(SETTINGS);
    assert!(pages.slru_pages() < 6, "{} pages of SLRUs to start", pages.slru_pages());
    assert_eq!(server.psql(RESULTS), expected);
    let fetched = pages.slru_pages();
    assert!(fetched < 70, "{fetched} pages of SLRUs for one query");
    spend_more(&server);
    assert_eq!(server.psql(RESULTS), expected_later);

    // Readers of whole files: those of the base backup are whole.
    let backup = lazy.cluster.folder.join("backup");
    let mut base_backup = server.client("pg_basebackup");
    succeed(base_backup.args(["-c", "fast", "-X", "stream", "-D"]).arg(&backup));

    freeze(&server);
    assert_eq!(files(&lazy.cluster), expected_files);
    assert!(maps(&lazy) < maps_before, "maps are left behind");
    server.stop();
    let server = lazy.start(SETTINGS);
    assert_eq!(
        server.psql(RESULTS.split_once("; select count(*), sum(id)").unwrap().0),
        expected_frozen
    );
    server.stop();
    assert!(!lazy.cluster.log().contains("PANIC"), "{}", lazy.cluster.log());

    drop(pages);
    let restored = Cluster { pgdata: backup, ..Cluster::at(&lazy.cluster.folder) };
    let server = restored.start(SETTINGS, &[]);
    assert_eq!(server.psql(RESULTS), expected_later);
    server.stop();
}

fn crashes_and_power_losses_lose_no_transaction(origin: &Origin) {
    let _pages = origin.page_server();
    let lazy = origin.lazy("crashing");
    let settings =
        &["autovacuum=off", "synchronous_commit=on", "fsync=on", "track_commit_timestamp=on"];
    for round in 0..3 {
        let server = lazy.start(settings);
        if round > 0 {
            server.psql(RESULTS);
        }
        server.psql(&format!("set synchronous_commit = off; call spend({}, 12000)", 10 + round));
        if round % 2 == 0 {
            server.psql("checkpoint");
        }
        server.psql("set synchronous_commit = off; call share(300)");
        server.psql("insert into x values (1, 99)");
        let sum = "select count(*), sum(id), sum(part) from x; select sum(v) from m";
        let expected = server.psql(sum);
        server.crash();
        if round > 0 {
            lazy.lose_power();
        }
        let server = lazy.start(settings);
        assert_eq!(server.psql(sum), expected, "round {round}");
        if round == 1 {
            freeze(&server);
            server.crash();
            lazy.lose_power();
            let server = lazy.start(settings);
            assert_eq!(server.psql(sum), expected, "after truncation");
            server.stop();
        } else {
            server.stop();
        }
    }
    assert!(!lazy.cluster.log().contains("PANIC"), "{}", lazy.cluster.log());
}
