//! `Plan`: what a page at an LSN is made of: the versions to be applied, over all ancestors, and what they
//! stand on. Made under short read locks, of what is in memory and in layers; nothing of the WAL is read
//! before `Plan::job`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use postgres_formats::wal::{DecodedRecord, Reassembled, WalRecord, reassemble};
use postgres_formats::{Lsn, PageImage};

use super::error::TimelineError;
use super::get_page::GetPageError;
use super::wal_pages::WalPages;
use super::{Below, Timeline};
use crate::index::{FoundVersion, Foundation, PageHistory, Version};
use crate::layer::delta::{KeptVersion, restored_image};
use crate::layer::image::LayerError;
use crate::object::{DbTag, ObjectPage};
use crate::page_maker::{Job, VersionKey};

/// Raw bytes read first for a record; most are shorter.
const RECORD_READ_FIRST: usize = 512;
/// What a record in the WAL is taken to be as long as, to make room for many at once.
const RECORD_BYTES_EXPECTED: usize = 128;

/// What a page's oldest needed version is built on.
pub(super) enum Base {
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
pub(super) struct Plan {
    pub(super) base: Base,
    /// Versions to be applied, oldest first.
    versions: Vec<PlannedVersion>,
    /// Name of the newest of them.
    pub(super) newest: Option<VersionKey>,
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
    /// Finds what a page is made of at `lsn`.
    pub(super) fn plan(self: &Arc<Self>, page: ObjectPage, lsn: Lsn) -> Result<Plan, LayerError> {
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

impl Base {
    /// The page; `None`: zeros.
    pub(super) fn read(&self) -> Result<Option<Arc<PageImage>>, GetPageError> {
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
        let cached_upto = timeline.maker.cached_upto.bound(timeline.id(), page);
        for FoundVersion { version, kept } in history.versions {
            let key = VersionKey { timeline: timeline.id(), page, end: version.end() };
            if self.newest.is_none() {
                self.newest = Some(key);
            } else if key.end <= cached_upto
                && let Some(cached) = timeline.maker.cache.peek(&key)
            {
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

    /// How many versions are to be applied.
    pub(super) fn record_count(&self) -> usize {
        self.versions.len()
    }

    /// Reads what the plan names.
    pub(super) fn job(self, wal: &mut WalPages) -> Result<Job, GetPageError> {
        let kept_bytes = |version: &PlannedVersion| match &version.kept {
            Some(KeptVersion::Record(record)) => record.bytes.len(),
            Some(KeptVersion::Image(_)) => 0,
            None => RECORD_BYTES_EXPECTED,
        };
        let bytes = self.versions.iter().map(kept_bytes).sum();
        let mut job = Job::new(self.base.read()?, (self.versions.len(), bytes));
        for PlannedVersion { timeline, version, kept, page } in self.versions {
            let record = match kept {
                Some(KeptVersion::Image(image)) => {
                    let mut page = PageImage::zeroed();
                    page.copy_from_slice(&image);
                    job.begin_with(page);
                    continue;
                }
                Some(KeptVersion::Record(record)) => record,
                None => wal.record(&timeline, version)?,
            };
            let start = record.start;
            let damaged = |source| TimelineError::DamagedRecord {
                timeline: timeline.id(),
                lsn: start,
                source,
            };
            // An image mostly answers without any redo. Nothing else of a record is looked into that
            // PostgreSQL's redo will take apart itself.
            if version.will_init() && !version.is_native() {
                let decoded = DecodedRecord::parse(&record.bytes).map_err(damaged)?;
                if let Some(image) = restored_image(&decoded, page, &record) {
                    job.begin_with(image);
                    continue;
                }
            }
            match version.is_native() {
                true => job.apply(page, record),
                false => job.redo(page, record),
            }
            .map_err(damaged)?;
        }
        Ok(job)
    }
}
