//! What the tests share: a PostgreSQL server of their own, the module, a pool, the server's WAL.

#![allow(dead_code, clippy::unwrap_used)]

pub mod cluster;
pub mod wal;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::{User, geteuid};
use walredo_pool::{Account, WalRedoConfig, WalRedoPool};

/// Who runs PostgreSQL: root hands it to `postgres`, everybody else runs it themselves.
pub fn account() -> Option<Account> {
    geteuid().is_root().then(|| {
        let user = User::from_name("postgres").unwrap().expect("account postgres exists");
        Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() }
    })
}

/// Folder of the PostgreSQL programs.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("ZENITH_PG_BIN") {
        return dir.into();
    }
    let debian = Path::new("/usr/lib/postgresql/15/bin");
    if debian.is_dir() {
        return debian.to_owned();
    }
    let output = Command::new("pg_config").arg("--bindir").output().expect("run pg_config");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// The module, built once for all tests of a run.
pub fn module() -> Vec<u8> {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE
        .get_or_init(|| {
            let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("module");
            let config = bin_dir().join("pg_config");
            // Test programs may run at the same time.
            let made = Command::new("flock")
                .arg(out.join("module.lock"))
                .args(["make", "--silent", "-C"])
                .arg(source)
                .arg(format!("OUT={}", out.display()))
                .arg(format!("PG_CONFIG={}", config.display()))
                .stdout(Stdio::null())
                .status()
                .expect("run make");
            assert!(made.success(), "the module cannot be built");
            std::fs::read(out.join("zenith_walredo.so")).unwrap()
        })
        .clone()
}

/// A temporary folder that the PostgreSQL account can use.
pub fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("zenith-walredo-").tempdir().unwrap();
    if let Some(Account { uid, gid }) = account() {
        std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
    }
    dir
}

/// A logger into the test's output, which is shown if the test fails.
pub fn log() -> slog::Logger {
    use slog::Drain;
    let decorator = slog_term::PlainSyncDecorator::new(slog_term::TestStdoutWriter);
    let drain = slog_term::FullFormat::new(decorator).build().fuse();
    slog::Logger::root(drain, slog::o!())
}

/// A pool's configuration with its work folder in `dir`.
pub fn config(dir: &Path, control_file: Vec<u8>, processes: usize) -> WalRedoConfig {
    let module_path = dir.join("zenith_walredo.so");
    std::fs::write(&module_path, module()).unwrap();
    WalRedoConfig {
        postgres_bin_dir: bin_dir(),
        module_path,
        libraries: Vec::new(),
        work_dir: dir.join("walredo"),
        control_file,
        processes,
        processes_min: 1,
        idle_after: Duration::MAX,
        account: account(),
        request_timeout: Duration::from_secs(60),
    }
}

/// A pool for WAL of no particular cluster.
pub fn pool(dir: &Path, processes: usize) -> WalRedoPool {
    WalRedoPool::new(config(dir, wal::control_file(), processes), log()).unwrap()
}

/// The processes that are children of this one and run the program `postgres --single` for `dir`.
pub fn redo_pids(dir: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("--single") && command.contains(dir.to_str().unwrap()) {
            pids.push(pid);
        }
    }
    pids
}

/// Waits until `done`, for a minute at most.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
