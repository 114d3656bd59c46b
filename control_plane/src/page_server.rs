//! Starting, stopping and looking at a repository's page server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::companions;
use crate::control::{Control, ServerAddress};
use crate::error::{Error, IoContext, Result};
use crate::lock::Lock;
use crate::ports;
use crate::process::{self, Running};
use crate::repository::Repository;

const PID_FILE: &str = "pageserver.pid";
const LOG_FILE: &str = "pageserver.log";
/// Held while the page server is started or stopped; the page server has a lock of its own.
const LOCK_FILE: &str = "pageserver.start.lock";
const LIB_DIR: &str = "lib";

/// How long a page server may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a page server may take to finish what it does.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the system may take to remove a killed process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What to change when the page server is started.
#[derive(Clone, Default, Debug)]
pub struct StartOptions {
    /// Serve on this TCP port, now and after later starts.
    pub port: Option<u16>,
}

/// How to stop a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StopMode {
    /// Cleanly.
    #[default]
    Fast,
    /// At once, as a crash would.
    Immediate,
}

/// What `status` tells of a page server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerStatus {
    /// The repository's directory.
    pub repository: PathBuf,
    /// The server's process number, if it runs.
    pub pid: Option<i32>,
    /// Where it can be reached, if it runs and serves.
    pub address: Option<ServerAddress>,
    /// Its log.
    pub log: PathBuf,
    /// What it says of itself, as pairs of name and value in its own order; empty if it does not
    /// run or does not answer.
    pub facts: Vec<(String, String)>,
}

/// Whether an operation had anything to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was done now.
    Done,
    /// It had been done before; nothing was changed.
    AlreadySo,
}

impl Repository {
    /// Starts the page server and waits until it serves.
    pub fn start(&mut self, options: &StartOptions) -> Result<Outcome> {
        let _lock = Lock::acquire(self.account(), &self.run_file(LOCK_FILE))?;
        if let Some(running) = self.running_server() {
            if let (Some(port), Some(listen)) = (options.port, self.config().listen)
                && port != listen.port()
            {
                return Err(Error::Conflict(format!(
                    "the page server runs on port {} already; stop it first to move it to port \
                     {port}",
                    listen.port()
                )));
            }
            match self.wait_until_serving(|| running.is_alive(), 0) {
                // It was killed a moment ago.
                Err(_) if !running.is_alive() => {}
                waited => return waited.map(|()| Outcome::AlreadySo),
            }
        }
        Running::wait_out_dying(&self.dir().join(PID_FILE), KILL_TIMEOUT);
        // Its redo processes are PostgreSQL's; later it could only say so in its log.
        self.postgres()?;
        let program = companions::find(companions::PAGESERVER)?;
        companions::install_libraries(&self.dir().join(LIB_DIR), self.account())?;
        let listen = self.choose_listen(options.port)?;
        let log_path = self.server_log();
        let log = {
            let _identity = self.account().enter();
            let address = self.dir().join(crate::control::ADDRESS_FILE);
            // One left by a crash would be taken for the new server's.
            if let Err(error) = fs::remove_file(&address)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(error).io("remove", &address);
            }
            fs::File::options().create(true).append(true).open(&log_path).io("open", &log_path)?
        };
        let log_start = log.metadata().map(|meta| meta.len()).unwrap_or(0);
        let mut command = Command::new(&program);
        command.arg("run").arg("--repo").arg(self.dir());
        command.arg("--listen").arg(listen.to_string());
        if self.account().must_switch() {
            // It switches by itself: the account may not be able to reach the program.
            let (uid, gid) = self.account().ids();
            command.arg("--run-as").arg(format!("{uid}:{gid}"));
        }
        command.current_dir(self.dir());
        let mut child = process::spawn_detached(&mut command, None, log)?;
        let started = self.wait_until_serving(|| matches!(child.try_wait(), Ok(None)), log_start);
        if matches!(started, Err(Error::Timeout(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        started?;
        // What an earlier release has made. If it cannot be done, nothing is removed, and who wants that is told why.
        let _ = self.register_computes();
        Ok(Outcome::Done)
    }

    /// Stops the page server and waits until it is gone.
    pub fn stop(&self, mode: StopMode) -> Result<Outcome> {
        let _lock = Lock::acquire(self.account(), &self.run_file(LOCK_FILE))?;
        let Some(running) = self.running_server() else {
            return Ok(Outcome::AlreadySo);
        };
        let (signal, timeout) = match mode {
            StopMode::Fast => (Signal::SIGTERM, STOP_TIMEOUT),
            StopMode::Immediate => (Signal::SIGKILL, KILL_TIMEOUT),
        };
        running.signal(signal).io("stop the page server of", self.dir())?;
        if !running.wait_gone(timeout) {
            return Err(Error::Timeout(format!(
                "the page server (process {}) still runs {} s after it was told to stop; see {}, \
                 or use --immediate",
                running.pid(),
                timeout.as_secs(),
                self.server_log().display()
            )));
        }
        Ok(Outcome::Done)
    }

    /// Stops the page server if it runs, and starts it.
    pub fn restart(&mut self, mode: StopMode) -> Result<()> {
        self.stop(mode)?;
        self.start(&StartOptions::default()).map(|_| ())
    }

    /// Looks whether the page server runs, and asks it how it is.
    pub fn status(&self) -> Result<ServerStatus> {
        let running = self.running_server();
        let address = running.and_then(|_| ServerAddress::read(self.dir()));
        let facts = match &address {
            Some(address) => status_facts(&address.unix).unwrap_or_default(),
            None => Vec::new(),
        };
        Ok(ServerStatus {
            repository: self.dir().to_owned(),
            pid: running.map(Running::pid),
            address,
            log: self.server_log(),
            facts,
        })
    }

    /// The page server's log.
    pub fn server_log(&self) -> PathBuf {
        self.dir().join(LOG_FILE)
    }

    pub(crate) fn running_server(&self) -> Option<Running> {
        Running::from_pidfile(&self.dir().join(PID_FILE), self.dir())
    }

    /// A file that is needed only while something runs.
    pub(crate) fn run_file(&self, name: &str) -> PathBuf {
        self.dir().join("run").join(name)
    }

    pub(crate) fn library(&self, name: &str) -> PathBuf {
        self.dir().join(LIB_DIR).join(name)
    }

    /// The address to listen on: the one asked for, else the same as ever, else any free port.
    fn choose_listen(&mut self, port: Option<u16>) -> Result<SocketAddr> {
        let listen = match (port, self.config().listen) {
            (None, Some(listen)) if listen.port() != 0 => listen,
            (Some(port), before) => {
                let ip = before.map_or(Ipv4Addr::LOCALHOST.into(), |listen| listen.ip());
                SocketAddr::new(ip, port)
            }
            (None, _) => SocketAddr::from((Ipv4Addr::LOCALHOST, ports::choose(&[])?)),
        };
        if let Err(error) = TcpListener::bind(listen) {
            return Err(Error::Conflict(format!(
                "the page server cannot listen on {listen}: {error}; choose another port with \
                 `zenith start --port N`"
            )));
        }
        if self.config().listen != Some(listen) {
            let dir = self.dir().to_owned();
            let account = self.account().clone();
            let _identity = account.enter();
            self.config_mut().persist_listen(&dir, listen)?;
        }
        Ok(listen)
    }

    /// Waits until the server answers. Gives up at once when `alive` says that it has ended.
    fn wait_until_serving(&self, mut alive: impl FnMut() -> bool, log_start: u64) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let serving = self.running_server().and_then(|_| ServerAddress::read(self.dir()));
            if let Some(address) = serving
                && Control::connect(&address.unix).is_ok()
            {
                return Ok(());
            }
            if !alive() {
                return Err(Error::Program {
                    program: companions::PAGESERVER.to_owned(),
                    detail: format!(
                        "{} (log: {})",
                        process::last_words(&self.server_log(), log_start),
                        self.server_log().display()
                    ),
                });
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout(format!(
                    "the page server does not serve after {} s; see {}",
                    START_TIMEOUT.as_secs(),
                    self.server_log().display()
                )));
            }
            std::thread::sleep(process::POLL_INTERVAL);
        }
    }
}

fn status_facts(connstr: &str) -> Result<Vec<(String, String)>> {
    Ok(Control::connect(connstr)?.row("status")?.pairs())
}
