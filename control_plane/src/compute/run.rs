//! Starting, stopping and destroying a compute.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postgres_wire::client::{ConnectParams, Host};

use super::layout::{DESTROYING_PREFIX, Layout};
use super::lock_file::{disarm_stale_lock_file, lock_file_says_ready};
use super::{Compute, ComputeState, ComputeStatus, Mode, settings};
use crate::companions;
use crate::control::{Control, ServerAddress};
use crate::error::{Error, IoContext, Result, Thing};
use crate::lock::Lock;
use crate::page_server::{Outcome, StopMode};
use crate::ports;
use crate::process::{self, Running};

/// How long a server may take until it accepts connections; crash recovery counts.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(300);
/// How often a server is started that is killed while we start it.
const START_ATTEMPTS_MAX: u32 = 3;
/// How long the processes of a crashed server may take to notice that their parent is gone.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the port of a server that was killed may take to be free again.
const CRASHED_PORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server that is to be stopped may take to recover from a crash before.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a clean stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an immediate stop may take; PostgreSQL kills its own stragglers after 5 s.
const IMMEDIATE_STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What PostgreSQL says when processes of a crashed server still use its memory.
const ORPHANS_MESSAGE: &str = "pre-existing shared memory block";

impl Compute {
    /// Whether it runs.
    pub fn status(&self) -> ComputeStatus {
        match self.running() {
            None => ComputeStatus { state: ComputeState::Stopped, pid: None },
            Some(running) => {
                let ready = self.accepts_connections(running.pid());
                let state = if ready { ComputeState::Running } else { ComputeState::Busy };
                ComputeStatus { state, pid: Some(running.pid()) }
            }
        }
    }

    /// Starts it and waits until it accepts connections and the page server follows it.
    pub fn start(&self) -> Result<Outcome> {
        let _lock = self.lock()?;
        let compute = self.as_writer()?;
        let mut attempts = 1;
        loop {
            match compute.start_locked() {
                // It was killed a moment ago, or just now.
                Err(_) if attempts < START_ATTEMPTS_MAX && self.has_crashed() => attempts += 1,
                done => return done,
            }
        }
    }

    fn start_locked(&self) -> Result<Outcome> {
        let address = self.repository.server_address()?;
        let socket_dir = socket_dir(&address.unix)?;
        let mut was_killed = false;
        let outcome = match self.running() {
            Some(running) => {
                self.wait_ready(running.pid(), || running.is_alive(), 0)?;
                // A server whose backend was killed recovers, and says "ready" all the while.
                match self.connect_patiently(&socket_dir, START_TIMEOUT) {
                    // Any other answer, such as that all its connections are taken, is one.
                    Ok(_) | Err(Error::PageServer { .. }) => Outcome::AlreadySo,
                    Err(error) => return Err(error),
                }
            }
            None => {
                self.refuse_if_unsettled()?;
                was_killed = self.layout.postmaster_pid().exists();
                self.advance_stopped();
                self.hold_if_possible()?;
                self.fetch_what_starts_read(&address.unix);
                self.spawn_and_wait(&address.unix, &socket_dir)?;
                Outcome::Done
            }
        };
        if self.mode == Mode::ReadWrite {
            let followed = self.have_it_followed(&socket_dir);
            if matches!(followed, Err(Error::Conflict(_))) && outcome == Outcome::Done {
                // Whatever it said to its clients would be lost.
                let _ = self.stop_locked(StopMode::Immediate);
            }
            followed?;
        }
        if was_killed {
            self.advance_running();
        }
        self.settle_in_background()?;
        Ok(outcome)
    }

    /// Whether it was killed while it was serving, and is not running any more.
    fn has_crashed(&self) -> bool {
        self.running().is_none_or(|running| !running.is_alive())
            && fs::read_to_string(self.layout.postmaster_pid())
                .is_ok_and(|text| lock_file_says_ready(&text))
    }

    /// Connects as soon as it lets anybody in, for as long as it runs.
    pub(super) fn connect_patiently(
        &self,
        socket_dir: &Path,
        timeout: Duration,
    ) -> Result<Control> {
        let deadline = Instant::now() + timeout;
        loop {
            let connected = self.control_in(socket_dir);
            let lets_nobody_in = match &connected {
                Err(Error::Connection { .. }) => true,
                // Shutting down, crashed, starting up.
                Err(Error::PageServer { sqlstate, .. }) => sqlstate.starts_with("57P0"),
                _ => false,
            };
            if !lets_nobody_in || self.running().is_none() || Instant::now() >= deadline {
                return connected;
            }
            std::thread::sleep(process::POLL_INTERVAL);
        }
    }

    /// Stops it and waits until it is gone. A clean stop ends only when the page server, if it
    /// follows, has received everything.
    pub fn stop(&self, mode: StopMode) -> Result<Outcome> {
        let _lock = self.lock()?;
        let outcome = self.stop_locked(mode)?;
        if outcome == Outcome::Done && mode == StopMode::Fast {
            self.advance_stopped();
        }
        Ok(outcome)
    }

    fn stop_locked(&self, mode: StopMode) -> Result<Outcome> {
        let Some(running) = self.running() else {
            return Ok(Outcome::AlreadySo);
        };
        let (signal, timeout) = match mode {
            StopMode::Fast => {
                // PostgreSQL 15 waits for ever if it is told to stop while it recovers from the
                // crash of a backend. Whether it can be reached otherwise does not matter here.
                if let Some(address) = ServerAddress::read(self.repository.dir())
                    && let Ok(socket_dir) = socket_dir(&address.unix)
                {
                    let _ = self.connect_patiently(&socket_dir, RECOVERY_TIMEOUT);
                }
                (Signal::SIGINT, STOP_TIMEOUT)
            }
            StopMode::Immediate => (Signal::SIGQUIT, IMMEDIATE_STOP_TIMEOUT),
        };
        running.signal(signal).io("stop the compute in", self.layout.dir())?;
        if !running.wait_gone(timeout) {
            return Err(Error::Timeout(format!(
                "compute {:?} (process {}) still runs {} s after it was told to stop; see {}, or \
                 use --immediate",
                self.name,
                running.pid(),
                timeout.as_secs(),
                self.log().display()
            )));
        }
        Ok(Outcome::Done)
    }

    /// Stops it at once, makes the page server forget it, and removes its directory. What the page
    /// server has received of its changes stays on the branch.
    pub fn destroy(&self) -> Result<()> {
        let _lock = self.lock()?;
        if self.mode == Mode::ReadWrite {
            // Otherwise the page server would for ever look for it, and one day find another
            // server on its port.
            self.stop_writing()?;
        }
        self.stop_locked(StopMode::Immediate)?;
        let _identity = self.repository.account().enter();
        // Under a name that no listing shows, for one half removed must not be taken for whole.
        let name = self.name.trim_start_matches('.');
        let unlisted = format!("{DESTROYING_PREFIX}{name}-{}", self.instance);
        let doomed = self.layout.dir().with_file_name(unlisted);
        fs::rename(self.layout.dir(), &doomed).io("rename", self.layout.dir())?;
        self.remove_doomed(&Layout::at(&doomed));
        Ok(())
    }

    /// Removes what is left of a compute that nobody can use any more: what the page server keeps for it, and its
    /// files. What cannot be removed now is when the next compute is made, or the page server is started: as
    /// long as the lease is there, so is the file that says whose it is.
    pub(super) fn remove_doomed(&self, layout: &Layout) {
        if self.repository.drop_lease(&self.instance).is_ok() {
            let _ = fs::remove_dir_all(layout.dir());
        } else {
            let _ = fs::remove_dir_all(layout.pgdata());
            let _ = fs::remove_dir_all(layout.presence());
        }
    }

    /// A connection to its database `postgres`.
    pub(crate) fn control(&self) -> Result<Control> {
        let socket_dir = socket_dir(&self.repository.server_address()?.unix)?;
        self.control_in(&socket_dir)
    }

    fn control_in(&self, socket_dir: &Path) -> Result<Control> {
        let connstr = self.socket_connstr(socket_dir);
        Control::connect_to(&format!("compute {:?}", self.name), &connstr)
    }

    /// The postmaster, if it runs.
    pub(super) fn running(&self) -> Option<Running> {
        Running::from_pidfile(&self.layout.postmaster_pid(), &self.pgdata())
    }

    /// The compute may have been destroyed before, or while we wait for its lock.
    pub(crate) fn lock(&self) -> Result<Lock> {
        Lock::acquire(self.repository.account(), &self.layout.lock()).map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::NotFound {
                    thing: Thing::Compute,
                    name: self.name.clone(),
                    hint: String::new(),
                }
            }
            other => other,
        })
    }

    fn spawn_and_wait(&self, pageserver: &str, socket_dir: &Path) -> Result<()> {
        // A server that was killed may take a moment to be gone.
        let patience = if self.layout.postmaster_pid().exists() {
            CRASHED_PORT_TIMEOUT
        } else {
            Duration::ZERO
        };
        if !process::wait_until(patience, || ports::is_free(self.port)) {
            return Err(Error::Conflict(format!(
                "port {} of compute {:?} is in use by another program; stop that, or change \
                 `port` in {}",
                self.port,
                self.name,
                self.layout.compute_file().display()
            )));
        }
        let postgres = self.repository.postgres()?;
        companions::install_libraries(
            &self.repository.dir().join("lib"),
            self.repository.account(),
        )?;
        let deadline = Instant::now() + ORPHANS_TIMEOUT;
        loop {
            let log = {
                let _identity = self.repository.account().enter();
                settings::write_forced(self, socket_dir)?;
                self.ensure_base()?;
                let socket_lock = format!(".s.PGSQL.{}.lock", self.port);
                disarm_stale_lock_file(&self.layout.postmaster_pid())?;
                disarm_stale_lock_file(&socket_dir.join(socket_lock))?;
                let path = self.log();
                fs::File::options()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(&path)
                    .io("open", &path)?
            };
            let log_start = log.metadata().map(|meta| meta.len()).unwrap_or(0);
            let mut command = Command::new(postgres.program("postgres"));
            command.arg("-D").arg(self.pgdata()).current_dir(self.layout.dir());
            self.set_environment(&mut command, pageserver);
            let account = self.repository.account();
            let mut child = process::spawn_detached(&mut command, Some(account), log)?;
            match self.wait_ready_child(&mut child, log_start) {
                Err(Error::Program { detail, .. })
                    if detail.contains(ORPHANS_MESSAGE) && Instant::now() < deadline =>
                {
                    std::thread::sleep(process::POLL_INTERVAL);
                }
                other => return other,
            }
        }
    }

    fn wait_ready_child(&self, child: &mut Child, log_start: u64) -> Result<()> {
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let ready = self.wait_ready(pid, || matches!(child.try_wait(), Ok(None)), log_start);
        if matches!(ready, Err(Error::Timeout(_)))
            && let Some(running) = self.running()
        {
            let _ = running.signal(Signal::SIGQUIT);
            running.wait_gone(IMMEDIATE_STOP_TIMEOUT);
        }
        ready
    }

    /// What the server and its library need to know, and nothing that would mislead them.
    fn set_environment(&self, command: &mut Command, pageserver: &str) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("LD_") || text.starts_with("ZENITH_LAZY_")
            {
                command.env_remove(&name);
            }
        }
        command
            .env("LD_PRELOAD", self.repository.library(companions::LAZYFILES))
            .env("ZENITH_LAZY_PAGESERVER", pageserver)
            .env("ZENITH_LAZY_TIMELINE", self.timeline.to_string())
            .env("ZENITH_LAZY_BASE", self.layout.base())
            .env("ZENITH_LAZY_PGDATA", self.pgdata())
            .env("ZENITH_LAZY_PRESENCE", self.layout.presence())
            .env("ZENITH_LAZY_PROFILE", self.start_profile());
        if let Some(writer) = self.writer_id() {
            command.env("ZENITH_LAZY_GENERATION", writer.generation.to_string());
        }
    }

    /// Waits until the postmaster `pid` accepts connections. Gives up at once when `alive` says
    /// that it has ended.
    fn wait_ready(&self, pid: i32, mut alive: impl FnMut() -> bool, log_start: u64) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.accepts_connections(pid) {
            if !alive() {
                return Err(Error::Program {
                    program: format!("postgres of compute {:?}", self.name),
                    detail: format!(
                        "{} (log: {})",
                        process::last_words(&self.log(), log_start),
                        self.log().display()
                    ),
                });
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout(format!(
                    "compute {:?} does not accept connections after {} s; see {}",
                    self.name,
                    START_TIMEOUT.as_secs(),
                    self.log().display()
                )));
            }
            std::thread::sleep(process::POLL_INTERVAL);
        }
        Ok(())
    }

    /// Whether `postmaster.pid` says that the server `pid` accepts connections.
    fn accepts_connections(&self, pid: i32) -> bool {
        let Ok(text) = fs::read_to_string(self.layout.postmaster_pid()) else {
            return false;
        };
        process::parse_pid(&text) == Some(pid) && lock_file_says_ready(&text)
    }
}

/// The folder of the page server's socket, from its connection string; computes put theirs beside.
pub(super) fn socket_dir(connstr: &str) -> Result<PathBuf> {
    let params: Result<ConnectParams, _> = connstr.parse();
    match params.map(|params| params.host) {
        Ok(Host::UnixDirectory(dir)) => Ok(dir),
        _ => Err(Error::Connection {
            what: "page server".to_owned(),
            detail: format!("its address {connstr:?} names no folder of a socket"),
        }),
    }
}
