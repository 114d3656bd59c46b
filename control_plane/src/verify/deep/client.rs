//! PostgreSQL's client programs, run against one of the two servers.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::super::scratch::Scratch;
use crate::error::{Error, IoContext, Result};
use crate::init::SUPERUSER;
use crate::process;
use crate::repository::Repository;

/// Prepared transactions' databases, then what to do in each.
const PREPARED_DATABASES: &str = "select distinct database from pg_prepared_xacts \
     where database ~ '^[^[:cntrl:]]+$'";
const ROLL_BACK: &str = "select format('rollback prepared %L', gid) from pg_prepared_xacts \
     where database = current_database() \\gexec\n";

/// Fails if a program is not there.
pub(super) fn check(repository: &Repository, program: &str, package: &str) -> Result<()> {
    let path = repository.postgres()?.program(program);
    match path.exists() {
        true => Ok(()),
        false => Err(Error::Environment(format!(
            "there is no {}, which a deep verification needs; install the Debian package {package}",
            path.display()
        ))),
    }
}

/// How to reach a server.
pub(super) struct Client<'r> {
    repository: &'r Repository,
    /// In words.
    pub name: &'static str,
    host: PathBuf,
    port: u16,
}

impl<'r> Client<'r> {
    pub fn of_compute(repository: &'r Repository, port: u16) -> Client<'r> {
        Client { repository, name: "compute", host: "127.0.0.1".into(), port }
    }

    pub fn of_stock(repository: &'r Repository, socket_dir: &Path) -> Client<'r> {
        let port = super::super::stock::PORT;
        Client { repository, name: "stock server", host: socket_dir.to_owned(), port }
    }

    /// A program that connects to the server whatever is in our own environment.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.repository.postgres()?.program(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(&name);
            }
        }
        command
            .env("PGHOST", &self.host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        self.repository.account().apply(&mut command);
        Ok(command)
    }

    /// Starts a program; its other words go to a file of that name in the scratch folder.
    pub fn start(&self, command: &mut Command, scratch: &Scratch) -> Result<Started> {
        let program = PathBuf::from(command.get_program());
        let log = scratch.path(&format!("{}.{}", self.name, file_name(&program)));
        {
            let _identity = self.repository.account().enter();
            command.stderr(File::create(&log).io("create", &log)?);
        }
        // SAFETY: the call is async-signal-safe and takes no memory. After `apply`, since switching
        // accounts resets it.
        let end_with_parent = || unsafe {
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(end_with_parent) };
        let child = command.stdout(Stdio::piped()).spawn().io("run", &program)?;
        Ok(Started { child, log, program })
    }

    /// Rolls back all prepared transactions.
    pub fn roll_back_prepared(&self, scratch: &Scratch) -> Result<()> {
        let databases = self.psql(OsStr::new("postgres"), PREPARED_DATABASES, scratch)?;
        for database in databases.lines() {
            self.psql(OsStr::new(database), ROLL_BACK, scratch)?;
        }
        Ok(())
    }

    fn psql(&self, database: &OsStr, script: &str, scratch: &Scratch) -> Result<String> {
        let path = scratch.path("script.sql");
        {
            let _identity = self.repository.account().enter();
            fs::write(&path, script).io("write", &path)?;
        }
        let mut command = self.command("psql")?;
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&path);
        // Not as an argument, where a name may be taken for a connection string.
        process::run_program("psql", command.env("PGDATABASE", database))
    }
}

fn file_name(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A program that runs, and does not outlive this value.
pub(super) struct Started {
    pub child: Child,
    log: PathBuf,
    program: PathBuf,
}

impl Started {
    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().io("wait for", &self.program)
    }

    /// What it said apart from its output.
    pub fn words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Why it failed, in one line.
    pub fn failure(&self, status: ExitStatus) -> String {
        let words = process::last_words(&self.log, 0);
        format!("{} failed: {words} ({status})", file_name(&self.program))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
