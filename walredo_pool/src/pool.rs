//! The pool: what callers see.

use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Sender};
use nix::fcntl::{Flock, FlockArg};
use postgres_formats::control_file::{ControlFile, ControlFileError};
use postgres_formats::{BlockNumber, PageImage};
use slog::Logger;

use crate::config::WalRedoConfig;
use crate::datadir::{DataDirError, data_dirs, make_folder, remove_left_over};
use crate::driver::Driver;
use crate::error::RedoError;
use crate::job::Job;
use crate::limits::{QUEUED_AHEAD_MAX, QUEUED_REQUESTS_MAX};
use crate::managers::CustomManagers;
use crate::pending::PendingRedo;
use crate::queues::{Group, Queues};
use crate::request::{MaskKind, RedoRequest};
use crate::shared::Shared;
use crate::stats::WalRedoStats;

/// A pool cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A configured value makes no sense.
    #[error("{0}")]
    Config(String),
    /// The control file is damaged or of another version of PostgreSQL.
    #[error(transparent)]
    ControlFile(#[from] ControlFileError),
    /// A configured file does not exist or cannot be read.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another pool uses the work folder.
    #[error("{0} is in use by another redo pool")]
    Busy(PathBuf),
    /// The work folder cannot be made.
    #[error(transparent)]
    WorkDir(#[from] DataDirError),
    /// The system refuses threads or descriptors.
    #[error("cannot set up the redo pool: {0}")]
    System(#[from] io::Error),
}

/// A pool of redo processes. Dropping it kills them, and fails what still waits.
pub struct WalRedoPool {
    /// Taken when the pool is dropped.
    senders: Option<Senders>,
    stop: UnixStream,
    drivers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// Held as long as the pool uses its folder.
    _lock: Flock<File>,
}

/// The ends of channels that drivers listen to.
struct Senders {
    requests: Sender<Group>,
    /// Work ahead of demand.
    ahead: Sender<Group>,
    /// Wakes a driver without a process.
    needed: Sender<()>,
}

impl WalRedoPool {
    /// Makes a pool and begins to start its processes; does not wait until they are ready.
    pub fn new(config: WalRedoConfig, log: Logger) -> Result<WalRedoPool, PoolError> {
        check(&config)?;
        let lock = lock_work_dir(&config)?;
        let (requests, requested) = channel::bounded(QUEUED_REQUESTS_MAX);
        let (ahead, wished) = channel::bounded(QUEUED_AHEAD_MAX);
        let (needed, called) = channel::bounded(config.processes);
        let (stop, stopped) = UnixStream::pair()?;
        let queues = Queues::new(requested, wished, config.processes);
        let shared = Arc::new(Shared::new(config, stopped, queues));
        let senders = Some(Senders { requests, ahead, needed });
        let mut pool = WalRedoPool { senders, stop, drivers: Vec::new(), shared, _lock: lock };
        let work_dir = &pool.shared.config.work_dir;
        remove_left_over(work_dir);
        let dirs = data_dirs(work_dir, pool.shared.config.processes);
        for (n, dir) in dirs.into_iter().enumerate() {
            let driver = Driver {
                shared: Arc::clone(&pool.shared),
                needed: called.clone(),
                dir,
                log: log.clone(),
            };
            let thread = thread::Builder::new().name(format!("walredo {n}"));
            pool.drivers.push(thread.spawn(move || driver.run())?);
        }
        Ok(pool)
    }

    /// Asks for a page. Returns at once unless very many requests wait already.
    pub fn submit(&self, request: RedoRequest) -> PendingRedo {
        self.submit_redo(request, false)
    }

    /// Asks for a page, and that the page after each record be compared, under PostgreSQL's own
    /// mask, with the image that `wal_consistency_checking` put into the record, if there is one.
    /// A difference fails the request with [`RedoError::Refused`].
    pub fn submit_verified(&self, request: RedoRequest) -> PendingRedo {
        self.submit_redo(request, true)
    }

    /// Asks for a page and waits for it.
    pub fn request_redo(&self, request: RedoRequest) -> Result<PageImage, RedoError> {
        self.submit(request).wait()
    }

    /// The page without the bits that WAL does not promise, for comparisons.
    pub fn mask_page(
        &self,
        kind: MaskKind,
        page: &PageImage,
        block: BlockNumber,
    ) -> Result<PageImage, RedoError> {
        self.submit_mask(kind, page, block).wait()
    }

    /// As `mask_page`, without waiting for it.
    pub fn submit_mask(&self, kind: MaskKind, page: &PageImage, block: BlockNumber) -> PendingRedo {
        let (answer, pending) = PendingRedo::new();
        self.send(vec![Job::mask(kind, block, page, answer)], false);
        pending
    }

    /// Waits until all processes are ready that are to run, or for `timeout`; returns whether they are.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.shared.ready.load(Ordering::SeqCst) < self.shared.running() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// The resource managers that the configured libraries have registered. Waits for the first
    /// process to say so; `None` if none does within `timeout`.
    pub fn custom_managers(&self, timeout: Duration) -> Option<CustomManagers> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(custom) = self.shared.custom.get() {
                return Some(*custom);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Why no process runs, in one line, after several attempts to start one; `None` if one runs or
    /// may do so soon. The pool keeps trying.
    pub fn start_failure(&self) -> Option<String> {
        self.shared.start_failure()
    }

    /// How many processes there are at the moment.
    pub fn processes(&self) -> usize {
        self.shared.ready.load(Ordering::SeqCst)
    }

    /// Totals since the pool was made.
    pub fn stats(&self) -> WalRedoStats {
        self.shared.counters.totals()
    }

    fn submit_redo(&self, request: RedoRequest, verify: bool) -> PendingRedo {
        let (answer, pending) = PendingRedo::new();
        let RedoRequest { rel, block, base, records } = request;
        let records = records.iter().collect();
        if let Some(job) = Job::redo((rel, block), base.as_ref(), records, verify, answer) {
            self.send(vec![job], false);
        }
        pending
    }

    /// Hands jobs to one process, together.
    pub(crate) fn send(&self, jobs: Group, ahead: bool) {
        let Some(senders) = &self.senders else { return };
        // If no driver is left, the jobs are dropped, which tells the one who waits.
        if ahead {
            let _ = senders.ahead.send(jobs);
            return;
        }
        let _ = senders.requests.send(jobs);
        if self.shared.queues.is_behind() && self.shared.enlist() {
            let _ = senders.needed.try_send(());
        }
    }
}

impl Drop for WalRedoPool {
    fn drop(&mut self) {
        // Wakes the drivers that wait for a process, then those that wait for a job.
        let _ = self.stop.shutdown(Shutdown::Both);
        self.senders = None;
        for driver in self.drivers.drain(..) {
            let _ = driver.join();
        }
    }
}

fn check(config: &WalRedoConfig) -> Result<(), PoolError> {
    let refuse = |message: &str| Err(PoolError::Config(message.to_owned()));
    if config.processes == 0 {
        return refuse("a redo pool needs at least one process");
    }
    ControlFile::decode(&config.control_file)?;
    if !config.module_path.is_absolute()
        || config.module_path.as_os_str().as_encoded_bytes().contains(&b'"')
    {
        return refuse("the redo module's path must be absolute and without quotes");
    }
    let is_bad = |name: &String| name.is_empty() || name.contains(['"', '\0', '\n']);
    if let Some(name) = config.libraries.iter().find(|name| is_bad(name)) {
        return refuse(&format!("{name:?} is no name of a library"));
    }
    for path in [config.postgres_bin_dir.join("postgres"), config.module_path.clone()] {
        fs::metadata(&path).map_err(|source| PoolError::File { path, source })?;
    }
    Ok(())
}

fn lock_work_dir(config: &WalRedoConfig) -> Result<Flock<File>, PoolError> {
    let dir = &config.work_dir;
    if !dir.exists() {
        make_folder(dir, config.account)?;
    }
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|source| PoolError::File { path, source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| PoolError::Busy(dir.clone()))
}
