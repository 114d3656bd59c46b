//! What the server is made to do.

use std::io::Write;
use std::ops::Range;

use postgres::Client;
use postgres_testing::{Cluster, text};

use crate::cluster::ClusterExt;

/// Every kind of record that needs more than redo of the pages it names. The connection that comes
/// back is in the middle of a transaction.
pub fn everyday(cluster: &Cluster) -> Client {
    visibility(cluster);
    transactions(cluster);
    multitransactions(cluster, 2600);
    truncation(cluster);
    databases(cluster);
    tablespaces(cluster, ["before", "lost_before"]);
    cluster.each("postgres", &["checkpoint"]);
    // These are replayed by the server, too.
    tablespaces(cluster, ["after", "lost_after"]);
    visibility_again(cluster, "postgres");
    // The checkpoint must not be all that knows the counters.
    multitransactions(cluster, 30);
    cluster.each(
        "postgres",
        &["begin; create table prepared (i int); insert into prepared values (1); \
           prepare transaction 'p3'"],
    );
    let mut unfinished = cluster.connect("postgres");
    unfinished
        .batch_execute(
            "begin; create table unfinished (i int); insert into t values (-1, 'x'); savepoint s; \
             insert into t values (-3, 'x')",
        )
        .unwrap();
    // A commit after it brings all of it to disk.
    cluster.each("postgres", &["insert into u values (-4, 'x')"]);
    unfinished
}

pub fn after_crash(cluster: &Cluster) {
    visibility_again(cluster, "copied");
    cluster.each(
        "postgres",
        &["create table after_crash as select generate_series(1, 1000) i", "checkpoint"],
    );
}

/// Bits of the visibility map that every kind of record clears.
fn visibility(cluster: &Cluster) {
    cluster.each(
        "postgres",
        &[
            "create table t (i int primary key, pad text) with (fillfactor = 70)",
            "insert into t select i, repeat('x', 100) from generate_series(1, 20000) i",
            "create table u (i int, pad text)",
            "insert into u select i, repeat('x', 100) from generate_series(1, 5000) i",
            "create unlogged table unlogged (i int primary key)",
            "insert into unlogged select generate_series(1, 1000)",
            "vacuum freeze",
            "delete from t where i = 100",
            "update t set pad = 'hot' where i = 1000",
            "update t set i = -i where i = 2000",
            // Too long for the old row's page: the new row goes elsewhere.
            "update u set pad = repeat('y', 4000) where i between 2000 and 2003",
            "insert into u values (5001, 'x')",
            "begin; select from t where i = 3000 for update; commit",
            "begin; select from t where i = 4000 for share; rollback",
            "update t set i = i where i = 5000",
        ],
    );
    // A lock that goes on to the newer version of a row.
    let mut updater = cluster.connect("postgres");
    updater.batch_execute("begin; update u set pad = 'newer' where i = 100").unwrap();
    cluster.each("postgres", &["begin; select from u where i = 100 for key share; commit"]);
    updater.batch_execute("commit").unwrap();
    cluster.each("postgres", &["vacuum freeze t, u"]);
    let mut client = cluster.connect("postgres");
    let mut copy = |sql: &str, rows: Range<i32>| {
        let mut writer = client.copy_in(sql).unwrap();
        for row in rows {
            writeln!(writer, "{row}\tcopied").unwrap();
        }
        writer.finish().unwrap();
    };
    // The last page has room left: rows are added to a page that is all-visible.
    copy("copy u from stdin", 6000..6003);
    copy("copy u from stdin", 7000..9000);
    client.batch_execute("begin; create table frozen (i int, t text)").unwrap();
    let mut writer = client.copy_in("copy frozen from stdin with (freeze)").unwrap();
    writer.write_all(b"1\ta\n2\tb\n").unwrap();
    writer.finish().unwrap();
    client.batch_execute("commit").unwrap();
}

fn visibility_again(cluster: &Cluster, database: &str) {
    cluster.each(
        database,
        &[
            "vacuum freeze t, u",
            "delete from t where i % 1000 = 7",
            "update u set pad = repeat('z', 1000) where i % 500 = 9",
            "begin; select from t where i % 900 = 5 for no key update; commit",
        ],
    );
}

/// Subtransactions over several pages of the commit log, aborts, two-phase commit, drops.
fn transactions(cluster: &Cluster) {
    let subtransactions = |name: &str, end: &str| {
        format!(
            "do $$ begin for i in 1..35000 loop begin insert into {name} values (i); \
             exception when others then null; end; end loop; {end} end $$"
        )
    };
    cluster.each(
        "postgres",
        &[
            "create table s (i int check (i % 10 <> 3)); create table r (i int)",
            &subtransactions("s", ""),
            "begin; create table gone (i int primary key); insert into gone values (1); rollback",
            "create table dropped (i serial, t text); insert into dropped (t) values ('x')",
            "drop table dropped",
            "create table p (i int); create table p_dropped (i int); insert into p_dropped values (1)",
            "begin; savepoint a; insert into p values (1); savepoint b; insert into p values (2); \
             drop table p_dropped; prepare transaction 'p1'",
            "begin; create table p_gone (i int); savepoint a; insert into p_gone values (3); \
             prepare transaction 'p2'",
            "commit prepared 'p1'",
            "rollback prepared 'p2'",
            "begin; savepoint a; insert into p values (5); rollback to a; insert into p values (6); \
             commit",
        ],
    );
    let failing = subtransactions("r", "raise exception 'all in vain';");
    assert!(cluster.connect("postgres").batch_execute(&failing).is_err());
}

/// About `count` multitransactions: 2600 are so many that both their offsets and their members need
/// several pages.
fn multitransactions(cluster: &Cluster, count: u32) {
    let mut other = cluster.connect("postgres");
    let mut third = cluster.connect("postgres");
    other.batch_execute("begin; select from t where i <= 3000 for key share").unwrap();
    third.batch_execute("begin; select from t where i <= 500 for share").unwrap();
    cluster.each(
        "postgres",
        &[&format!(
            "do $$ begin for n in 1..{count} loop begin perform from t where i = n for key share; \
             exception when others then null; end; end loop; end $$"
        )],
    );
    third.batch_execute("commit").unwrap();
    cluster.each("postgres", &["update t set pad = 'multi' where i between 600 and 650"]);
    other.batch_execute("commit").unwrap();
}

fn truncation(cluster: &Cluster) {
    cluster.each(
        "postgres",
        &[
            "create table cut (i int, pad text)",
            "insert into cut select i, repeat('x', 500) from generate_series(1, 6000) i",
            "vacuum freeze cut",
            "delete from cut where i > 1003",
            "vacuum cut",
            "insert into cut select i, 'again' from generate_series(1, 200000) i",
            "create table emptied (i int primary key)",
            "insert into emptied select generate_series(1, 1000)",
            "vacuum freeze emptied",
            "delete from emptied",
            "vacuum emptied",
            "begin; create table t0 (i int); insert into t0 values (1); truncate t0; commit",
        ],
    );
}

fn databases(cluster: &Cluster) {
    cluster.each(
        "postgres",
        &["vacuum full pg_class", "vacuum full pg_database", "create database scratch"],
    );
    cluster.each("scratch", &["create table x as select generate_series(1, 1000) i", "vacuum x"]);
    cluster.each(
        "template1",
        &[
            "create database copied template postgres strategy file_copy",
            "create database logged template postgres strategy wal_log",
            "drop database scratch",
        ],
    );
    visibility_again(cluster, "copied");
    visibility_again(cluster, "logged");
}

/// Everything that makes, fills, empties and drops a tablespace. The second one is gone at the end.
fn tablespaces(cluster: &Cluster, [kept, lost]: [&str; 2]) {
    for name in [kept, lost] {
        let location = cluster.dir().join(name);
        std::fs::create_dir(&location).unwrap();
        postgres_testing::give_to_account(&location);
        let location = text(&location);
        cluster.each("postgres", &[&format!("create tablespace {name} location '{location}'")]);
    }
    let (in_kept, in_lost) = (format!("in_{kept}"), format!("in_{lost}"));
    let each = |database: &str, texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        cluster.each(database, &texts);
    };
    each(
        "postgres",
        &[
            format!(
                "create database {in_kept} template copied tablespace {kept} strategy file_copy"
            ),
            format!("create database {in_lost} tablespace {lost} strategy wal_log"),
        ],
    );
    each(
        &in_lost,
        &[
            format!("create table x tablespace {kept} as select generate_series(1, 1000) i"),
            "create table y as select generate_series(1, 1000) i".to_owned(),
            "vacuum full pg_class".to_owned(),
        ],
    );
    each(
        "postgres",
        &[
            // Two folders in one go, one of which is not the database's home.
            format!("create database copied_{in_lost} template {in_lost} strategy file_copy"),
        ],
    );
    // The folder stays, empty: the server takes it away when the database comes to be at home there.
    each(&in_lost, &["alter table x set tablespace pg_default".to_owned()]);
    each(
        "postgres",
        &[
            format!("create table {kept} tablespace {lost} as select generate_series(1, 3000) i"),
            format!("create index on {kept} (i) tablespace {lost}"),
            format!("alter table {kept} set tablespace {kept}"),
            format!("alter index {kept}_i_idx set tablespace {kept}"),
            format!("begin; create table {lost} (i int) tablespace {lost}; rollback"),
            format!("alter database {in_lost} set tablespace {kept}"),
            format!("alter database copied_{in_lost} set tablespace pg_default"),
            format!("drop tablespace {lost}"),
        ],
    );
    visibility_again(cluster, &in_kept);
}

/// Transactions that commit, some with subtransactions, some prepared first, some replicated.
pub fn commits(cluster: &Cluster, table: &str, count: u32) {
    cluster.each(
        "postgres",
        &[
            &format!("create table {table} (i int)"),
            &format!(
                "do $$ begin for n in 1..{count} loop insert into {table} values (n); commit; \
                 end loop; end $$"
            ),
            &format!(
                "do $$ begin for n in 1..900 loop begin insert into {table} values (n); \
                 exception when others then null; end; end loop; end $$"
            ),
            &format!("begin; insert into {table} values (0); prepare transaction '{table}'"),
            &format!("begin; insert into {table} values (0); rollback"),
            &format!("commit prepared '{table}'"),
            &format!("select pg_replication_origin_create('{table}')"),
            &format!(
                "select pg_replication_origin_session_setup('{table}'); \
                 begin; insert into {table} values (0); savepoint s; \
                 insert into {table} values (0); \
                 select pg_replication_origin_xact_setup('0/ABCD', '2001-02-03 04:05:06+00'); \
                 commit; select pg_replication_origin_session_reset()"
            ),
        ],
    );
}

/// Progress of replication origins by each kind of record; those of `commits` are there.
pub fn origins(cluster: &Cluster) {
    cluster.each(
        "postgres",
        &[
            "create table origins (i int); select pg_replication_origin_create('e')",
            "select pg_replication_origin_advance('e', '2/20')",
            // Backwards as well.
            "select pg_replication_origin_advance('e', '1/10')",
            "select pg_replication_origin_session_setup('b'); \
             begin; select pg_replication_origin_xact_setup('3/30', now()); \
             insert into origins values (1); prepare transaction 'b'; \
             select pg_replication_origin_session_reset()",
            // Not backwards.
            "select pg_replication_origin_session_setup('a'); \
             begin; select pg_replication_origin_xact_setup('0/1', now()); \
             insert into origins values (2); commit; \
             select pg_replication_origin_session_reset()",
            "select pg_replication_origin_session_setup('d'); \
             begin; select pg_replication_origin_xact_setup('4/40', now()); \
             insert into origins values (2); rollback; \
             select pg_replication_origin_session_reset()",
            "select pg_replication_origin_drop('c')",
            "select pg_replication_origin_session_setup('b')",
            "select pg_replication_origin_xact_setup('5/50', now())",
            "commit prepared 'b'",
            "select pg_replication_origin_session_reset()",
        ],
    );
}

/// Leaves no row in any database that depends on the commit log.
pub fn freeze_everything(cluster: &Cluster) {
    cluster.each("postgres", &["alter database template0 allow_connections on"]);
    // The last one again: vacuuming the others has changed a shared catalog.
    for database in ["postgres", "template0", "template1", "postgres"] {
        cluster.each(database, &["vacuum freeze"]);
    }
}

pub fn pass_the_border(cluster: &Cluster) {
    cluster.each(
        "postgres",
        &[
            "create table w (i int primary key)",
            "insert into w select generate_series(1, 1000)",
            "do $$ begin for n in 1..800 loop begin insert into w values (n + 1000); \
             exception when others then null; end; end loop; end $$",
        ],
    );
    let mut other = cluster.connect("postgres");
    other.batch_execute("begin; select from w for key share").unwrap();
    cluster.each(
        "postgres",
        &["do $$ begin for n in 1..300 loop begin perform from w where i = n for key share; \
           exception when others then null; end; end loop; end $$"],
    );
    other.batch_execute("commit").unwrap();
    // One transaction whose subtransactions are on both sides of the border or after it.
    cluster.each(
        "postgres",
        &["do $$ begin for n in 1..2000 loop begin insert into w values (n + 2000); \
           exception when others then null; end; end loop; end $$"],
    );
}
