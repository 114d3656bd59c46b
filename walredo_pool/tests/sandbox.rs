//! What a redo function can do that a record has taken over: asked from inside, by a library whose
//! redo function tries it (`sandbox/intruder.c`).

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::wal::{TABLE, control_file, heap_request, init_record, is_heap_page};
use common::{bin_dir, config, log, redo_pids, scratch};
use nix::errno::Errno;
use postgres_formats::BlockNumber;
use walredo_pool::{RedoRequest, WalRedoPool};

/// Number of the library's resource manager.
const INTRUDER: u8 = 201;

/// What it tries, in its order, and how it is refused.
const ATTEMPTS: [(&str, Errno); 12] = [
    ("open a file", Errno::EPERM),
    ("make a file", Errno::EPERM),
    ("open an internet socket", Errno::EPERM),
    ("open a Unix socket", Errno::EPERM),
    ("copy a descriptor", Errno::EPERM),
    ("fork", Errno::EPERM),
    ("run a program", Errno::EPERM),
    ("send a signal", Errno::EPERM),
    ("trace a process", Errno::EPERM),
    ("change a limit", Errno::EPERM),
    ("remove a file", Errno::EPERM),
    ("take 16 GiB of memory", Errno::ENOMEM),
];

fn intruder(dir: &Path) -> PathBuf {
    let include = Command::new(bin_dir().join("pg_config")).arg("--includedir-server").output();
    let include = String::from_utf8(include.unwrap().stdout).unwrap();
    let library = dir.join("intruder.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-D_GNU_SOURCE", "-I"])
        .arg(include.trim())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/intruder.c"))
        .arg("-o")
        .arg(&library)
        .status();
    assert!(made.expect("run cc").success(), "the library cannot be built");
    library
}

fn limit(pid: i32, name: &str) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn redo_that_was_taken_over_can_do_nothing() {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let has_filters = own.lines().any(|line| line.starts_with("Seccomp:"));
    let dir = scratch();
    let mut config = config(dir.path(), control_file(), 1);
    config.libraries = vec![intruder(dir.path()).to_str().unwrap().to_owned()];
    let pool = WalRedoPool::new(config, log()).unwrap();
    assert!(pool.wait_ready(Duration::from_secs(60)));
    let pid = redo_pids(dir.path())[0];

    let request = || RedoRequest {
        rel: TABLE,
        block: BlockNumber(7),
        base: None,
        records: vec![init_record(INTRUDER, TABLE, 7, 2000)],
    };
    // The first try is not the last.
    for _ in 0..2 {
        let page = pool.request_redo(request()).unwrap();
        let result =
            |n: usize| i32::from_le_bytes(page[24 + 4 * n..28 + 4 * n].try_into().unwrap());
        for (n, (what, refusal)) in ATTEMPTS.into_iter().enumerate() {
            assert_eq!(result(2 * n), 0, "before it serves, it can {what}");
            if has_filters || refusal != Errno::EPERM {
                let after = Errno::from_raw(result(2 * n + 1));
                assert_eq!(after, refusal, "{what}, while it serves");
            }
        }
        let behind = &page[24 + 8 * ATTEMPTS.len()..];
        assert!(behind.iter().all(|byte| *byte == 0), "there are more attempts");
    }
    for name in ["Max core file size", "Max processes", "Max open files", "Max file size"] {
        assert_eq!(limit(pid, name), "0 0", "{name}");
    }

    // It is the same process, and serves on.
    assert_eq!(redo_pids(dir.path()), [pid]);
    assert!(is_heap_page(&pool.request_redo(heap_request(1, 5)).unwrap(), 1, 5));
    assert_eq!(pool.stats().deaths, 0);
}
