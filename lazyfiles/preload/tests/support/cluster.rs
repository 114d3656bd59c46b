//! A data directory and the stock PostgreSQL server on it.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Whom PostgreSQL runs as: the account `postgres` if we are root, which it refuses to be.
#[derive(Clone, Copy)]
pub struct Account(Option<(u32, u32)>);

impl Account {
    pub fn current() -> Account {
        let root = unsafe { libc::geteuid() } == 0;
        Account(root.then(|| {
            let id = |flag| {
                let out = Command::new("id").args([flag, "postgres"]).output().unwrap();
                String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
            };
            (id("-u"), id("-g"))
        }))
    }

    pub fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
        command.env("LC_ALL", "C").current_dir("/");
        command
    }

    /// Makes the account the owner of `path` and all below.
    pub fn give(self, path: &Path) {
        let Some((uid, gid)) = self.0 else { return };
        chown(path, Some(uid), Some(gid)).unwrap();
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.give(&entry.unwrap().path());
            }
        }
    }
}

pub fn postgres_program(name: &str) -> PathBuf {
    let folder = std::env::var_os("ZENITH_PG_BIN").map(PathBuf::from).unwrap_or_else(|| {
        let usual = PathBuf::from("/usr/lib/postgresql/15/bin");
        if usual.is_dir() {
            return usual;
        }
        let out = Command::new("pg_config").arg("--bindir").output().unwrap();
        PathBuf::from(String::from_utf8(out.stdout).unwrap().trim())
    });
    folder.join(name)
}

pub fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap()
}

/// A data directory, and a folder beside it for sockets and logs.
pub struct Cluster {
    pub account: Account,
    pub folder: PathBuf,
    pub pgdata: PathBuf,
}

impl Cluster {
    /// The cluster in `folder`, which may be yet to be filled.
    pub fn at(folder: &Path) -> Cluster {
        fs::create_dir_all(folder).unwrap();
        let cluster = Cluster {
            account: Account::current(),
            folder: folder.to_owned(),
            pgdata: folder.join("pgdata"),
        };
        cluster.account.give(folder);
        cluster
    }

    pub fn initdb(folder: &Path) -> Cluster {
        let cluster = Cluster::at(folder);
        let mut initdb = cluster.account.command(postgres_program("initdb"));
        initdb.args(["--no-sync", "-k", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-D"]);
        succeed(initdb.arg(&cluster.pgdata));
        cluster
    }

    /// A full copy in `folder`.
    pub fn copy_to(&self, folder: &Path) -> Cluster {
        let copy = Cluster::at(folder);
        succeed(Command::new("cp").arg("-a").arg(&self.pgdata).arg(&copy.pgdata));
        copy
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts a server with these settings and environment, and waits until it accepts sessions.
    pub fn start(&self, settings: &[&str], environment: &[(String, String)]) -> Server {
        let server = self.spawn(settings, environment);
        server.wait_until_ready();
        server
    }

    pub fn spawn(&self, settings: &[&str], environment: &[(String, String)]) -> Server {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log"));
        let log = log.unwrap();
        let mut command = self.account.command(postgres_program("postgres"));
        command.arg("-D").arg(&self.pgdata).arg("-k").arg(&self.folder);
        command.args(["-c", "listen_addresses=", "-c", "autovacuum_naptime=1s"]);
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Server {
            child: command.spawn().unwrap(),
            account: self.account,
            folder: self.folder.clone(),
        }
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    account: Account,
    folder: PathBuf,
}

impl Server {
    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.client("psql").arg("-c").arg("select").output().unwrap().status.success() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap();
            assert!(Instant::now() < deadline, "the server does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A client program for this server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.account.command(postgres_program(program));
        command.env("PGHOST", &self.folder).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    }

    /// What `sql` gives, or its error.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let mut psql = self.client("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        // Read from a file, each statement is a transaction of its own.
        let mut script = tempfile::tempfile().unwrap();
        script.write_all(sql.as_bytes()).unwrap();
        script.rewind().unwrap();
        let out = psql.stdin(script).output().unwrap();
        if out.status.success() {
            Ok(String::from_utf8(out.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into_owned())
        }
    }

    pub fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).unwrap_or_else(|error| {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            panic!("{sql}: {error}\nlog:\n{log}")
        })
    }

    fn signal(&self, signal: libc::c_int) {
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// A fast shutdown.
    pub fn stop(mut self) {
        self.signal(libc::SIGINT);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the server ended with {status}");
    }

    /// `kill -9` of the postmaster; returns when its children are gone too.
    pub fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let pgdata = self.folder.join("pgdata");
        let is_child = |pid: &Path| fs::read_link(pid.join("cwd")).is_ok_and(|cwd| cwd == pgdata);
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::read_dir("/proc").unwrap().flatten().any(|entry| is_child(&entry.path())) {
            assert!(Instant::now() < deadline, "children outlive the postmaster");
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = fs::remove_file(pgdata.join("postmaster.pid"));
    }

    /// Waits for the end of a server that is expected to end by itself.
    pub fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // An immediate shutdown, which takes the children along.
            self.signal(libc::SIGQUIT);
            let _ = self.child.wait();
        }
    }
}
