//! A PostgreSQL server of the test's own.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postgres_formats::relpath::parse_relation_path;
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, PageImage, RelTag};

use super::{account, bin_dir, scratch};

/// A server that listens only on a socket in its own temporary folder.
pub struct Cluster {
    dir: tempfile::TempDir,
    running: bool,
}

/// Relation pages by name.
pub type Pages = HashMap<(RelTag, BlockNumber), PageImage>;

impl Cluster {
    /// `initdb` with data checksums, and `settings` in postgresql.conf.
    pub fn init(settings: &str) -> Cluster {
        let cluster = Cluster { dir: scratch(), running: false };
        let data = cluster.data();
        run(cluster
            .command("initdb")
            .args(["-U", "postgres", "-k", "-N", "-A", "trust", "-D"])
            .arg(&data));
        let file = data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&file).unwrap();
        let socket = cluster.dir.path().display();
        text.push_str(&format!(
            "\nlisten_addresses = ''\nunix_socket_directories = '{socket}'\nfsync = off\n\
             wal_keep_size = '16GB'\nshared_buffers = '64MB'\nautovacuum = off\n\
             max_prepared_transactions = 5\n{settings}\n"
        ));
        std::fs::write(&file, text).unwrap();
        cluster
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(bin_dir().join(program));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).env("PGHOST", self.dir.path());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        if let Some(account) = account() {
            command.uid(account.uid).gid(account.gid);
        } else {
            command.env("USER", "postgres");
        }
        command
    }

    /// Starts the server and waits until it is there.
    pub fn start(&mut self) {
        let log = self.dir.path().join("server.log");
        run(self
            .command("pg_ctl")
            .args(["start", "-w", "-s", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(log));
        self.running = true;
    }

    /// Stops the server cleanly.
    pub fn stop(&mut self) {
        run(self.command("pg_ctl").args(["stop", "-w", "-s", "-m", "fast", "-D"]).arg(self.data()));
        self.running = false;
    }

    /// Runs SQL and returns what it prints, columns separated by `|`.
    pub fn psql(&self, sql: &str) -> String {
        let mut command = self.command("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let output = command.output().expect("run psql");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql failed: {error}\n{sql}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a script of SQL statements, each in its own transaction.
    pub fn script(&self, sql: &str) {
        let file = self.dir.path().join("script.sql");
        std::fs::write(&file, sql).unwrap();
        run(self.command("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file));
    }

    /// Where the next record will begin.
    pub fn insert_lsn(&self) -> Lsn {
        self.psql("select pg_current_wal_insert_lsn()").parse().unwrap()
    }

    /// All pages of all relation files.
    pub fn pages(&self) -> Pages {
        let mut pages = Pages::new();
        let data = self.data();
        for folder in folders(&data) {
            for entry in std::fs::read_dir(&folder).unwrap().flatten() {
                let path = entry.path();
                let relative = path.strip_prefix(&data).unwrap().to_str().unwrap();
                let Ok(file) = parse_relation_path(relative) else { continue };
                let bytes = std::fs::read(&path).unwrap();
                for (n, page) in bytes.chunks_exact(BLCKSZ).enumerate() {
                    let block = BlockNumber(file.segment * 131_072 + n as u32);
                    pages.insert((file.tag, block), PageImage::from_slice(page).unwrap());
                }
            }
        }
        pages
    }
}

fn folders(data: &Path) -> Vec<PathBuf> {
    let mut folders = vec![data.join("global")];
    for entry in std::fs::read_dir(data.join("base")).unwrap().flatten() {
        folders.push(entry.path());
    }
    folders
}

fn run(command: &mut Command) {
    let output = command.output().expect("run a PostgreSQL program");
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            let mut command = self.command("pg_ctl");
            command.args(["stop", "-s", "-w", "-m", "immediate", "-D"]).arg(self.data());
            let _ = command.status();
        }
    }
}
