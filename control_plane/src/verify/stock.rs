//! The stock server: nothing of ours in it but copies of bytes, unless it begins late (`crashed`).
//!
//! It finds a crashed cluster and recovers as after any crash, which needs no settings of the server
//! that wrote the WAL and ends with a checkpoint that writes all pages. Then it is stopped at once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres_formats::{Lsn, TimelineId};

use super::Watcher;
use super::crashed::{self, Crashed};
use super::scratch::Scratch;
use crate::account::Account;
use crate::error::{Error, IoContext, Result};
use crate::process;
use crate::repository::Repository;

/// How long the server may take to stop when it has been told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(300);

/// Its port, which is part of its socket's name.
pub(super) const PORT: u16 = 5432;

/// A cluster that recovers from the WAL of one timeline.
pub(super) struct StockServer {
    pgdata: PathBuf,
    scratch: PathBuf,
    postgres: PathBuf,
    account: Account,
    log: PathBuf,
    crashed: Crashed,
}

impl StockServer {
    /// Lays out its data directory, with the WAL up to `lsn`. The page server answers from `oldest` on.
    pub fn lay_out(
        repository: &Repository,
        scratch: &Scratch,
        timeline: TimelineId,
        oldest: Lsn,
        lsn: Lsn,
        watcher: &Watcher<'_>,
    ) -> Result<StockServer> {
        let account = repository.account().clone();
        let (pgdata, log) = {
            let _identity = account.enter();
            (scratch.folder("pgdata")?, scratch.path("postgres.log"))
        };
        let crashed =
            crashed::lay_out(repository, scratch, &pgdata, timeline, oldest..lsn, watcher)?;
        let server = StockServer {
            pgdata,
            scratch: scratch.path(""),
            postgres: repository.postgres()?.program("postgres"),
            account,
            log,
            crashed,
        };
        server.configure(&preload_setting(&repository.config().walredo.libraries))?;
        Ok(server)
    }

    /// From where on it recovers; `None`: from the beginning of history.
    pub fn since(&self) -> Option<Lsn> {
        self.crashed.since
    }

    pub fn pgdata(&self) -> &Path {
        &self.pgdata
    }

    /// Settings under which nobody can connect and nothing works on pages but recovery. Commit
    /// timestamps are tracked if they were: else the server would remove them in the end.
    fn configure(&self, preload: &str) -> Result<()> {
        let commit_ts = if self.crashed.tracks_commit_timestamps { "on" } else { "off" };
        let _identity = self.account.enter();
        // In the abstract namespace, since the path of the scratch folder may be too long.
        let socket = format!("@zenith-verify-{:016x}", rand::random::<u64>());
        let settings = format!(
            "listen_addresses = ''\n\
             unix_socket_directories = '{socket}'\n\
             shared_buffers = 256MB\n\
             huge_pages = off\n\
             fsync = off\n\
             autovacuum = off\n\
             bgwriter_lru_maxpages = 0\n\
             max_prepared_transactions = 1000\n\
             track_commit_timestamp = {commit_ts}\n\
             {preload}\
             max_logical_replication_workers = 0\n\
             max_replication_slots = 1000\n\
             max_wal_senders = 0\n\
             wal_level = replica\n\
             max_wal_size = 100GB\n\
             checkpoint_timeout = 1d\n\
             restart_after_crash = off\n\
             logging_collector = off\n\
             lc_messages = 'C'\n"
        );
        for (name, text) in [
            ("postgresql.conf", settings.as_str()),
            ("pg_hba.conf", "local all all reject\n"),
            ("pg_ident.conf", ""),
        ] {
            let path = self.pgdata.join(name);
            fs::write(&path, text).io("write", &path)?;
        }
        Ok(())
    }

    /// Lets it recover, and stops it cleanly.
    pub fn recover(&self, watcher: &Watcher<'_>) -> Result<()> {
        let mut server =
            Guarded(self.spawn(Command::new(&self.postgres).arg("-D").arg(&self.pgdata))?);
        self.wait_ready(&mut server, watcher)?;
        server.signal(Signal::SIGINT);
        let mut status = Ok(None);
        let stopped = process::wait_until(STOP_TIMEOUT, || {
            status = server.0.try_wait();
            !matches!(status, Ok(None))
        });
        match status.io("wait for", &self.postgres)? {
            Some(status) if status.success() => self.check_end(),
            Some(status) => Err(self.ended(status)),
            None => {
                debug_assert!(!stopped);
                Err(Error::Timeout(format!(
                    "the stock server does not stop after {} s",
                    STOP_TIMEOUT.as_secs()
                )))
            }
        }
    }

    /// Starts it once more, for the account of the repository alone, until the value is dropped. It
    /// must have recovered; it changes its files from now on.
    pub fn serve(&self, watcher: &Watcher<'_>) -> Result<Serving> {
        let socket_dir = SocketDir::make(&self.account)?;
        {
            let _identity = self.account.enter();
            let path = self.pgdata.join("pg_hba.conf");
            // Whoever can enter that folder.
            fs::write(&path, "local all all trust\n").io("write", &path)?;
        }
        let mut command = Command::new(&self.postgres);
        command.arg("-D").arg(&self.pgdata).arg("-k").arg(&socket_dir.0);
        command.arg("-p").arg(PORT.to_string());
        let mut server = Guarded(self.spawn(&mut command)?);
        self.wait_ready(&mut server, watcher)?;
        Ok(Serving { _server: server, socket_dir })
    }

    fn wait_ready(&self, server: &mut Guarded, watcher: &Watcher<'_>) -> Result<()> {
        while !self.is_ready() {
            watcher.check()?;
            if let Some(status) = server.0.try_wait().io("wait for", &self.postgres)? {
                return Err(self.ended(status));
            }
            std::thread::sleep(process::POLL_INTERVAL);
        }
        Ok(())
    }

    /// Whether it took in all of the WAL: PostgreSQL takes damage for the end of the WAL, too.
    fn check_end(&self) -> Result<()> {
        let log = self.read_log()?;
        let done = log.lines().find_map(|line| {
            let (_, rest) = line.split_once("redo done at ")?;
            rest.split_whitespace().next()?.parse::<Lsn>().ok()
        });
        let complete = match done {
            Some(done) => done == self.crashed.last_record,
            None => log.contains("redo is not required"),
        };
        if complete {
            return Ok(());
        }
        let done = done.map_or("nowhere".to_owned(), |done| format!("at {done}"));
        Err(failed(
            "the stock server",
            &format!(
                "its recovery ended {done}, and the last record is at {}",
                self.crashed.last_record
            ),
        ))
    }

    /// Runs an SQL command in a database, without any other process. It must be one line.
    pub fn run_sql(&self, database: &std::ffi::OsStr, sql: &str) -> Result<()> {
        let input = self.scratch.join("input.sql");
        {
            let _identity = self.account.enter();
            fs::write(&input, format!("{sql}\n")).io("write", &input)?;
        }
        let mut command = Command::new(&self.postgres);
        // A damaged page is for the comparison to report.
        command.args(["--single", "-c", "ignore_checksum_failure=on", "-D"]);
        command.arg(&self.pgdata).arg(database);
        let opened = File::open(&input).io("open", &input)?;
        let log_start = fs::metadata(&self.log).map(|meta| meta.len()).unwrap_or(0);
        let mut child = Guarded(self.spawn(command.stdin(opened))?);
        let status = child.0.wait().io("wait for", &self.postgres)?;
        // In this mode the exit status says nothing of an error in a command.
        let words = self.log_from(log_start)?;
        if !status.success() || words.contains("ERROR:") {
            return Err(failed(
                "postgres --single",
                process::last_words(&self.log, log_start).as_str(),
            ));
        }
        Ok(())
    }

    /// A path next to the data directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn spawn(&self, command: &mut Command) -> Result<Child> {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("LD_") {
                command.env_remove(&name);
            }
        }
        let log = {
            let _identity = self.account.enter();
            File::options().create(true).append(true).open(&self.log).io("open", &self.log)?
        };
        let again = log.try_clone().io("duplicate", &self.log)?;
        command.current_dir(&self.pgdata).env("LC_ALL", "C").stdout(log).stderr(again);
        if command.get_args().all(|argument| argument != "--single") {
            command.stdin(Stdio::null());
        }
        self.account.apply(command);
        let end_with_parent = || {
            // SAFETY: both calls are async-signal-safe and take no memory. A session of its own keeps
            // the terminal's Ctrl-C from it. After `apply`, since switching accounts resets it.
            unsafe {
                if libc::setsid() < 0
                    || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT as libc::c_ulong) != 0
                {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: the closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(end_with_parent) };
        command.spawn().io("run", &self.postgres)
    }

    /// Whether `postmaster.pid` says that it accepts connections (`LOCK_FILE_LINE_PM_STATUS`).
    fn is_ready(&self) -> bool {
        let text = fs::read_to_string(self.pgdata.join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    }

    fn read_log(&self) -> Result<String> {
        self.log_from(0)
    }

    fn log_from(&self, start: u64) -> Result<String> {
        let bytes = fs::read(&self.log).io("read", &self.log)?;
        let new = usize::try_from(start).ok().and_then(|start| bytes.get(start..));
        Ok(String::from_utf8_lossy(new.unwrap_or_default()).into_owned())
    }

    fn ended(&self, status: ExitStatus) -> Error {
        let signal = status.signal().map(|n| format!(" (signal {n})")).unwrap_or_default();
        let words = process::last_words(&self.log, 0);
        failed("the stock server", &format!("it ended{signal}: {words}"))
    }
}

/// The line of the configuration without which WAL of extensions cannot be recovered.
fn preload_setting(libraries: &[String]) -> String {
    let names: Vec<_> = libraries.iter().map(|name| format!("\"{name}\"")).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("shared_preload_libraries = '{}'\n", names.join(",").replace('\'', "''")),
    }
}

fn failed(program: &str, detail: &str) -> Error {
    Error::Program { program: program.to_owned(), detail: detail.to_owned() }
}

/// A stock server that can be connected to.
pub(super) struct Serving {
    /// Dropped first, for its socket is in the folder.
    _server: Guarded,
    socket_dir: SocketDir,
}

impl Serving {
    /// The folder of its socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir.0
    }
}

/// A folder that only the account can enter, with a path short enough for a socket.
struct SocketDir(PathBuf);

impl SocketDir {
    fn make(account: &Account) -> Result<SocketDir> {
        let _identity = account.enter();
        let name = format!("zenith-verify-{:016x}", rand::random::<u64>());
        let dir = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&dir).io("create", &dir)?;
        Ok(SocketDir(dir))
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that does not outlive this value.
struct Guarded(Child);

impl Guarded {
    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(Signal::SIGQUIT);
            let gone = process::wait_until(STOP_TIMEOUT, || !matches!(self.0.try_wait(), Ok(None)));
            if !gone {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
    }
}
