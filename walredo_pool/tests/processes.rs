//! Processes that die, hang, talk too much or cannot be started; and none is left behind.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::wal::{TABLE, control_file, heap_request, is_heap_page};
use common::{bin_dir, config, log, pool, redo_pids, scratch, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres_formats::BlockNumber;
use walredo_pool::{PendingRedo, RedoBatch, RedoError, WalRedoPool, load_poisoned};

fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

fn submit_many(pool: &WalRedoPool, count: u32) -> Vec<(u32, PendingRedo)> {
    (0..count).map(|block| (block, pool.submit(heap_request(block, 100)))).collect()
}

#[test]
fn killed_in_the_middle_of_many_requests() {
    let dir = scratch();
    let pool = pool(dir.path(), 2);
    assert!(pool.wait_ready(Duration::from_secs(60)));
    let mut total = 0;
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            // Far enough apart that no request meets two of them.
            for kill in 1..=5 {
                let before = pool.stats().pages;
                wait_until("some pages are made", || pool.stats().pages >= before + 400);
                for pid in redo_pids(dir.path()) {
                    signal(pid, Signal::SIGKILL);
                }
                wait_until("that is noticed", || pool.stats().deaths >= kill);
            }
        });
        // There is work all the time.
        while !killer.is_finished() {
            for (block, pending) in submit_many(&pool, 1000) {
                assert!(is_heap_page(&pending.wait().unwrap(), block, 100), "block {block}");
            }
            total += 1000;
        }
    });
    let stats = pool.stats();
    assert!(stats.deaths >= 5, "{stats:?}");
    assert_eq!(stats.pages, total);
}

#[test]
fn one_that_dies_while_idle_is_replaced() {
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    assert!(pool.wait_ready(Duration::from_secs(60)));
    signal(redo_pids(dir.path())[0], Signal::SIGKILL);
    wait_until("it is replaced", || pool.stats().starts == 2);
    assert!(is_heap_page(&pool.request_redo(heap_request(1, 5)).unwrap(), 1, 5));
}

/// Bug: an owner that is killed may leave a process that is only just starting, and does not know yet that it has to die
/// with its owner. Before it finds out it locked the data directory of the next owner's process, which had the
/// same name, and that process ended with "lock file postmaster.pid already exists".
#[test]
fn what_an_earlier_owner_left_behind_is_in_nobodys_way() {
    let dir = scratch();
    let work = dir.path().join("walredo");
    drop(pool(dir.path(), 1));
    let mut folders: Vec<_> =
        std::fs::read_dir(&work).unwrap().map(|e| e.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    assert_eq!(folders.len(), 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let _ = std::fs::create_dir(&folders[0]);
                let _ = std::fs::write(folders[0].join("postmaster.pid"), "");
            }
        });
        let pool = pool(dir.path(), 1);
        let is_ready = pool.wait_ready(Duration::from_secs(20));
        over.store(true, Relaxed);
        assert!(is_ready, "{:?}", pool.start_failure());
    });
    // Nor does it stay for ever.
    let _third = pool(dir.path(), 1);
    assert!(!folders[0].exists());
}

#[test]
fn others_take_over_what_a_dead_one_had() {
    let dir = scratch();
    let pool = pool(dir.path(), 2);
    assert!(pool.wait_ready(Duration::from_secs(60)));
    let pids = redo_pids(dir.path());
    // None can be started any more; so what the dead one had is not done by its successor.
    std::fs::remove_file(dir.path().join("zenith_walredo.so")).unwrap();
    signal(pids[0], Signal::SIGSTOP);
    let pending = submit_many(&pool, 500);
    // The other one has done all but what the first one has.
    wait_until("one waits for the other", || pool.stats().pages >= 500 - 32);
    signal(pids[0], Signal::SIGKILL);
    for (block, pending) in pending {
        assert!(is_heap_page(&pending.wait().unwrap(), block, 100), "block {block}");
    }
    assert_eq!((pool.stats().deaths, pool.stats().starts), (1, 2));
    // Beside it there may be a successor that is just finding out that it cannot start.
    assert!(redo_pids(dir.path()).contains(&pids[1]));
}

#[test]
fn idle_ones_are_ended_and_come_back() {
    let dir = scratch();
    let mut config = config(dir.path(), control_file(), 3);
    config.idle_after = Duration::from_millis(50);
    let pool = WalRedoPool::new(config, log()).unwrap();
    wait_until("all are ahead of the first request", || pool.stats().starts == 3);
    wait_until("one is left", || redo_pids(dir.path()).len() == 1);
    // The one that is left has more to do than it can at once.
    let starts = pool.stats().starts;
    signal(redo_pids(dir.path())[0], Signal::SIGSTOP);
    let pending = submit_many(&pool, 500);
    wait_until("others have come", || pool.stats().starts > starts);
    wait_until("they do its work", || pool.stats().pages >= 500 - 32);
    redo_pids(dir.path()).into_iter().for_each(|pid| signal(pid, Signal::SIGCONT));
    for (block, pending) in pending {
        assert!(is_heap_page(&pending.wait().unwrap(), block, 100), "block {block}");
    }
    wait_until("one is left", || pool.processes() == 1 && redo_pids(dir.path()).len() == 1);
    assert!(is_heap_page(&pool.request_redo(heap_request(1, 5)).unwrap(), 1, 5));
    assert_eq!(pool.stats().deaths, 0);
}

#[test]
fn work_ahead_of_demand_is_done_by_idle_ones() {
    let dir = scratch();
    let pool = pool(dir.path(), 2);
    let mut batch = RedoBatch::ahead_of_demand();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let page = |block: u32| (TABLE, BlockNumber(block));
            for block in 0..100u32 {
                let request = heap_request(block, 50);
                batch.submit(
                    &pool,
                    block as usize,
                    page(block),
                    None,
                    request.records.iter().collect(),
                );
            }
            batch.hand_over(&pool);
            std::iter::from_fn(|| batch.take())
                .map(|(block, page)| (block, page.unwrap()))
                .collect()
        });
        for (block, pending) in submit_many(&pool, 500) {
            assert!(is_heap_page(&pending.wait().unwrap(), block, 100), "block {block}");
        }
        let made: Vec<_> = worker.join().unwrap();
        assert_eq!(made.len(), 100);
        assert!(made.iter().all(|(block, page)| is_heap_page(page, *block as u32, 50)));
    });
    assert_eq!(pool.stats().pages, 600);
}

#[test]
fn one_that_hangs_is_killed_and_only_its_request_fails() {
    let dir = scratch();
    let mut config = config(dir.path(), control_file(), 1);
    config.request_timeout = Duration::from_millis(300);
    let pool = WalRedoPool::new(config, log()).unwrap();
    assert!(pool.wait_ready(Duration::from_secs(60)));
    signal(redo_pids(dir.path())[0], Signal::SIGSTOP);

    let mut pending = submit_many(&pool, 20);
    let (_, hung) = pending.remove(0);
    let RedoError::Timeout { saved, .. } = hung.wait().unwrap_err() else {
        panic!("something else than a timeout");
    };
    for (block, pending) in pending {
        assert!(is_heap_page(&pending.wait().unwrap(), block, 100), "block {block}");
    }
    assert_eq!(pool.stats().timeouts, 1);
    let replayed = pool.request_redo(load_poisoned(&saved.unwrap()).unwrap()).unwrap();
    assert!(is_heap_page(&replayed, 0, 100));
}

/// A folder with a program `postgres` that does `first`, then is the real one.
fn wrapped_bin_dir(dir: &Path, first: &str) -> std::path::PathBuf {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let real = bin_dir().join("postgres");
    let script = format!("#!/bin/sh\n{first}\nexec {} \"$@\"\n", real.display());
    std::fs::write(bin.join("postgres"), script).unwrap();
    std::fs::set_permissions(bin.join("postgres"), PermissionsExt::from_mode(0o755)).unwrap();
    bin
}

#[test]
fn a_flood_of_messages_blocks_nobody() {
    let dir = scratch();
    let mut config = config(dir.path(), control_file(), 1);
    // More than any pipe holds, before it is ready and while it works.
    config.postgres_bin_dir = wrapped_bin_dir(
        dir.path(),
        "line=$(printf '%05000d' 0)\n\
         yes \"$line\" | head -c 4000000 >&2\n\
         yes \"$line\" | head -c 40000000 >&2 &",
    );
    let silent = slog::Logger::root(slog::Discard, slog::o!());
    let pool = WalRedoPool::new(config, silent).unwrap();
    for (block, pending) in submit_many(&pool, 500) {
        assert!(is_heap_page(&pending.wait().unwrap(), block, 100), "block {block}");
    }
    assert_eq!(pool.stats().deaths, 0);
}

#[test]
fn one_that_cannot_start_fails_requests_with_the_reason() {
    let dir = scratch();
    let config = config(dir.path(), control_file(), 2);
    std::fs::write(&config.module_path, "no library").unwrap();
    let pool = WalRedoPool::new(config.clone(), log()).unwrap();
    let RedoError::CannotStart { message } = pool.request_redo(heap_request(1, 1)).unwrap_err()
    else {
        panic!("another error");
    };
    assert!(message.contains("zenith_walredo.so"), "{message}");
    assert!(pool.start_failure().is_some_and(|failure| failure.contains("zenith_walredo.so")));

    // It heals by itself.
    std::fs::write(&config.module_path, common::module()).unwrap();
    assert!(pool.wait_ready(Duration::from_secs(60)));
    assert_eq!(pool.start_failure(), None);
    assert!(is_heap_page(&pool.request_redo(heap_request(1, 9)).unwrap(), 1, 9));
}

#[test]
fn a_library_that_cannot_be_loaded_is_named() {
    let dir = scratch();
    let mut config = config(dir.path(), control_file(), 1);
    config.libraries = vec!["no_such_library".to_owned()];
    let pool = WalRedoPool::new(config, log()).unwrap();
    wait_until("the failure is known", || pool.start_failure().is_some());
    let failure = pool.start_failure().unwrap();
    let error = pool.request_redo(heap_request(1, 1)).unwrap_err().to_string();
    for text in [failure, error] {
        let reason = "could not access file \"no_such_library\": No such file";
        assert!(text.contains(reason) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn dropping_the_pool_leaves_no_process_and_no_waiter() {
    let dir = scratch();
    let pool = pool(dir.path(), 2);
    assert!(pool.wait_ready(Duration::from_secs(60)));
    let pids = redo_pids(dir.path());
    assert_eq!(pids.len(), 2);
    // One works, one hangs.
    signal(pids[0], Signal::SIGSTOP);
    let pending = submit_many(&pool, 500);
    drop(pool);
    assert_eq!(redo_pids(dir.path()), Vec::<i32>::new());
    let mut failed = 0;
    for (block, pending) in pending {
        match pending.wait() {
            Ok(page) => assert!(is_heap_page(&page, block, 100)),
            Err(RedoError::ShuttingDown) => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(failed > 0);
}

#[test]
fn a_work_folder_serves_one_pool() {
    let dir = scratch();
    let config = config(dir.path(), control_file(), 1);
    let pool = WalRedoPool::new(config.clone(), log()).unwrap();
    let second = WalRedoPool::new(config.clone(), log()).err().expect("second pool").to_string();
    assert!(second.contains("in use"), "{second}");
    drop(pool);
    WalRedoPool::new(config, log()).unwrap();
}

#[test]
fn processes_give_up_what_they_do_not_need() {
    let state = |pid: &str, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.map(|value| value.trim().to_owned())
    };
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    assert!(pool.wait_ready(Duration::from_secs(60)));
    let pid = redo_pids(dir.path())[0].to_string();
    assert_eq!(state(&pid, "NoNewPrivs").as_deref(), Some("1"));
    // Kernels without system call filters do not have the line.
    if state("self", "Seccomp").is_some() {
        assert_eq!(state(&pid, "Seccomp").as_deref(), Some("2"));
    }
    if let Some(account) = common::account() {
        let expected = [account.uid; 4].map(|uid| uid.to_string()).join("\t");
        assert_eq!(state(&pid, "Uid"), Some(expected));
    }
}

const OWNER_DIR: &str = "WALREDO_TEST_OWNER_DIR";

/// Not a test: the owner that the next one kills, in a process of its own.
#[test]
#[ignore = "run by processes_end_with_an_owner_that_is_killed"]
fn owner() {
    let Some(dir) = std::env::var_os(OWNER_DIR) else { return };
    let pool = pool(Path::new(&dir), 2);
    assert!(pool.wait_ready(Duration::from_secs(60)));
    std::fs::write(Path::new(&dir).join("ready"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn processes_end_with_an_owner_that_is_killed() {
    let dir = scratch();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "owner"])
        .env(OWNER_DIR, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the owner has its pool", || dir.path().join("ready").exists());
    let pids = redo_pids(dir.path());
    assert_eq!(pids.len(), 2);
    // One that is stopped does not see the end of its input.
    signal(pids[0], Signal::SIGSTOP);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("they are gone", || redo_pids(dir.path()).is_empty());
}
