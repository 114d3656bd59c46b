//! GetPage@LSN: from a page's name and an LSN to its bytes.
//!
//! Requests that come together are put in order, and planned object by object (`page_range.rs`, `page_plan.rs`),
//! under short read locks. Only then are records read, and the pages made, without any lock.

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
use crate::page::Page;
use crate::page_maker::{Job, MakeError, VersionKey, Workshop};
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
    ) -> Vec<Result<Page, GetPageError>> {
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
    ) -> Vec<Result<Page, GetPageError>> {
        let mut results: Vec<Option<Result<Page, GetPageError>>> = Vec::new();
        results.resize_with(requests.len(), || None);
        let mut set = |number: usize, result| {
            if let Some(slot) = results.get_mut(number) {
                *slot = Some(result);
            }
        };
        // A page is made while the next ones are planned.
        let mut workshop = None;
        let mut wal = WalPages::for_requests(requests.len());
        let mut guards = HashMap::new();
        let mut waiting: Vec<(usize, Waiter<VersionKey, PageImage>)> = Vec::new();
        // Before anything is begun: nobody shall wait for pages of ours while we wait for WAL.
        let ready = self.await_all(requests, timeout, &mut set);
        let _reader = self.maker.reader();
        let mut groups = Groups::of(requests, &ready);
        while let Some(group) = groups.next() {
            let mut records = 0;
            self.plan_group(requests, group, &mut |number, plan| {
                let request = &requests[number];
                records += plan.as_ref().map_or(0, Plan::record_count);
                match plan.and_then(|plan| self.begin(plan, request, &mut wal)) {
                    Ok(Begun::Done(page)) => set(number, Ok(page)),
                    Ok(Begun::Make(guard, job)) => {
                        guards.insert(number, guard);
                        let open = || self.maker.workshop(&self.cluster.control_file_bytes);
                        workshop.get_or_insert_with(open).add(number, job);
                    }
                    Ok(Begun::Wait(waiter)) => waiting.push((number, waiter)),
                    Err(error) => set(number, Err(error)),
                }
            });
            groups.took(records);
        }
        while let Some((number, made)) = workshop.as_mut().and_then(Workshop::take) {
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
        let result = results.pop().unwrap_or_else(|| unreachable!("one request has one result"));
        result.map(Page::into_image)
    }

    /// Waits for the LSNs. Gives the numbers of the requests whose LSN is there, put in order by object, LSN and
    /// block, and the errors of all others.
    fn await_all(
        &self,
        requests: &[PageRequest],
        timeout: Duration,
        set: &mut impl FnMut(usize, Result<Page, GetPageError>),
    ) -> Vec<usize> {
        let mut ready = Vec::with_capacity(requests.len());
        let mut there: Option<Lsn> = None;
        for (number, request) in requests.iter().enumerate() {
            if there == Some(request.lsn) {
                ready.push(number);
                continue;
            }
            match self.await_lsn(request.lsn, timeout) {
                Ok(()) => {
                    there = Some(request.lsn);
                    ready.push(number);
                }
                Err(error) => set(number, Err(error)),
            }
        }
        // In runs mostly, which sort fast.
        ready.sort_by_key(|number| {
            requests
                .get(*number)
                .map(|request| (request.page.object, request.lsn, request.page.block))
        });
        ready
    }

    fn await_lsn(&self, lsn: Lsn, timeout: Duration) -> Result<(), GetPageError> {
        self.check_lsn(lsn)?;
        Ok(self.wait_lsn(lsn, timeout)?)
    }

    /// Plans pages of one object at one LSN that has been received, and hands each plan to `begin`.
    fn plan_group(
        self: &Arc<Self>,
        requests: &[PageRequest],
        group: &[usize],
        begin: &mut dyn FnMut(usize, Result<Plan, GetPageError>),
    ) {
        match self.try_plan_group(requests, group) {
            Ok(plans) => {
                for (number, plan) in group.iter().zip(plans) {
                    begin(*number, plan);
                }
            }
            Err(error) => match group {
                [number] => begin(*number, Err(error)),
                // Whatever it is, it is not to be the fault of pages that do not need it.
                _ => group.chunks(1).for_each(|one| self.plan_group(requests, one, begin)),
            },
        }
    }

    /// The plan for a page whose LSN has been received.
    pub(super) fn plan_request(
        self: &Arc<Self>,
        request: PageRequest,
    ) -> Result<Plan, GetPageError> {
        let plan = self.try_plan_group(&[request], &[0])?.pop();
        plan.unwrap_or_else(|| unreachable!("one request has one plan"))
    }

    /// The plans, or what keeps those from being made that are not there; an error may be that of one page.
    fn try_plan_group(
        self: &Arc<Self>,
        requests: &[PageRequest],
        group: &[usize],
    ) -> Result<Vec<Result<Plan, GetPageError>>, GetPageError> {
        let asked = || group.iter().filter_map(|number| requests.get(*number));
        let Some(PageRequest { page: ObjectPage { object, .. }, lsn }) = asked().next().copied()
        else {
            return Ok(Vec::new());
        };
        let size = self.unchecked_size(object, lsn)?;
        let blocks = asked().map(|request| request.page.block);
        let there: Vec<BlockNumber> =
            blocks.filter(|block| size.is_some_and(|size| block.0 < size)).collect();
        let plans = self.plan_pages(object, lsn, &there)?;
        // What was needed may have been removed meanwhile.
        self.check_lsn(lsn)?;
        // In ascending order, so that those which are not there come last.
        let not_found = asked().skip(there.len()).map(|request| {
            Err(GetPageError::NotFound { page: request.page, lsn: request.lsn, size })
        });
        Ok(plans.into_iter().map(Ok).chain(not_found).collect())
    }

    /// Begins with a page that is planned.
    fn begin(
        self: &Arc<Self>,
        plan: Plan,
        request: &PageRequest,
        wal: &mut WalPages,
    ) -> Result<Begun, GetPageError> {
        let Some(newest) = plan.newest else {
            return Ok(Begun::Done(plan.base.read()?.unwrap_or_else(Page::zeros)));
        };
        match self.maker.cache.lookup(newest) {
            Lookup::Hit(page) => Ok(Begun::Done(Page::Made(page))),
            Lookup::Wait(waiter) => Ok(Begun::Wait(waiter)),
            Lookup::Make(guard) => {
                let name = (self.id(), request.page);
                self.maker.backlog.add(self, name, request.lsn, plan.record_count());
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
    ) -> Result<Page, GetPageError> {
        let PageRequest { page, lsn } = *request;
        let mut image = made.map_err(|source| GetPageError::Make { page, lsn, source })?;
        self.set_checksum(page, &mut image);
        Ok(Page::Made(self.maker.keep(guard, image)))
    }

    /// Gives a page the checksum that PostgreSQL expects in it.
    pub(super) fn set_checksum(&self, page: ObjectPage, image: &mut PageImage) {
        if self.cluster.checksums && matches!(page.object, ObjectTag::Rel(_)) {
            page_checksum::set_checksum(image, page.block);
        }
    }

    /// Waits for a page that somebody else is making; makes it if they give up.
    fn wait_for_other(
        self: &Arc<Self>,
        request: &PageRequest,
        waiter: Waiter<VersionKey, PageImage>,
    ) -> Result<Page, GetPageError> {
        let mut lookup = waiter.wait();
        loop {
            match lookup {
                Lookup::Hit(page) => return Ok(Page::Made(page)),
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
    Done(Page),
    Make(MakeGuard<VersionKey, PageImage>, Job),
    Wait(Waiter<VersionKey, PageImage>),
}

/// Pages of one object that are planned together: at first and where they have long chains so few, that
/// redo of the first ones begins soon; otherwise more and more.
const GROUP_MIN: usize = 16;
const GROUP_MAX: usize = 128;
/// Records of a page from which on a chain is long here.
const LONG_CHAIN: usize = 8;

/// Requests, in order, as groups of the same object and LSN.
struct Groups<'a> {
    requests: &'a [PageRequest],
    /// Numbers of those that are left.
    rest: &'a [usize],
    /// Size of the group that was given last, and how large the next one may be.
    last: usize,
    max: usize,
}

impl<'a> Groups<'a> {
    fn of(requests: &'a [PageRequest], ordered: &'a [usize]) -> Groups<'a> {
        Groups { requests, rest: ordered, last: 0, max: GROUP_MIN }
    }

    fn next(&mut self) -> Option<&'a [usize]> {
        let name = |number: &usize| {
            self.requests.get(*number).map(|request| (request.page.object, request.lsn))
        };
        let first = name(self.rest.first()?);
        let same = self.rest.iter().take(self.max).take_while(|number| name(number) == first);
        let (group, rest) = self.rest.split_at_checked(same.count())?;
        (self.rest, self.last) = (rest, group.len());
        Some(group)
    }

    /// The group that was given last needs so many records.
    fn took(&mut self, records: usize) {
        self.max = match records >= self.last.saturating_mul(LONG_CHAIN) {
            true => GROUP_MIN,
            false => (self.max * 4).min(GROUP_MAX),
        };
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
