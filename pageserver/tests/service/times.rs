//! From times to LSNs and back, by what a stock server says of its own commits.

use postgres_formats::{Lsn, Timestamp};
use postgres_testing::Cluster;

use crate::fixture::Server;

/// A transaction that the server has committed.
struct Commit {
    /// When, by `track_commit_timestamp`.
    time: Timestamp,
    /// A position behind it, and behind nothing that follows.
    behind: Lsn,
}

fn utc(cluster: &Cluster, expression: &str) -> Timestamp {
    let format = r#"YYYY-MM-DD"T"HH24:MI:SS.US"Z""#;
    let sql = format!("select to_char(({expression}) at time zone 'utc', '{format}')");
    cluster.sql(&sql).parse().unwrap()
}

fn commit(cluster: &Cluster, sql: &str) -> Commit {
    cluster.sql(sql);
    Commit {
        time: utc(cluster, "(pg_last_committed_xact()).timestamp"),
        behind: cluster.sql("select pg_current_wal_insert_lsn()").parse().unwrap(),
    }
}

/// Just before.
fn before(time: Timestamp) -> Timestamp {
    Timestamp::from_unix_micros(time.as_unix_micros() - 1)
}

#[test]
fn a_time_means_the_state_then() {
    let server = Server::start_new();
    let lsn_at = |branch: &str, time: Timestamp| -> Lsn {
        server.value(&format!("lsn_at {branch} {time}"), "lsn").parse().unwrap()
    };
    let timestamp_at = |branch: &str, lsn: Lsn| -> Timestamp {
        server.value(&format!("timestamp_at {branch} {lsn}"), "timestamp").parse().unwrap()
    };
    let position = |branch: &str, column: &str| -> Lsn {
        server.value(&format!("timeline_show {branch}"), column).parse().unwrap()
    };
    let start = position("main", "oldest_lsn");
    let oldest = timestamp_at("main", start);
    assert_eq!(lsn_at("main", oldest), start, "nothing has ended yet");

    let settings = "track_commit_timestamp = on\nautovacuum = off";
    let mut main = server.compute("main", None, settings);
    main.start();
    server.follow("main", &main);
    let mut commits = vec![commit(&main, "create table t (n int)")];
    commits.extend((1..4).map(|n| commit(&main, &format!("insert into t values ({n})"))));
    let end = server.catch_up("main", &main);

    // Time after time on the first branch.
    assert_eq!(lsn_at("main", before(commits[0].time)), start);
    for pair in commits.windows(2) {
        let [this, next] = pair else { unreachable!() };
        let lsn = lsn_at("main", this.time);
        assert!(lsn <= this.behind, "{lsn} {}", this.behind);
        assert_eq!(lsn_at("main", before(next.time)), lsn);
        assert_eq!(timestamp_at("main", this.behind), this.time);
        assert_eq!(timestamp_at("main", lsn), this.time);
        assert!(lsn_at("main", next.time) > this.behind);
    }
    let last = &commits[3];
    assert!(lsn_at("main", last.time) >= end);
    assert_eq!(lsn_at("main", Timestamp::MAX), position("main", "last_record_lsn"));

    // A branch sees its ancestor's times up to the branch point, and its own.
    server.row(&format!("branch_create dev main@{}", before(commits[2].time)));
    server.row("branch_create late main@-0s");
    assert!(position("late", "start_lsn") >= end);
    let fork = position("dev", "start_lsn");
    assert!(fork > commits[0].behind && fork <= commits[1].behind);
    assert_eq!(lsn_at("dev", commits[0].time), lsn_at("main", commits[0].time));
    for commit in &commits[2..] {
        assert_eq!(lsn_at("dev", commit.time), fork);
    }
    let mut dev = server.compute("dev", None, settings);
    dev.start();
    server.follow("dev", &dev);
    assert_eq!(dev.sql("select string_agg(n::text, ',') from t"), "1");
    let own = [4, 5].map(|n| commit(&dev, &format!("insert into t values ({n})")));
    server.catch_up("dev", &dev);
    assert_eq!(lsn_at("dev", commits[0].time), lsn_at("main", commits[0].time));
    assert_eq!(timestamp_at("dev", fork), commits[1].time);
    assert!(lsn_at("dev", last.time) <= fork);
    assert_eq!(lsn_at("dev", before(own[1].time)), lsn_at("dev", own[0].time));
    assert_eq!(timestamp_at("dev", own[0].behind), own[0].time);

    // The same after everything has been loaded again.
    let known: Vec<Lsn> =
        own.iter().chain(&commits).map(|c| lsn_at("dev", before(c.time))).collect();
    let mut server = server;
    dev.stop();
    assert_eq!(server.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    server.start();
    for (commit, known) in own.iter().chain(&commits).zip(known) {
        let time = before(commit.time);
        let lsn: Lsn = server.value(&format!("lsn_at dev {time}"), "lsn").parse().unwrap();
        assert_eq!(lsn, known);
    }
}
