//! A scratch PostgreSQL cluster for tests: its own folder and socket, gone afterwards.
//!
//! PostgreSQL refuses to run as root; then it runs as the account `postgres`.

// Each test file uses its own part of this.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};

/// A cluster; stopped when dropped.
pub struct Cluster {
    bin: PathBuf,
    dir: tempfile::TempDir,
    /// The account to run as: user and group.
    account: Option<(u32, u32)>,
    running: bool,
}

/// The folder with PostgreSQL 15's programs.
fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("ZENITH_PG_BIN") {
        return dir.into();
    }
    let debian = PathBuf::from("/usr/lib/postgresql/15/bin");
    if debian.exists() {
        return debian;
    }
    let output = Command::new("pg_config").arg("--bindir").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}

fn account_of_postgres() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

impl Cluster {
    /// Runs initdb, with page checksums, and appends `settings` to postgresql.conf.
    pub fn init(settings: &str) -> Cluster {
        let dir = tempfile::Builder::new().prefix("zenith-formats-").tempdir().unwrap();
        let account = (fs::metadata(dir.path()).unwrap().uid() == 0).then(account_of_postgres);
        if let Some((uid, gid)) = account {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let cluster = Cluster { bin: bin_dir(), dir, account, running: false };
        let data = cluster.data();
        cluster.run("initdb", &["-k", "-N", "-U", "postgres", "-A", "trust", "-D", str(&data)]);
        let conf = data.join("postgresql.conf");
        let text = format!(
            "{}\nlisten_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n{settings}\n",
            fs::read_to_string(&conf).unwrap(),
            str(cluster.dir.path()),
        );
        cluster.write(&conf, text.as_bytes());
        cluster
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap()
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Runs one of PostgreSQL's programs and returns its output, whatever came of it.
    pub fn try_run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(self.bin.join(program));
        command.args(args).current_dir(self.dir.path());
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command.output().unwrap()
    }

    /// Runs one of PostgreSQL's programs, which must succeed, and returns what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.try_run(program, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {stderr}\n{}", self.log_tail());
        String::from_utf8(output.stdout).unwrap()
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Starts the server and waits until it accepts connections.
    pub fn start(&mut self) {
        self.running = true;
        let (data, log) = (self.data(), self.log_path());
        self.run("pg_ctl", &["-w", "-s", "-D", str(&data), "-l", str(&log), "start"]);
    }

    /// Stops the server cleanly.
    pub fn stop(&mut self) {
        let data = self.data();
        self.run("pg_ctl", &["-w", "-s", "-m", "fast", "-D", str(&data), "stop"]);
        self.running = false;
    }

    /// Runs SQL and returns the rows, columns separated by `|`.
    pub fn sql(&self, sql: &str) -> String {
        let args = ["-h", str(self.dir.path()), "-U", "postgres", "-XAtq"];
        let more = ["-v", "ON_ERROR_STOP=1", "-c", sql, "postgres"];
        self.run("psql", &[&args[..], &more[..]].concat()).trim().to_owned()
    }

    /// Runs pgbench with these arguments besides those to connect.
    pub fn pgbench(&self, args: &[&str]) {
        let connect = ["-h", str(self.dir.path()), "-U", "postgres"];
        self.run("pgbench", &[&connect[..], args, &["postgres"]].concat());
    }

    /// Writes a file that the server can read.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        if let Some((uid, gid)) = self.account {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// The decoded control file.
    pub fn control_file(&self) -> ControlFile {
        ControlFile::decode(&fs::read(self.data().join(CONTROL_FILE_PATH)).unwrap()).unwrap()
    }

    /// Names of the WAL segment files, in order.
    pub fn wal_segments(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.data().join("pg_wal"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.len() == 24)
            .collect();
        names.sort();
        names
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            let data = self.data();
            let _ = self.try_run("pg_ctl", &["-s", "-m", "immediate", "-D", str(&data), "stop"]);
        }
    }
}

pub fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}
