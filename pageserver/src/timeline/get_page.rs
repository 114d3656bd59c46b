//! GetPage@LSN: from a page's name and an LSN to its bytes.
//!
//! A request is planned (`page_plan.rs`), under short read locks. Only then are records read, and the pages
//! made, without any lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cache::{Lookup, MakeGuard, Waiter};
use postgres_formats::{BlockNumber, Lsn, PageImage, RelTag, page_checksum};

use super::Timeline;
use super::error::TimelineError;
use super::page_plan::Plan;
use super::wal_pages::WalPages;
use crate::damage;
use crate::layer::image::LayerError;
use crate::object::{ObjectPage, ObjectTag};
use crate::page_maker::{CACHED_PAGE_BYTES, Job, MakeError, VersionKey};
use crate::seqwait::WaitError;

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
        // A page is made while the next ones are planned.
        let mut workshop = self.maker.workshop(&self.cluster.control_file_bytes);
        let mut wal = WalPages::for_requests(requests.len());
        let mut guards = HashMap::new();
        let mut waiting: Vec<(usize, Waiter<VersionKey, PageImage>)> = Vec::new();
        // Before anything is begun: nobody shall wait for pages of ours while we wait for WAL.
        let ready: Vec<_> =
            requests.iter().map(|request| self.await_lsn(request.lsn, timeout)).collect();
        let _reader = self.maker.reader();
        for (number, (request, ready)) in requests.iter().zip(ready).enumerate() {
            let result = match ready.and_then(|()| self.begin(request, &mut wal)) {
                Ok(Begun::Done(page)) => Some(Ok(page)),
                Ok(Begun::Make(guard, job)) => {
                    guards.insert(number, guard);
                    workshop.add(number, job);
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
        while let Some((number, made)) = workshop.take() {
            if let (Some(request), Some(guard)) = (requests.get(number), guards.remove(&number)) {
                set(number, self.finish(request, guard, made));
            }
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
    fn begin(
        self: &Arc<Self>,
        request: &PageRequest,
        wal: &mut WalPages,
    ) -> Result<Begun, GetPageError> {
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
            Lookup::Make(guard) => {
                self.maker.backlog.add(self, (self.id(), page), lsn, plan.record_count());
                Ok(Begun::Make(guard, self.job(plan, request, wal)?))
            }
        }
    }

    /// Reads what the plan for a request names. WAL goes when a layer has taken its place: then a new plan
    /// names that.
    fn job(
        self: &Arc<Self>,
        plan: Plan,
        request: &PageRequest,
        wal: &mut WalPages,
    ) -> Result<Job, GetPageError> {
        match plan.job(wal) {
            Err(GetPageError::Timeline(TimelineError::MissingWal { .. })) => {
                self.plan(request.page, request.lsn)?.job(wal)
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
        let VersionKey { timeline, page, end } = *guard.key();
        self.maker.cached_upto.add(timeline, page, end);
        Ok(guard.fill(image, CACHED_PAGE_BYTES))
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
                    let plan = self.plan(request.page, request.lsn)?;
                    let job = self.job(plan, request, &mut WalPages::for_requests(1))?;
                    let made = self.maker.make(job, &self.cluster.control_file_bytes);
                    return self.finish(request, guard, made);
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
