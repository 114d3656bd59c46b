//! The commit log, multitransactions, visibility maps and directories that we derive from the WAL
//! of a real server, against that server's own files after a clean stop; and the checkpoint state
//! against its checkpoint records, above all the one that a crash recovery ends with, because it
//! has the counters that PostgreSQL itself derived from the same WAL.

#![allow(clippy::unwrap_used)]

mod base_backups;
mod cluster;
mod replay;
mod small_workload;
#[path = "../stock/mod.rs"]
mod stock;
mod unpacked;
mod workload;

use cluster::ClusterExt;
use postgres_formats::SlruKind;
use postgres_formats::checkpoint::CheckPoint;
use postgres_formats::wal::rmgr;
use postgres_testing::{Cluster, text};
use replay::Storage;

/// A server that logs no more than it must: no image hides a bit that we fail to clear.
#[test]
fn everyday_and_crash_without_images() {
    let cluster = cluster::init("full_page_writes = off\nwal_log_hints = off\n");
    cluster.run("pg_checksums", &["--disable", "-D", text(&cluster.data_dir())]);
    everyday_and_crash(cluster);
}

/// The same with checksums, where maps and hint bits bring page images with them.
#[test]
fn everyday_and_crash_with_images() {
    let settings = "wal_compression = on\nwal_level = logical\ntrack_commit_timestamp = on\n";
    everyday_and_crash(cluster::init(settings));
}

fn everyday_and_crash(mut cluster: Cluster) {
    let mut storage = Storage::load(cluster.data_dir());

    cluster.start();
    let unfinished = workload::everyday(&cluster);
    cluster.crash();
    drop(unfinished);
    cluster.start();
    workload::after_crash(&cluster);
    cluster.stop();

    storage.replay(cluster.data_dir());
    assert_eq!(storage.differences(cluster.data_dir()), Vec::<String>::new());

    // What recovery found out by replaying is what we found out by observing.
    let [recovered, stopped] = &storage.shutdowns[..] else {
        panic!("{} shutdown checkpoints", storage.shutdowns.len())
    };
    assert_eq!(recovered.before.next_xid, recovered.record.next_xid);
    assert_eq!(recovered.before.next_oid, recovered.record.next_oid);
    for shutdown in [recovered, stopped] {
        let (before, record) = (&shutdown.before, &shutdown.record);
        assert_eq!(before.next_xid, record.next_xid);
        assert_eq!(before.next_multi, record.next_multi);
        assert_eq!(before.next_multi_offset, record.next_multi_offset);
        assert_eq!(before.full_page_writes, record.full_page_writes);
        assert_eq!(before.newest_commit_ts_xid, record.newest_commit_ts_xid);
        assert!(!record.oldest_commit_ts_xid.precedes(before.oldest_commit_ts_xid));
        assert!(!record.oldest_xid.precedes(before.oldest_xid));
        assert!(!record.oldest_multi.precedes(before.oldest_multi));
        // Prefetched: ahead of the truth by at most one batch.
        assert!((0..=8192).contains(&before.next_oid.0.wrapping_sub(record.next_oid.0)));
    }

    // The workload did what it is for.
    let native_kinds = [
        (rmgr::HEAP, rmgr::heap::INSERT),
        (rmgr::HEAP, rmgr::heap::DELETE),
        (rmgr::HEAP, rmgr::heap::UPDATE),
        (rmgr::HEAP, rmgr::heap::HOT_UPDATE),
        (rmgr::HEAP, rmgr::heap::LOCK),
        (rmgr::HEAP2, rmgr::heap2::MULTI_INSERT),
        (rmgr::SMGR, rmgr::smgr::TRUNCATE),
        (rmgr::CLOG, rmgr::clog::ZEROPAGE),
        (rmgr::MULTIXACT, rmgr::multixact::ZERO_OFF_PAGE),
        (rmgr::MULTIXACT, rmgr::multixact::ZERO_MEM_PAGE),
        (rmgr::MULTIXACT, rmgr::multixact::CREATE_ID),
        (rmgr::XACT, rmgr::xact::COMMIT),
        (rmgr::XACT, rmgr::xact::ABORT),
        (rmgr::XACT, rmgr::xact::COMMIT_PREPARED),
        (rmgr::XACT, rmgr::xact::ABORT_PREPARED),
    ];
    for kind in native_kinds {
        assert!(storage.native_kinds.contains(&kind), "no native page of {kind:#04x?}");
    }
    for kind in [
        "DbCopy",
        "DbCreate",
        "DbDrop",
        "RelMap",
        "TwoPhasePrepare",
        "RelDrop",
        "TablespaceCreate",
        "TablespaceDrop",
    ] {
        assert!(storage.change_kinds.contains(kind), "no {kind}");
    }
}

/// Commit timestamps that are tracked, no longer, and again, with a crash each time right after the
/// server has told so; and other parameters that change.
#[test]
fn parameters_and_commit_timestamps() {
    let mut cluster = cluster::init("track_commit_timestamp = on\n");
    let mut storage = Storage::load(cluster.data_dir());
    cluster.start();
    workload::commits(&cluster, "a", 2000);
    cluster.each("postgres", &["checkpoint"]);
    cluster.configure("max_connections = 55\n");
    cluster.crash();
    cluster.start();
    workload::commits(&cluster, "b", 1000);
    cluster.configure("track_commit_timestamp = off\nwal_level = logical\n");
    cluster.crash();
    cluster.start();
    workload::commits(&cluster, "c", 1000);
    // Without it recovery would begin with counters of before, and PostgreSQL would take them over.
    cluster.each("postgres", &["checkpoint"]);
    cluster.configure("track_commit_timestamp = on\nwal_log_hints = on\n");
    cluster.crash();
    // Two starts with nothing between them but a crash: pg_control is ahead of its checkpoint.
    cluster.start();
    cluster.crash();
    cluster.start();
    workload::commits(&cluster, "d", 2000);
    workload::origins(&cluster);
    cluster.stop();

    storage.replay(cluster.data_dir());
    assert_eq!(storage.differences(cluster.data_dir()), Vec::<String>::new());
    for kind in
        [(rmgr::COMMIT_TS, rmgr::commit_ts::ZEROPAGE), (rmgr::XLOG, rmgr::xlog::PARAMETER_CHANGE)]
    {
        assert!(storage.native_kinds.contains(&kind), "no native page of {kind:#04x?}");
    }
    for kind in ["OriginProgress", "OriginDrop"] {
        assert!(storage.change_kinds.contains(kind), "no {kind}");
    }
    let last = storage.shutdowns.last().unwrap();
    assert_eq!(last.before.newest_commit_ts_xid, last.record.newest_commit_ts_xid);
    assert_eq!(last.before.oldest_commit_ts_xid, last.record.oldest_commit_ts_xid);
    assert!(last.record.oldest_commit_ts_xid.0 > 4000);
}

/// Transaction ids, multitransaction ids and member numbers that pass 2^32, and the truncation of
/// what came before.
#[test]
fn around_the_wraparound() {
    // Members so shortly before the end that the next multitransaction begins exactly at 0.
    let ids = [1_500_000_000, 3_000_000_000, 4_294_966_000];
    let recovered = around(&ids, 4_294_967_000);
    assert_eq!(recovered.next_xid.epoch(), 1);
    assert!(recovered.next_multi.0 < 1000);
    assert!(recovered.next_multi_offset < 10_000);
}

/// The same for 2^31, from where on numbers look negative, and 0 looks new instead of old.
#[test]
fn around_half_of_all_numbers() {
    let recovered = around(&[1_500_000_000, HALF - 1296], HALF - 296);
    assert!(recovered.next_xid.epoch() == 0 && recovered.next_xid.xid().0 > HALF);
    assert!(recovered.next_multi.0 > HALF);
    assert!(recovered.next_multi_offset > HALF);
}

const HALF: u32 = 1 << 31;

/// Leaps to these transaction ids and as many multitransactions, works around the last, and gives
/// what recovery from a crash found out.
fn around(ids: &[u32], member: u32) -> CheckPoint {
    let mut cluster = cluster::init("full_page_writes = off\ntrack_commit_timestamp = on\n");
    cluster.start();
    workload::freeze_everything(&cluster);
    cluster.stop();
    for &id in ids {
        cluster.reset_ids(id, id + 1200, member);
        cluster.start();
        workload::freeze_everything(&cluster);
        cluster.stop();
    }
    let mut storage = Storage::load(cluster.data_dir());

    cluster.start();
    workload::pass_the_border(&cluster);
    cluster.crash();
    cluster.start();
    workload::freeze_everything(&cluster);
    cluster.stop();

    storage.replay(cluster.data_dir());
    assert_eq!(storage.differences(cluster.data_dir()), Vec::<String>::new());
    let [recovered, stopped] = &storage.shutdowns[..] else {
        panic!("{} shutdown checkpoints", storage.shutdowns.len())
    };
    for shutdown in [recovered, stopped] {
        let (before, record) = (&shutdown.before, &shutdown.record);
        assert_eq!(before.next_xid, record.next_xid);
        assert_eq!(before.next_multi, record.next_multi);
        assert_eq!(before.next_multi_offset, record.next_multi_offset);
        assert!(!record.oldest_xid.precedes(before.oldest_xid));
        assert!(!record.oldest_multi.precedes(before.oldest_multi));
    }
    assert_eq!(recovered.before.next_oid, recovered.record.next_oid);
    for kind in SlruKind::ALL {
        assert!(storage.truncated.contains(&kind), "{kind} was never truncated");
    }
    recovered.record
}
