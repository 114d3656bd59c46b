//! The pool: what callers see.

use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use nix::fcntl::{Flock, FlockArg};
use postgres_formats::control_file::{ControlFile, ControlFileError};
use postgres_formats::{BlockNumber, PageImage, RelTag};
use slog::Logger;

use crate::config::WalRedoConfig;
use crate::datadir::{DataDirError, data_dirs, make_folder, remove_left_over};
use crate::driver::Driver;
use crate::error::RedoError;
use crate::job::{Answer, Answered, Job};
use crate::limits::QUEUED_REQUESTS_MAX;
use crate::managers::CustomManagers;
use crate::records::RedoRecords;
use crate::request::{MaskKind, RedoRequest};
use crate::shared::Shared;
use crate::stats::{Counters, WalRedoStats};

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
    queue: Option<Sender<Job>>,
    stop: UnixStream,
    drivers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// Held as long as the pool uses its folder.
    _lock: Flock<File>,
}

/// A page that is being made.
pub struct PendingRedo(Receiver<Answered>);

impl PendingRedo {
    /// Waits for the page. Bounded by the pool's timeouts, not by the caller.
    pub fn wait(self) -> Result<PageImage, RedoError> {
        self.0.recv().map_or(Err(RedoError::ShuttingDown), |(_, result)| result)
    }
}

/// Pages that are asked for together, by one thread that takes them as they come.
pub struct RedoBatch {
    answers: Sender<Answered>,
    answered: Receiver<Answered>,
    unanswered: usize,
}

impl Default for RedoBatch {
    fn default() -> RedoBatch {
        let (answers, answered) = channel::unbounded();
        RedoBatch { answers, answered, unanswered: 0 }
    }
}

impl RedoBatch {
    /// Asks for the page that `records` make of `base`, or of zeros. `number` is the caller's name for
    /// it. Waits only when very many requests wait already.
    pub fn submit(
        &mut self,
        pool: &WalRedoPool,
        number: usize,
        page: (RelTag, BlockNumber),
        base: Option<&PageImage>,
        records: RedoRecords,
    ) {
        self.unanswered += 1;
        pool.send_redo(page, base, records, false, Answer::new(self.answers.clone(), number));
    }

    /// Waits for any of the pages asked for and not yet taken; `None` if there is none. Bounded by the
    /// pool's timeouts.
    pub fn take(&mut self) -> Option<(usize, Result<PageImage, RedoError>)> {
        if self.unanswered == 0 {
            return None;
        }
        self.unanswered -= 1;
        // Each request is answered, be it by its end.
        self.answered.recv().ok()
    }
}

impl WalRedoPool {
    /// Makes a pool and begins to start its processes; does not wait until they are ready.
    pub fn new(config: WalRedoConfig, log: Logger) -> Result<WalRedoPool, PoolError> {
        check(&config)?;
        let lock = lock_work_dir(&config)?;
        let (queue, jobs) = channel::bounded(QUEUED_REQUESTS_MAX);
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::new(Shared {
            config,
            stop: stopped,
            ready: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            custom: OnceLock::new(),
            failure: Mutex::default(),
            counters: Counters::default(),
        });
        let mut pool =
            WalRedoPool { queue: Some(queue), stop, drivers: Vec::new(), shared, _lock: lock };
        let work_dir = &pool.shared.config.work_dir;
        remove_left_over(work_dir);
        let dirs = data_dirs(work_dir, pool.shared.config.processes);
        for (n, dir) in dirs.into_iter().enumerate() {
            let driver = Driver {
                shared: Arc::clone(&pool.shared),
                queue: jobs.clone(),
                dir,
                log: log.clone(),
                again: Default::default(),
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
        let (answer, pending) = pending();
        self.send(Job::mask(kind, block, page, answer));
        pending
    }

    /// Waits until all processes are ready, or for `timeout`; returns whether they are.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.shared.ready.load(Ordering::SeqCst) < self.drivers.len() {
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

    /// Totals since the pool was made.
    pub fn stats(&self) -> WalRedoStats {
        self.shared.counters.totals()
    }

    fn submit_redo(&self, request: RedoRequest, verify: bool) -> PendingRedo {
        let (answer, pending) = pending();
        let RedoRequest { rel, block, base, records } = request;
        let records = records.iter().collect();
        self.send_redo((rel, block), base.as_ref(), records, verify, answer);
        pending
    }

    fn send_redo(
        &self,
        page: (RelTag, BlockNumber),
        base: Option<&PageImage>,
        records: RedoRecords,
        verify: bool,
        answer: Answer,
    ) {
        match records.too_large {
            Some((record, bytes)) => answer.give(Err(RedoError::RecordTooLarge { record, bytes })),
            None => self.send(Job::redo(page, base, records, verify, answer)),
        }
    }

    fn send(&self, job: Job) {
        if let Some(queue) = &self.queue {
            // If no driver is left, the job is dropped, which tells the one who waits.
            let _ = queue.send(job);
        }
    }
}

fn pending() -> (Answer, PendingRedo) {
    let (to, answered) = channel::bounded(1);
    (Answer::new(to, 0), PendingRedo(answered))
}

impl Drop for WalRedoPool {
    fn drop(&mut self) {
        // Wakes the drivers that wait for a process, then those that wait for a job.
        let _ = self.stop.shutdown(Shutdown::Both);
        self.queue = None;
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
