//! `PageMaker`: makes pages out of older pages and WAL records, and remembers those made.
//!
//! One for all timelines of a repository: a version of a page is the same for every branch that
//! sees it, so the cache is keyed by the version, not by who asks.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cache::{Cache, MakeGuard};
use parking_lot::Mutex;
use postgres_formats::wal::{DecodedRecord, RecordParseError, WalRecord};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, PageImage, RelTag, TimelineId};
use walredo_pool::{CustomManagers, RedoBatch, RedoError, RedoRecords, WalRedoConfig, WalRedoPool};

use crate::ahead::{AheadCounts, Backlog};
use crate::cached_upto::CachedUpto;
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

/// What a page counts for in the cache, in bytes.
const CACHED_PAGE_BYTES: u64 = BLCKSZ as u64 + Cache::<VersionKey, PageImage>::OVERHEAD_BYTES;

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
    Postgres(RelTag, BlockNumber, RedoRecords),
    /// By our own code, to the page of this name.
    Native(PageKey, Vec<(WalRecord, DecodedRecord)>),
}

/// A page in the making.
pub(crate) struct Job {
    /// `None`: zeros.
    image: Option<Arc<PageImage>>,
    /// What is still to be applied, in order.
    runs: VecDeque<Run>,
    /// How much is expected, to make room once: records, and their bytes together.
    expected: (usize, usize),
}

impl Job {
    /// `base`: the page before the first record, `None` for zeros.
    pub(crate) fn new(base: Option<Arc<PageImage>>, expected: (usize, usize)) -> Job {
        Job { image: base, runs: VecDeque::new(), expected }
    }

    /// The page is so, whatever was to be done before.
    pub(crate) fn begin_with(&mut self, image: PageImage) {
        self.image = Some(Arc::new(image));
        self.runs.clear();
    }

    /// Then PostgreSQL's redo is to apply a record, which knows the page by that name; our own code, if
    /// it is no page of a relation.
    ///
    /// # Errors
    /// That the record, which has to be our own code's, makes no sense.
    pub(crate) fn redo(
        &mut self,
        page: ObjectPage,
        record: WalRecord,
    ) -> Result<(), RecordParseError> {
        let ObjectTag::Rel(rel) = page.object else { return self.apply(page, record) };
        if let Some(Run::Postgres(r, b, records)) = self.runs.back_mut()
            && (*r, *b) == (rel, page.block)
        {
            records.push(record.end, &record.bytes);
            return Ok(());
        }
        let (count, bytes) = std::mem::take(&mut self.expected);
        let mut records = RedoRecords::with_capacity(count, bytes);
        records.push(record.end, &record.bytes);
        self.runs.push_back(Run::Postgres(rel, page.block, records));
        Ok(())
    }

    /// Then our own code is to apply a record, which knows the page by that name.
    ///
    /// # Errors
    /// That the record makes no sense.
    pub(crate) fn apply(
        &mut self,
        page: ObjectPage,
        record: WalRecord,
    ) -> Result<(), RecordParseError> {
        let key = PageKey::from(page);
        let decoded = DecodedRecord::parse(&record.bytes)?;
        match self.runs.back_mut() {
            Some(Run::Native(k, records)) if *k == key => records.push((record, decoded)),
            _ => self.runs.push_back(Run::Native(key, vec![(record, decoded)])),
        }
        Ok(())
    }
}

/// Makes pages and remembers them.
pub struct PageMaker {
    /// Pages made, by version.
    pub cache: Cache<VersionKey, PageImage>,
    /// Up to where pages have versions in it.
    pub(crate) cached_upto: CachedUpto,
    /// Pages that may be worth making ahead of demand.
    pub(crate) backlog: Backlog,
    /// What was made ahead of demand.
    pub ahead: AheadCounts,
    /// How many are reading pages just now.
    readers: AtomicUsize,
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
            cached_upto: CachedUpto::default(),
            backlog: Backlog::default(),
            ahead: AheadCounts::default(),
            readers: AtomicUsize::new(0),
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

    /// Makes pages for one who gives jobs and takes pages.
    pub(crate) fn workshop<'a>(&'a self, control_file: &'a [u8]) -> Workshop<'a> {
        Workshop::new(self, control_file, RedoBatch::default())
    }

    /// Makes a page when there is time.
    pub(crate) fn make_ahead(&self, job: Job, control_file: &[u8]) -> Result<PageImage, MakeError> {
        Workshop::new(self, control_file, RedoBatch::ahead_of_demand()).only(job)
    }

    /// Puts a page that was made into the cache.
    pub(crate) fn keep(
        &self,
        guard: MakeGuard<VersionKey, PageImage>,
        image: PageImage,
    ) -> Arc<PageImage> {
        let VersionKey { timeline, page, end } = *guard.key();
        self.cached_upto.add(timeline, page, end);
        guard.fill(image, CACHED_PAGE_BYTES)
    }

    /// Somebody is reading pages until what is given is dropped.
    pub(crate) fn reader(&self) -> Reader<'_> {
        self.readers.fetch_add(1, Ordering::SeqCst);
        Reader(self)
    }

    /// Whether somebody is reading pages.
    pub(crate) fn is_read(&self) -> bool {
        self.readers.load(Ordering::SeqCst) > 0
    }

    /// The pool, if it was started.
    pub fn pool(&self) -> Option<&WalRedoPool> {
        self.pool.get()
    }

    /// Makes a page.
    pub(crate) fn make(&self, job: Job, control_file: &[u8]) -> Result<PageImage, MakeError> {
        self.workshop(control_file).only(job)
    }
}

/// One who is reading pages.
pub(crate) struct Reader<'a>(&'a PageMaker);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Pages in the making. Redo of one begins when its job is added, and goes on while the next job is
/// being thought of.
pub(crate) struct Workshop<'a> {
    maker: &'a PageMaker,
    control_file: &'a [u8],
    batch: RedoBatch,
    /// Jobs of which redo has a part, and that have others behind it.
    waiting: HashMap<usize, Job>,
    done: VecDeque<(usize, Result<PageImage, MakeError>)>,
}

impl<'a> Workshop<'a> {
    fn new(maker: &'a PageMaker, control_file: &'a [u8], batch: RedoBatch) -> Workshop<'a> {
        let (waiting, done) = (HashMap::new(), VecDeque::new());
        Workshop { maker, control_file, batch, waiting, done }
    }

    fn only(mut self, job: Job) -> Result<PageImage, MakeError> {
        self.add(0, job);
        self.take().map_or_else(|| unreachable!("one job has one result"), |(_, made)| made)
    }

    /// Begins with a job. `number` is the caller's name for it.
    pub(crate) fn add(&mut self, number: usize, job: Job) {
        if let Some(made) = self.advance(number, job).transpose() {
            self.done.push_back((number, made));
        }
    }

    /// Waits for any of the pages; `None` if all have been taken.
    pub(crate) fn take(&mut self) -> Option<(usize, Result<PageImage, MakeError>)> {
        loop {
            if let Some(done) = self.done.pop_front() {
                return Some(done);
            }
            if let Some(pool) = self.maker.pool() {
                self.batch.hand_over(pool);
            }
            let (number, result) = self.batch.take()?;
            match (result, self.waiting.remove(&number)) {
                (Ok(page), Some(mut job)) => {
                    job.image = Some(Arc::new(page));
                    self.add(number, job);
                }
                (result, _) => return Some((number, result.map_err(MakeError::from))),
            }
        }
    }

    /// Goes on with a job up to the next request to PostgreSQL's redo; gives the page if there is none.
    fn advance(&mut self, number: usize, mut job: Job) -> Result<Option<PageImage>, MakeError> {
        loop {
            match job.runs.pop_front() {
                None => {
                    let image = job.image.map(Arc::unwrap_or_clone);
                    return Ok(Some(image.unwrap_or_else(PageImage::zeroed)));
                }
                Some(Run::Native(key, records)) => {
                    let image = job.image.get_or_insert_with(|| Arc::new(PageImage::zeroed()));
                    let image = Arc::make_mut(image);
                    for (record, decoded) in &records {
                        ingest::native::apply(record, decoded, &key, image).map_err(|error| {
                            MakeError::Native { end: record.end, message: error.to_string() }
                        })?;
                    }
                }
                Some(Run::Postgres(rel, block, records)) => {
                    let pool = self.maker.start_pool(self.control_file)?;
                    let base = job.image.take();
                    self.batch.submit(pool, number, (rel, block), base.as_deref(), records);
                    if !job.runs.is_empty() {
                        self.waiting.insert(number, job);
                    }
                    return Ok(None);
                }
            }
        }
    }
}
