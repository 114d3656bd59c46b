//! A history of few records, with each kind that changes what a base backup has.

use postgres::Client;
use postgres_testing::Cluster;

use crate::cluster::ClusterExt;
use crate::workload::freeze_everything;

/// What is there already when the history begins. Afterwards no row needs the commit log.
pub fn before(cluster: &Cluster) {
    cluster.each(
        "postgres",
        &[
            "create tablespace old location ''",
            "create table in_old (i int) tablespace old; insert into in_old values (1)",
            "create unlogged table unlogged_before (i int primary key)",
            "create table t (i int primary key, v text)",
            "insert into t select i, 'x' from generate_series(1, 60) i",
            "create table dropped (i int)",
        ],
    );
    freeze_everything(cluster);
}

/// The connection that comes back is in the middle of a transaction.
pub fn stretch(cluster: &Cluster) -> Client {
    multitransactions(cluster, 1..15);
    cluster.each(
        "postgres",
        &[
            "commit prepared 'before'",
            "begin; savepoint a; insert into t values (101, 'a'); savepoint b; \
             insert into t values (102, 'b'); rollback to b; insert into t values (103, 'c'); commit",
            // Subtransactions whose bits are on both sides of the end of a segment.
            "do $$ begin for n in 1..70 loop begin insert into t values (n + 1000, ''); \
             exception when others then null; end; end loop; end $$",
            "begin; insert into in_old values (2); \
             create unlogged table prepared (i int primary key); prepare transaction 'p'",
            "begin; insert into t values (105, 'x'); prepare transaction 'q'",
            "rollback prepared 'q'",
            "create unlogged table u (i int primary key, s serial); insert into u values (1)",
            "begin; create unlogged table gone (i int primary key); rollback",
            "select pg_switch_wal()",
            "select pg_create_restore_point('here')",
            "select pg_backup_start('b', true); insert into t values (106, 'x'); \
             select pg_backup_stop(false)",
            "select pg_logical_emit_message(false, 'x', repeat('x', 20000))",
            // Longer than a segment.
            "select pg_logical_emit_message(true, 'x', repeat('x', 2500000))",
            "vacuum t",
            "delete from t where i > 50",
            "vacuum t",
            "truncate t; insert into t select i, 'again' from generate_series(1, 60) i",
            "alter table u set logged",
            "alter table t set unlogged; alter table t set logged",
            "drop table dropped, unlogged_before",
            "vacuum full pg_class",
            "checkpoint",
            "commit prepared 'p'",
            // Its folder in the tablespace has no record of its own, neither coming nor going.
            "drop table in_old",
            "drop tablespace old",
            "create tablespace new location ''",
            "create table in_new tablespace new as select 1 as i",
            "select pg_replication_origin_create('o')",
            "select pg_replication_origin_advance('o', '1/10')",
            "create database copied strategy file_copy",
        ],
    );
    cluster.each("copied", &["create unlogged table u (i int primary key)"]);
    cluster.each(
        "postgres",
        &[
            "create database again template copied tablespace new strategy file_copy",
            "alter database again set tablespace pg_default",
            "drop database copied",
            "drop database again",
            "drop table in_new",
            "drop tablespace new",
        ],
    );
    let mut unfinished = cluster.connect("postgres");
    unfinished
        .batch_execute("begin; create table unfinished (i int); insert into t values (-1, 'x')")
        .unwrap();
    cluster.each("postgres", &["begin; insert into t values (-2, ''); prepare transaction 'r'"]);
    unfinished
}

pub fn after_crash(cluster: &Cluster) {
    cluster.each(
        "postgres",
        &[
            "insert into t values (-3, 'x')",
            "do $$ begin for n in 1..20 loop insert into t values (n + 2000, ''); commit; \
             end loop; end $$",
            "rollback prepared 'r'",
            "select pg_replication_origin_drop('o')",
        ],
    );
    multitransactions(cluster, 20..25);
    freeze_everything(cluster);
    cluster.each("postgres", &["checkpoint", "drop table t"]);
}

/// One for each of these rows, with two members.
fn multitransactions(cluster: &Cluster, rows: std::ops::Range<i32>) {
    let mut other = cluster.connect("postgres");
    let (first, end) = (rows.start, rows.end);
    let lock = format!("select from t where i >= {first} and i < {end} for key share");
    other.batch_execute(&format!("begin; {lock}")).unwrap();
    cluster.each("postgres", &[&format!("begin; {lock}; savepoint a; update t set v = v; commit")]);
    other.batch_execute("commit").unwrap();
}
