//! What can go wrong while WAL is received, and that it goes on once the cause is mended.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use postgres_formats::Lsn;
use postgres_formats::lsn::WalSegmentSize;
use postgres_testing::{Cluster, give_to_account, text};

use crate::fixture::{Server, wait_for};

/// Waits until the one follower is in `state` with a message, and returns that.
fn failure(server: &Server, state: &str) -> String {
    wait_for(&format!("state {state}"), || {
        let row = server.row("compute_list");
        let message = row.text("message").ok()?.to_owned();
        (row.text("state").unwrap() == state).then_some(message)
    })
}

fn flip_bits(cluster: &Cluster, lsn: Lsn) {
    let size = WalSegmentSize::DEFAULT;
    let name = lsn.segment(size).file_name(1, size);
    let path = cluster.data_dir().join("pg_wal").join(name);
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, lsn.segment_offset(size)).unwrap();
    file.write_all_at(&[byte[0] ^ 0xFF], lsn.segment_offset(size)).unwrap();
}

#[test]
fn damaged_wal_is_named_and_not_taken() {
    let server = Server::start_new();
    let mut main = server.compute("main", None, "");
    main.start();
    server.follow("main", &main);
    let good = server.catch_up("main", &main);
    server.row("forgetmemaybe main");
    main.sql("create table t as select repeat('x', 900) v from generate_series(1, 1000)");
    let damaged = good.saturating_add(100_000);
    flip_bits(&main, damaged);
    server.follow("main", &main);
    let message = failure(&server, "retrying");
    assert!(message.contains("is not valid at 0/"), "{message}");
    // What came before it is still there.
    let last: Lsn = server.value("timeline_show main", "last_record_lsn").parse().unwrap();
    assert!(good <= last && last <= damaged, "{good} {last} {damaged}");
    server.row(&format!("branch_create before main@{good}"));
    server.wait_for_log("ERRO no more WAL is taken in");
    // Whoever asks is told at once where it stands and why.
    let show = server.row("timeline_show main");
    assert_eq!(show.text("state").unwrap(), "stopped");
    assert_eq!(show.text("stopped_lsn").unwrap(), last.to_string());
    let branches = server.try_command("branch_list").unwrap();
    let listed = branches.into_iter().find(|row| row.text("name").unwrap() == "main").unwrap();
    for row in [show, listed, server.row("compute_list")] {
        assert!(row.text("cause").unwrap().contains("is not valid at 0/"));
    }
    assert!(server.value("status", "problems").contains(&last.to_string()));
    let beyond = damaged.saturating_add(100_000);
    let refused = server.try_command(&format!("branch_create behind main@{beyond}"));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(&format!("stopped at {last}")), "{refused}");

    // It goes on by itself.
    flip_bits(&main, damaged);
    server.catch_up("main", &main);
    assert_eq!(server.value("timeline_show main", "state"), "running");
}

#[test]
fn a_lost_slot_is_said_to_be_lost() {
    let server = Server::start_new();
    let settings = "max_slot_wal_keep_size = 1MB\nwal_keep_size = 0\nmax_wal_size = 32MB";
    let mut main = server.compute("main", None, settings);
    main.start();
    server.follow("main", &main);
    server.catch_up("main", &main);
    // It looks for the server elsewhere, and the slot stays behind unused.
    server.row("callmemaybe main 'host=/nowhere'");
    for _ in 0..3 {
        main.sql("create table if not exists t (n int)");
        main.sql("insert into t values (1)");
        main.sql("select pg_switch_wal()");
        main.sql("checkpoint");
    }
    assert_eq!(main.sql("select wal_status from pg_replication_slots"), "lost");
    server.follow("main", &main);
    let message = failure(&server, "retrying");
    assert!(message.contains("has to be made anew"), "{message}");
    // A server that is forgotten need not keep anything.
    server.row("forgetmemaybe main");
    assert_eq!(main.sql("select count(*) from pg_replication_slots"), "0");
}

/// A file system of a fixed size, for as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts one at `path`, whose files it keeps; `None` if this process may not.
    fn mount(path: &Path) -> Option<SmallDisk> {
        let files: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs", text(path)])
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            return None;
        }
        give_to_account(path);
        for (content, path) in files {
            fs::write(&path, content).unwrap();
            give_to_account(&path);
        }
        Some(SmallDisk(path.to_owned()))
    }

    fn grow(&self) {
        let args = ["-o", "remount,size=200m", text(&self.0)];
        assert!(Command::new("mount").args(args).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, for the page server may still be there.
        let _ = Command::new("umount").args(["--lazy", text(&self.0)]).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let mut server = Server::init();
    let timelines = server.repo().join("timelines");
    let timeline = fs::read_dir(timelines).unwrap().next().unwrap().unwrap().path();
    let Some(disk) = SmallDisk::mount(&timeline.join("wal")) else {
        eprintln!("skipped: this account may not mount a file system");
        return;
    };
    server.start();
    let mut main = server.compute("main", None, "");
    main.start();
    server.follow("main", &main);
    let before = server.catch_up("main", &main);
    main.sql("create table t as select repeat('x', 900) v from generate_series(1, 40000)");
    let message = failure(&server, "retrying");
    assert!(message.contains("No space left on device"), "{message}");
    // Readable, and honest about how far it is.
    server.row(&format!("branch_create before main@{before}"));
    let reported: Lsn = main.sql("select restart_lsn from pg_replication_slots").parse().unwrap();
    let flushed: Lsn = server.value("timeline_show main", "flushed_lsn").parse().unwrap();
    assert!(reported <= flushed, "{reported} {flushed}");
    // Each of those who notice says it, some twice; tried again it is ten times a second.
    let lines = server.log().matches("No space left").count();
    assert!(lines <= 6, "said {lines} times");

    disk.grow();
    let end = server.catch_up("main", &main);
    let mut copy = server.compute("main", Some(end), "");
    copy.start();
    assert_eq!(copy.sql("select count(*) from t"), "40000");
}
