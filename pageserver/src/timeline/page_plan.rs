//! `Plan`: what a page at an LSN is made of: the versions to be applied, over all ancestors, and what they
//! stand on. Made under short read locks, of what is in memory and in layers; nothing of the WAL is read
//! before `Plan::job`.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use postgres_formats::wal::{DecodedRecord, Reassembled, WalRecord, reassemble};
use postgres_formats::{Lsn, PageImage};

use super::error::TimelineError;
use super::get_page::GetPageError;
use super::wal_pages::WalPages;
use super::{Below, Timeline};
use crate::index::{FoundVersion, Foundation, PageHistory, Version};
use crate::layer::delta::restored_image;
use crate::object::{DbTag, ObjectPage};
use crate::page::{KeptPage, Page};
use crate::page_maker::{Job, VersionKey};

/// Raw bytes read first for a record; most are shorter.
const RECORD_READ_FIRST: usize = 512;
/// What a record in the WAL is taken to be as long as, to make room for many at once.
const RECORD_BYTES_EXPECTED: usize = 128;

/// What a page's oldest needed version is built on.
#[derive(Default)]
pub(super) enum Base {
    #[default]
    Zero,
    Cached(Arc<PageImage>),
    Kept(KeptPage),
    Image(Arc<Below>, ObjectPage),
}

/// What the oldest version in a stretch stands on.
pub(super) enum Ground {
    Base(Base),
    /// The same page of another database at an LSN.
    CopyOf(DbTag, Lsn),
}

/// How to get a page.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) base: Base,
    /// Versions to be applied, newest first.
    parts: Vec<Versions>,
    /// Name of the newest of them.
    pub(super) newest: Option<VersionKey>,
}

/// Versions that a stretch has.
struct Versions {
    /// Whose history they are part of.
    timeline: Arc<Timeline>,
    /// The name under which the records know the page: another one than was asked for if the
    /// database was copied since.
    page: ObjectPage,
    /// At least one, newest first. A record that no layer has is read from the WAL.
    found: Vec<FoundVersion>,
}

impl Timeline {
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

/// Pages of a timeline that have been made and are at hand.
pub(super) struct MadePages<'a> {
    timeline: &'a Timeline,
    /// The page that was asked for last, and up to where it has versions there.
    last: Cell<Option<(ObjectPage, Lsn)>>,
}

impl<'a> MadePages<'a> {
    pub(super) fn of(timeline: &'a Timeline) -> MadePages<'a> {
        MadePages { timeline, last: Cell::new(None) }
    }

    /// The version of a page that the record ending at `end` makes.
    pub(super) fn get(&self, page: ObjectPage, end: Lsn) -> Option<Arc<PageImage>> {
        let (timeline, maker) = (self.timeline.id(), &self.timeline.maker);
        let bound = match self.last.get() {
            Some((last, bound)) if last == page => bound,
            _ => maker.cached_upto.bound(timeline, page),
        };
        self.last.set(Some((page, bound)));
        if end > bound {
            return None;
        }
        maker.cache.peek(&VersionKey { timeline, page, end })
    }
}

impl Base {
    /// The page; `None`: zeros.
    pub(super) fn read(self) -> Result<Option<Page>, GetPageError> {
        match self {
            Base::Zero => Ok(None),
            Base::Cached(page) => Ok(Some(Page::Made(page))),
            Base::Kept(page) => Ok(Some(Page::Kept(page))),
            Base::Image(below, page) => match &*below {
                Below::Image(layer) => {
                    let page = layer.page(page.object, page.block)?;
                    Ok(page.map(|page| Page::Made(Arc::new(page))))
                }
                Below::Ancestor(..) | Below::Nothing => Ok(None),
            },
        }
    }
}

impl Plan {
    /// Takes in the versions that a stretch has. Gives what the oldest of them stands on, unless that
    /// is what lies below the stretch.
    pub(super) fn take(
        &mut self,
        timeline: &Arc<Timeline>,
        made: &MadePages<'_>,
        page: ObjectPage,
        history: PageHistory,
    ) -> Option<Ground> {
        let mut versions = history.versions;
        let at_hand = |(number, found): (usize, &FoundVersion)| {
            made.get(page, found.version.end()).map(|cached| (number, cached))
        };
        // A version that is at hand spares everything before it.
        let cached = versions.iter().enumerate().find_map(at_hand);
        if let Some((number, _)) = cached {
            versions.truncate(number);
        }
        if let Some(newest) = versions.first() {
            let end = newest.version.end();
            self.newest.get_or_insert(VersionKey { timeline: timeline.id(), page, end });
            self.parts.push(Versions { timeline: timeline.clone(), page, found: versions });
        }
        if let Some((_, cached)) = cached {
            return Some(Ground::Base(Base::Cached(cached)));
        }
        match history.foundation {
            Foundation::Version | Foundation::Zero => Some(Ground::Base(Base::Zero)),
            Foundation::CopyOf(from, at) => Some(Ground::CopyOf(from, at)),
            Foundation::Kept(page) => Some(Ground::Base(Base::Kept(page))),
            Foundation::Made(page) => Some(Ground::Base(Base::Cached(page))),
            Foundation::Below => None,
        }
    }

    /// The versions, oldest first: whose, of which page, start and end of the record, whether it needs no older.
    #[cfg(test)]
    pub(super) fn versions(
        &self,
    ) -> Vec<(postgres_formats::TimelineId, ObjectPage, Lsn, Lsn, bool)> {
        let said = |part: &Versions| {
            let (timeline, page) = (part.timeline.id(), part.page);
            let version = move |found: &FoundVersion| {
                let version = found.version;
                (timeline, page, version.start(), version.end(), version.will_init())
            };
            part.found.iter().rev().map(version).collect::<Vec<_>>()
        };
        self.parts.iter().rev().flat_map(said).collect()
    }

    /// How many versions are to be applied.
    pub(super) fn record_count(&self) -> usize {
        self.parts.iter().map(|part| part.found.len()).sum()
    }

    /// Reads what the plan names.
    pub(super) fn job(self, wal: &mut WalPages) -> Result<Job, GetPageError> {
        let kept_bytes = |found: &FoundVersion| {
            found.record.as_ref().map_or(RECORD_BYTES_EXPECTED, |record| record.bytes.len())
        };
        let bytes = self.parts.iter().flat_map(|part| &part.found).map(kept_bytes).sum();
        let expected = (self.record_count(), bytes);
        let mut job = Job::new(self.base.read()?.map(Page::into_image), expected);
        for Versions { timeline, page, found } in self.parts.into_iter().rev() {
            for version in found.into_iter().rev() {
                add(&mut job, &timeline, page, version, wal)?;
            }
        }
        Ok(job)
    }
}

/// Adds the newest version so far to a job.
fn add(
    job: &mut Job,
    timeline: &Timeline,
    page: ObjectPage,
    FoundVersion { version, record }: FoundVersion,
    wal: &mut WalPages,
) -> Result<(), GetPageError> {
    let record = match record {
        Some(record) => record,
        None => wal.record(timeline, version)?,
    };
    let start = record.start;
    let damaged =
        |source| TimelineError::DamagedRecord { timeline: timeline.id(), lsn: start, source };
    // An image mostly answers without any redo. Nothing else of a record is looked into that
    // PostgreSQL's redo will take apart itself.
    if version.will_init() && !version.is_native() {
        let decoded = DecodedRecord::parse(&record.bytes).map_err(damaged)?;
        if let Some(image) = restored_image(&decoded, page, &record) {
            job.begin_with(image);
            return Ok(());
        }
    }
    match version.is_native() {
        true => job.apply(page, record),
        false => job.redo(page, record),
    }
    .map_err(damaged)?;
    Ok(())
}
