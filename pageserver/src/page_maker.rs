//! `PageMaker`: makes pages out of older pages and WAL records, and remembers those made.
//!
//! One for all timelines of a repository: a version of a page is the same for every branch that
//! sees it, so the cache is keyed by the version, not by who asks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cache::Cache;
use parking_lot::Mutex;
use postgres_formats::wal::{DecodedRecord, WalRecord};
use postgres_formats::{BlockNumber, Lsn, PageImage, RelTag, TimelineId};
use walredo_pool::{
    CustomManagers, PendingRedo, RedoError, RedoRecord, RedoRequest, WalRedoConfig, WalRedoPool,
};

use crate::ingest;
use crate::key::PageKey;
use crate::object::{ObjectPage, ObjectTag};

/// How long the first redo process is waited for where it has to be known what it has loaded.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// A version of a page: whose WAL holds the record that made it, and where that ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VersionKey {
    /// Whose WAL.
    pub timeline: TimelineId,
    /// The page.
    pub page: ObjectPage,
    /// End of the record.
    pub end: Lsn,
}

/// Why a page could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MakeError {
    /// PostgreSQL's redo did not do it.
    #[error(transparent)]
    Redo(#[from] RedoError),
    /// Our own redo did not do it.
    #[error("redo of the record ending at {end}: {message}")]
    Native {
        /// End of the record.
        end: Lsn,
        /// Why.
        message: String,
    },
    /// No redo process can be used.
    #[error("the WAL redo pool cannot be started: {0}")]
    Pool(String),
}

impl MakeError {
    /// Whether it is a record or a page that is at fault, so that asking again cannot help; not so
    /// where it is the redo processes that cannot be had.
    pub fn is_corruption(&self) -> bool {
        match self {
            MakeError::Native { .. } => true,
            MakeError::Pool(_) => false,
            MakeError::Redo(error) => match error {
                RedoError::Refused { .. }
                | RedoError::Died { .. }
                | RedoError::RecordTooLarge { .. } => true,
                RedoError::Timeout { .. }
                | RedoError::CannotStart { .. }
                | RedoError::ShuttingDown => false,
            },
        }
    }
}

/// Records to be applied to one page, all by the same means.
enum Run {
    /// By PostgreSQL's redo, to a page of this relation.
    Postgres(RelTag, BlockNumber, Vec<RedoRecord>),
    /// By our own code, to the page of this name.
    Native(PageKey, Vec<(WalRecord, DecodedRecord)>),
}

/// A page in the making.
pub(crate) struct Job {
    image: Option<PageImage>,
    /// What is still to be applied, the next one last.
    runs: Vec<Run>,
}

impl Job {
    /// `base`: the page before the first record, `None` for zeros. `records`: oldest first, each
    /// with the name it has for the page and whether our own code applies it.
    pub(crate) fn new(
        base: Option<PageImage>,
        records: impl IntoIterator<Item = (ObjectPage, WalRecord, DecodedRecord, bool)>,
    ) -> Job {
        let mut runs: Vec<Run> = Vec::new();
        for (page, record, decoded, native) in records {
            match (page.object, native) {
                (ObjectTag::Rel(rel), false) => match runs.last_mut() {
                    Some(Run::Postgres(r, b, list)) if *r == rel && *b == page.block => {
                        list.push(redo_record(&record));
                    }
                    _ => runs.push(Run::Postgres(rel, page.block, vec![redo_record(&record)])),
                },
                _ => {
                    let key = PageKey::from(page);
                    match runs.last_mut() {
                        Some(Run::Native(k, list)) if *k == key => list.push((record, decoded)),
                        _ => runs.push(Run::Native(key, vec![(record, decoded)])),
                    }
                }
            }
        }
        runs.reverse();
        Job { image: base, runs }
    }
}

fn redo_record(record: &WalRecord) -> RedoRecord {
    RedoRecord { end: record.end, bytes: Bytes::clone(&record.bytes) }
}

/// Makes pages and remembers them.
pub struct PageMaker {
    /// Pages made, by version.
    pub cache: Cache<VersionKey, PageImage>,
    config: WalRedoConfig,
    log: slog::Logger,
    pool: OnceLock<WalRedoPool>,
    // LOCK ORDER: taken with nothing else held; kept while the pool is started, so that it is
    // started once.
    starting: Mutex<()>,
}

impl PageMaker {
    /// A maker whose pool is started at first use. `config.control_file` may be empty: it is
    /// taken from the first cluster that needs redo.
    pub fn new(cache_bytes: u64, config: WalRedoConfig, log: slog::Logger) -> Arc<PageMaker> {
        Arc::new(PageMaker {
            cache: Cache::new(cache_bytes),
            config,
            log,
            pool: OnceLock::new(),
            starting: Mutex::new(()),
        })
    }

    /// Starts the pool unless it runs, so that the first page need not wait for it.
    ///
    /// # Errors
    /// `MakeError::Pool`.
    pub fn start_pool(&self, control_file: &[u8]) -> Result<&WalRedoPool, MakeError> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let _starting = self.starting.lock();
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let mut config = self.config.clone();
        config.control_file = control_file.to_vec();
        let pool = WalRedoPool::new(config, self.log.clone())
            .map_err(|error| MakeError::Pool(error.to_string()))?;
        Ok(self.pool.get_or_init(|| pool))
    }

    /// The resource managers of extensions that the redo processes know.
    ///
    /// # Errors
    /// `MakeError::Pool` where no process runs to ask.
    pub fn custom_managers(&self, control_file: &[u8]) -> Result<CustomManagers, MakeError> {
        if self.config.libraries.is_empty() {
            return Ok(CustomManagers::default());
        }
        let pool = self.start_pool(control_file)?;
        pool.custom_managers(GREETING_TIMEOUT).ok_or_else(|| {
            let libraries = self.config.libraries.join(", ");
            MakeError::Pool(self.redo_problem().unwrap_or_else(|| {
                format!("no process has started with the libraries {libraries}")
            }))
        })
    }

    /// Why no page can be made that needs PostgreSQL's redo, in one line; `None` if that is not so or
    /// not known, because nothing has needed redo yet.
    pub fn redo_problem(&self) -> Option<String> {
        let failure = self.pool.get()?.start_failure()?;
        let remedy = match self.config.libraries.is_empty() {
            true => "",
            false => "; see [walredo] libraries in zenith.toml",
        };
        Some(format!("no redo process can be started: {failure}{remedy}"))
    }

    /// Does the jobs, the redo processes working on as many of them at once as they can. The
    /// results are in the order of the jobs.
    pub(crate) fn make_all(
        &self,
        jobs: Vec<Job>,
        control_file: &[u8],
    ) -> Vec<Result<PageImage, MakeError>> {
        // Everything is handed in before anything is waited for.
        let started: Vec<_> = jobs.into_iter().map(|job| self.advance(job, control_file)).collect();
        let finish = |mut step: Result<Step, MakeError>| loop {
            match step? {
                Step::Done(page) => return Ok(page),
                Step::Waiting(mut job, pending) => {
                    step = match pending.wait() {
                        Ok(page) => {
                            job.image = Some(page);
                            self.advance(job, control_file)
                        }
                        Err(error) => Err(error.into()),
                    }
                }
            }
        };
        started.into_iter().map(finish).collect()
    }

    /// Goes on with a job up to the next request to PostgreSQL's redo.
    fn advance(&self, mut job: Job, control_file: &[u8]) -> Result<Step, MakeError> {
        loop {
            match job.runs.pop() {
                None => return Ok(Step::Done(job.image.unwrap_or_else(PageImage::zeroed))),
                Some(Run::Native(key, records)) => {
                    let mut image = job.image.take().unwrap_or_else(PageImage::zeroed);
                    for (record, decoded) in &records {
                        ingest::native::apply(record, decoded, &key, &mut image).map_err(
                            |error| MakeError::Native {
                                end: record.end,
                                message: error.to_string(),
                            },
                        )?;
                    }
                    job.image = Some(image);
                }
                Some(Run::Postgres(rel, block, records)) => {
                    let pool = self.start_pool(control_file)?;
                    let base = job.image.take();
                    let pending = pool.submit(RedoRequest { rel, block, base, records });
                    return Ok(Step::Waiting(job, pending));
                }
            }
        }
    }
}

/// How far a job is.
enum Step {
    Done(PageImage),
    Waiting(Job, PendingRedo),
}
