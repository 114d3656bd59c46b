//! Real PostgreSQL servers for the tests of the other crates.
//!
//! Everything panics with what went wrong: it is the test that fails then.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails where the unexpected happens")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use tempfile::TempDir;

/// The folder with PostgreSQL's programs.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("ZENITH_PG_BIN") {
        return dir.into();
    }
    let debian = PathBuf::from("/usr/lib/postgresql/15/bin");
    if debian.is_dir() {
        return debian;
    }
    let output = Command::new("pg_config").arg("--bindir").output().expect("PostgreSQL is needed");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// The account (user id, group id) that PostgreSQL has to run as, if that is not our own.
pub fn account() -> Option<(u32, u32)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let name = std::env::var("ZENITH_PG_USER").unwrap_or_else(|_| "postgres".to_owned());
    let user = User::from_name(&name).unwrap().expect("an account to run PostgreSQL as");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// Gives a file or folder to the account that PostgreSQL runs as.
pub fn give_to_account(path: &Path) {
    if let Some((uid, gid)) = account() {
        chown(path, Some(uid.into()), Some(gid.into())).unwrap();
    }
}

/// Puts the WAL redo module into `dir`, where the account can read it, and returns its file. It is
/// built once for all tests of a run.
pub fn redo_module(dir: &Path) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let name = "zenith_walredo.so";
    let build = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../walredo_pool/module");
        // Beside the test programs, so that the next one finds it built.
        let exe = std::env::current_exe().unwrap();
        let out = exe.parent().unwrap().join("redo_module");
        fs::create_dir_all(&out).unwrap();
        // Test programs may run at the same time.
        let made = Command::new("flock")
            .arg(out.join("lock"))
            .args(["make", "--silent", "-C"])
            .arg(source)
            .arg(format!("OUT={}", out.display()))
            .arg(format!("PG_CONFIG={}", bin_dir().join("pg_config").display()))
            .stdout(Stdio::null())
            .status()
            .expect("run make");
        assert!(made.success(), "the redo module cannot be built");
        out.join(name)
    };
    let module = dir.join(name);
    fs::copy(BUILT.get_or_init(build), &module).unwrap();
    module
}

/// A scratch folder that the account can use, gone when dropped.
pub fn scratch_dir(prefix: &str) -> TempDir {
    let dir = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    give_to_account(dir.path());
    dir
}

/// One of PostgreSQL's programs, to be run as the account with a plain environment.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(bin_dir().join(program));
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    // Our own folder may be one that the other account cannot be in.
    command.current_dir("/");
    if let Some((uid, gid)) = account() {
        command.uid(uid).gid(gid);
    }
    command
}

/// A cluster in a scratch folder, reached through a socket in that folder; stopped when dropped.
pub struct Cluster {
    dir: TempDir,
    running: bool,
}

impl Cluster {
    /// Runs initdb, with page checksums, and appends `settings` to postgresql.conf.
    pub fn init(settings: &str) -> Cluster {
        Cluster::init_with(&[], settings)
    }

    /// The same with further arguments for initdb.
    pub fn init_with(more: &[&str], settings: &str) -> Cluster {
        let cluster = Cluster { dir: scratch_dir("zenith-pg-"), running: false };
        let data = cluster.data_dir();
        let args = ["-k", "-N", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-D"];
        cluster.run("initdb", &[&args[..], &[text(&data)], more].concat());
        cluster.configure(&format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n{settings}",
            text(cluster.dir.path()),
        ));
        cluster
    }

    /// A cluster whose data directory the caller makes, at `data_dir`.
    pub fn empty() -> Cluster {
        Cluster { dir: scratch_dir("zenith-pg-"), running: false }
    }

    /// Appends lines to postgresql.conf; a later line overrides an earlier one.
    pub fn configure(&self, settings: &str) {
        let path = self.data_dir().join("postgresql.conf");
        let old = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{old}\n{settings}\n")).unwrap();
    }

    /// The scratch folder, which holds the socket, the data directory and the log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Runs one of PostgreSQL's programs and returns its output, whatever came of it.
    pub fn try_run(&self, program: &str, args: &[&str]) -> Output {
        command(program).args(args).output().unwrap()
    }

    /// Runs one of PostgreSQL's programs, which must succeed, and returns what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.try_run(program, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {stderr}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts the server and waits until it accepts connections.
    pub fn start(&mut self) {
        self.running = true;
        let (data, log) = (self.data_dir(), self.dir.path().join("log"));
        self.run("pg_ctl", &["-w", "-s", "-D", text(&data), "-l", text(&log), "start"]);
    }

    /// Stops the server cleanly.
    pub fn stop(&mut self) {
        let data = self.data_dir();
        self.run("pg_ctl", &["-w", "-s", "-m", "fast", "-D", text(&data), "stop"]);
        self.running = false;
    }

    /// Process id of the running server.
    pub fn pid(&self) -> Pid {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap();
        Pid::from_raw(file.lines().next().unwrap().parse().unwrap())
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Runs SQL in the database `postgres` and returns the rows, columns separated by `|`.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// Runs SQL and returns the rows, columns separated by `|`.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let args = ["-h", text(self.dir.path()), "-U", "postgres", "-XAtq"];
        let more = ["-v", "ON_ERROR_STOP=1", "-c", sql, database];
        self.run("psql", &[&args[..], &more[..]].concat()).trim().to_owned()
    }

    /// Runs pgbench with these arguments besides those to connect.
    pub fn pgbench(&self, args: &[&str]) {
        let connect = ["-h", text(self.dir.path()), "-U", "postgres"];
        self.run("pgbench", &[&connect[..], args, &["postgres"]].concat());
    }

    /// Copies the data directory of the stopped server to `name` in the scratch folder.
    pub fn copy_data_dir(&self, name: &str) -> PathBuf {
        assert!(!self.running, "files of a running server change while they are copied");
        let to = self.dir.path().join(name);
        let copied = Command::new("cp").arg("-a").arg(self.data_dir()).arg(&to).status().unwrap();
        assert!(copied.success());
        to
    }

    /// The WAL segment files, in order.
    pub fn wal_segments(&self) -> Vec<PathBuf> {
        let segment = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 24);
        let entries = fs::read_dir(self.data_dir().join("pg_wal")).unwrap();
        let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).filter(segment).collect();
        paths.sort();
        paths
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            let data = self.data_dir();
            self.try_run("pg_ctl", &["-s", "-w", "-m", "immediate", "-D", text(&data), "stop"]);
        }
    }
}

/// The path as text; scratch folders have plain names.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
