//! GetPage@LSN: from a page's name and an LSN to its bytes.
//!
//! A request is planned in memory, under short read locks: which versions since the last image or
//! initialisation, over all ancestors, and what they stand on. Only then are records read, and the
//! pages made, without any lock.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache::{Lookup, MakeGuard, Waiter};
use postgres_formats::wal::{DecodedRecord, Reassembled, WalRecord, reassemble};
use postgres_formats::{BlockNumber, Lsn, PageImage, RelTag, page_checksum};

use super::error::TimelineError;
use super::{Below, Timeline};
use crate::damage;
use crate::index::{FoundVersion, Foundation, PageHistory, Version};
use crate::layer::delta::{KeptVersion, restored_image};
use crate::layer::image::LayerError;
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::page_maker::{Job, MakeError, VersionKey};
use crate::seqwait::WaitError;

/// Raw bytes read first for a record; most are shorter.
const RECORD_READ_FIRST: usize = 512;

/// A page that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// The page.
    pub page: ObjectPage,
    /// As of the end of all records up to here.
    pub lsn: Lsn,
}

impl PageRequest {
    /// A page of a relation.
    pub fn rel(rel: RelTag, block: BlockNumber, lsn: Lsn) -> PageRequest {
        PageRequest { page: ObjectPage { object: ObjectTag::Rel(rel), block }, lsn }
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum GetPageError {
    /// The object does not exist at that LSN, or is not that large.
    #[error("{} has no block {} at {lsn}{}", page.object, page.block, size_text(size))]
    NotFound {
        /// The page.
        page: ObjectPage,
        /// When.
        lsn: Lsn,
        /// The object's size in pages then.
        size: Option<u32>,
    },
    /// The LSN was not reached in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The LSN is before all history, or what is on disk is damaged.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    /// A layer is damaged.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The page's records could not be applied.
    #[error("block {} of {} at {lsn} cannot be made: {source}", page.block, page.object)]
    Make {
        /// The page.
        page: ObjectPage,
        /// When.
        lsn: Lsn,
        /// Why.
        source: MakeError,
    },
}

fn size_text(size: &Option<u32>) -> String {
    match size {
        Some(size) => format!(": its size is {size}"),
        None => ": it does not exist".to_owned(),
    }
}

/// What a page's oldest needed version is built on.
enum Base {
    Zero,
    Cached(Arc<PageImage>),
    Kept(Bytes),
    Image(Arc<Below>, ObjectPage),
}

/// What the oldest version in a stretch stands on.
enum Ground {
    Base(Base),
    /// The same page of another database at an LSN.
    CopyOf(DbTag, Lsn),
}

/// How to get a page.
struct Plan {
    base: Base,
    /// Versions to be applied, oldest first.
    versions: Vec<PlannedVersion>,
    /// Name of the newest of them.
    newest: Option<VersionKey>,
}

struct PlannedVersion {
    /// Whose history it is part of.
    timeline: Arc<Timeline>,
    version: Version,
    /// What a layer has of it; `None`: its record is read from the WAL.
    kept: Option<KeptVersion>,
    /// The name under which the record knows the page: another one than was asked for if the
    /// database was copied since.
    page: ObjectPage,
}

impl Timeline {
    /// Reads pages, all of them together. Waits up to `timeout` for each LSN that has not been
    /// received yet. The results are in the order of the requests.
    ///
    /// Pages carry the checksum that PostgreSQL expects, if the cluster has checksums.
    pub fn get_pages(
        self: &Arc<Self>,
        requests: &[PageRequest],
        timeout: Duration,
    ) -> Vec<Result<Arc<PageImage>, GetPageError>> {
        let named = self.make_pages(requests, timeout).into_iter().zip(requests);
        let given_out = |(made, request): (_, &PageRequest)| {
            let page = self.sound_hint(request, made)?;
            Ok(damage::page(request.page, request.lsn, page))
        };
        named.map(given_out).collect()
    }

    /// The same without faults on purpose, which must not get into layers.
    pub(super) fn make_pages(
        self: &Arc<Self>,
        requests: &[PageRequest],
        timeout: Duration,
    ) -> Vec<Result<Arc<PageImage>, GetPageError>> {
        let mut results: Vec<Option<Result<Arc<PageImage>, GetPageError>>> = Vec::new();
        let mut jobs = Vec::new();
        let mut guards = Vec::new();
        let mut waiting: Vec<(usize, Waiter<VersionKey, PageImage>)> = Vec::new();
        // Before anything is begun: nobody shall wait for pages of ours while we wait for WAL.
        let ready: Vec<_> =
            requests.iter().map(|request| self.await_lsn(request.lsn, timeout)).collect();
        for (number, (request, ready)) in requests.iter().zip(ready).enumerate() {
            let result = match ready.and_then(|()| self.begin(request)) {
                Ok(Begun::Done(page)) => Some(Ok(page)),
                Ok(Begun::Make(guard, job)) => {
                    jobs.push(job);
                    guards.push((number, guard));
                    None
                }
                Ok(Begun::Wait(waiter)) => {
                    waiting.push((number, waiter));
                    None
                }
                Err(error) => Some(Err(error)),
            };
            results.push(result);
        }
        let mut set = |number: usize, result| {
            if let Some(slot) = results.get_mut(number) {
                *slot = Some(result);
            }
        };
        let made = self.maker.make_all(jobs, &self.cluster.control_file_bytes);
        for ((number, guard), made) in guards.into_iter().zip(made) {
            let request = &requests[number];
            set(number, self.finish(request, guard, made));
        }
        // Only now, when nothing of our own is in the making any more: two batches that wait for
        // each other's pages must not wait for ever.
        for (number, waiter) in waiting {
            let request = &requests[number];
            set(number, self.wait_for_other(request, waiter));
        }
        let missing = || unreachable!("every request was answered above");
        results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }

    /// Reads one page; see `get_pages`.
    ///
    /// # Errors
    /// See `GetPageError`.
    pub fn get_page(
        self: &Arc<Self>,
        request: PageRequest,
        timeout: Duration,
    ) -> Result<Arc<PageImage>, GetPageError> {
        let mut results = self.get_pages(&[request], timeout);
        results.pop().unwrap_or_else(|| unreachable!("one request has one result"))
    }

    fn await_lsn(&self, lsn: Lsn, timeout: Duration) -> Result<(), GetPageError> {
        self.check_lsn(lsn)?;
        Ok(self.wait_lsn(lsn, timeout)?)
    }

    /// Begins with a page whose LSN has been received.
    fn begin(self: &Arc<Self>, request: &PageRequest) -> Result<Begun, GetPageError> {
        let PageRequest { page, lsn } = *request;
        let size = self.object_size(page.object, lsn)?;
        if size.is_none_or(|size| size <= page.block.0) {
            return Err(GetPageError::NotFound { page, lsn, size });
        }
        let plan = self.plan(page, lsn)?;
        // What was needed may have been removed meanwhile.
        self.check_lsn(lsn)?;
        let Some(newest) = plan.newest else {
            return Ok(Begun::Done(plan.base.read()?.unwrap_or_else(zero_page)));
        };
        match self.maker.cache.lookup(newest) {
            Lookup::Hit(page) => Ok(Begun::Done(page)),
            Lookup::Wait(waiter) => Ok(Begun::Wait(waiter)),
            Lookup::Make(guard) => Ok(Begun::Make(guard, self.job(plan, request)?)),
        }
    }

    /// Reads what the plan for a request names. WAL goes when a layer has taken its place: then a new plan
    /// names that.
    fn job(self: &Arc<Self>, plan: Plan, request: &PageRequest) -> Result<Job, GetPageError> {
        match plan.job() {
            Err(GetPageError::Timeline(TimelineError::MissingWal { .. })) => {
                self.plan(request.page, request.lsn)?.job()
            }
            other => other,
        }
    }

    fn finish(
        &self,
        request: &PageRequest,
        guard: MakeGuard<VersionKey, PageImage>,
        made: Result<PageImage, MakeError>,
    ) -> Result<Arc<PageImage>, GetPageError> {
        let PageRequest { page, lsn } = *request;
        let mut image = made.map_err(|source| GetPageError::Make { page, lsn, source })?;
        self.set_checksum(page, &mut image);
        Ok(guard.fill(image, postgres_formats::BLCKSZ as u64))
    }

    /// Gives a page the checksum that PostgreSQL expects in it.
    pub(super) fn set_checksum(&self, page: ObjectPage, image: &mut PageImage) {
        if self.cluster.checksums && matches!(page.object, ObjectTag::Rel(_)) && !image.is_new() {
            page_checksum::set_checksum(image, page.block);
        }
    }

    /// Waits for a page that somebody else is making; makes it if they give up.
    fn wait_for_other(
        self: &Arc<Self>,
        request: &PageRequest,
        waiter: Waiter<VersionKey, PageImage>,
    ) -> Result<Arc<PageImage>, GetPageError> {
        let mut lookup = waiter.wait();
        loop {
            match lookup {
                Lookup::Hit(page) => return Ok(page),
                Lookup::Wait(waiter) => lookup = waiter.wait(),
                Lookup::Make(guard) => {
                    let job = self.job(self.plan(request.page, request.lsn)?, request)?;
                    let made = self.maker.make_all(vec![job], &self.cluster.control_file_bytes);
                    let made = made.into_iter().next();
                    let made = made.unwrap_or_else(|| unreachable!("one job has one result"));
                    return self.finish(request, guard, made);
                }
            }
        }
    }

    /// Finds what a page is made of at `lsn`.
    fn plan(self: &Arc<Self>, page: ObjectPage, lsn: Lsn) -> Result<Plan, LayerError> {
        let (mut timeline, mut page, mut lsn) = (self.clone(), page, lsn);
        let mut plan = Plan { base: Base::Zero, versions: Vec::new(), newest: None };
        loop {
            // The cache is looked at when no lock is held any more.
            let mut found = Vec::new();
            let below = timeline
                .newest(|stretch| {
                    let history = stretch.page_history(page, lsn)?;
                    let is_enough = history.foundation != Foundation::Below;
                    found.push(history);
                    Ok(is_enough.then_some(()))
                })?
                .below;
            let own = found.into_iter().find_map(|history| plan.take(&timeline, page, history));
            match (own, &*below) {
                (Some(Ground::Base(base)), _) => {
                    plan.base = base;
                    break;
                }
                (Some(Ground::CopyOf(from, at)), _) => {
                    page.object = page.object.in_database(from);
                    lsn = at;
                }
                (None, Below::Ancestor(ancestor, at)) => {
                    lsn = lsn.min(*at);
                    let ancestor = ancestor.clone();
                    timeline = ancestor;
                }
                (None, Below::Image(_)) => {
                    plan.base = Base::Image(below.clone(), page);
                    break;
                }
                (None, Below::Nothing) => break,
            }
        }
        plan.versions.reverse();
        Ok(plan)
    }

    /// Reads a record again whose place is known.
    pub(super) fn read_record(&self, version: Version) -> Result<WalRecord, TimelineError> {
        match self.try_read_record(version) {
            // Another file may have been put in the place of the one that is open.
            Err(error) if error.is_damaged_wal() => {
                self.wal.forget_open();
                self.try_read_record(version)
            }
            other => other,
        }
    }

    fn try_read_record(&self, version: Version) -> Result<WalRecord, TimelineError> {
        let start = version.start();
        let io = |source: io::Error| TimelineError::Io { path: self.wal.dir().to_owned(), source };
        let mut want = RECORD_READ_FIRST;
        loop {
            let mut raw = vec![0; want];
            let got = self.wal.read(start, &mut raw).map_err(io)?;
            raw.truncate(got);
            let damaged =
                |source| TimelineError::DamagedWal { timeline: self.id(), lsn: start, source };
            match reassemble(start, &raw, self.cluster.segment_size).map_err(damaged)? {
                Reassembled::Complete(record) if record.end == version.end() => return Ok(record),
                Reassembled::NeedMore(more) if got == want && more > want => want = more,
                Reassembled::Complete(_) | Reassembled::NeedMore(_) => {
                    return Err(TimelineError::MissingWal { timeline: self.id(), lsn: start });
                }
            }
        }
    }
}

enum Begun {
    Done(Arc<PageImage>),
    Make(MakeGuard<VersionKey, PageImage>, Job),
    Wait(Waiter<VersionKey, PageImage>),
}

pub(super) fn zero_page() -> Arc<PageImage> {
    Arc::new(PageImage::zeroed())
}

impl Base {
    /// The page; `None`: zeros.
    fn read(&self) -> Result<Option<Arc<PageImage>>, GetPageError> {
        match self {
            Base::Zero => Ok(None),
            Base::Cached(page) => Ok(Some(page.clone())),
            Base::Kept(bytes) => {
                let mut page = PageImage::zeroed();
                page.copy_from_slice(bytes);
                Ok(Some(Arc::new(page)))
            }
            Base::Image(below, page) => match &**below {
                Below::Image(layer) => Ok(layer.page(page.object, page.block)?.map(Arc::new)),
                Below::Ancestor(..) | Below::Nothing => Ok(None),
            },
        }
    }
}

impl Plan {
    /// Takes in the versions that a stretch has. Gives what the oldest of them stands on, unless that
    /// is what lies below the stretch.
    fn take(
        &mut self,
        timeline: &Arc<Timeline>,
        page: ObjectPage,
        history: PageHistory,
    ) -> Option<Ground> {
        for FoundVersion { version, kept } in history.versions {
            let key = VersionKey { timeline: timeline.id(), page, end: version.end() };
            if self.newest.is_none() {
                self.newest = Some(key);
            } else if let Some(cached) = timeline.maker.cache.peek(&key) {
                // An older version that is at hand spares everything before it.
                return Some(Ground::Base(Base::Cached(cached)));
            }
            self.versions.push(PlannedVersion { timeline: timeline.clone(), version, kept, page });
        }
        match history.foundation {
            Foundation::Version | Foundation::Zero => Some(Ground::Base(Base::Zero)),
            Foundation::CopyOf(from, at) => Some(Ground::CopyOf(from, at)),
            Foundation::Kept(bytes) => Some(Ground::Base(Base::Kept(bytes))),
            Foundation::Below => None,
        }
    }

    /// Reads what the plan names.
    fn job(self) -> Result<Job, GetPageError> {
        let mut base = self.base.read()?.map(|page| PageImage::clone(&page));
        let mut records = Vec::with_capacity(self.versions.len());
        for PlannedVersion { timeline, version, kept, page } in self.versions {
            let record = match kept {
                Some(KeptVersion::Image(image)) => {
                    let mut page = PageImage::zeroed();
                    page.copy_from_slice(&image);
                    base = Some(page);
                    continue;
                }
                Some(KeptVersion::Record(record)) => record,
                None => timeline.read_record(version)?,
            };
            let damaged = |source| TimelineError::DamagedRecord {
                timeline: timeline.id(),
                lsn: record.start,
                source,
            };
            let decoded = DecodedRecord::parse(&record.bytes).map_err(damaged)?;
            // An image mostly answers without any redo.
            if version.will_init()
                && !version.is_native()
                && let Some(image) = restored_image(&decoded, page, &record)
            {
                base = Some(image);
                continue;
            }
            records.push((page, record, decoded, version.is_native()));
        }
        Ok(Job::new(base, records))
    }
}

impl GetPageError {
    /// Whether the data is damaged, so that asking again cannot help.
    pub fn is_corruption(&self) -> bool {
        match self {
            GetPageError::Layer(LayerError::Corrupt { .. }) => true,
            GetPageError::Timeline(error) => error.is_damaged_wal(),
            GetPageError::Wait(WaitError::Stopped { .. }) => true,
            GetPageError::Make { source, .. } => source.is_corruption(),
            _ => false,
        }
    }
}
