//! `WalPages`: pages of WAL that were read for the records of one page of a relation, and are likely to
//! have those of the next.
//!
//! They live as long as a batch of requests. What stands in them could be out of date only where WAL was
//! cut off and written anew meanwhile, and that is never WAL which had been indexed: so a page of WAL
//! counts as far as it was indexed when it was read.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use postgres_formats::lsn::XLOG_BLCKSZ;
use postgres_formats::wal::{WalRecord, record_within_page};
use postgres_formats::{Lsn, TimelineId};

use super::Timeline;
use super::error::TimelineError;
use crate::index::Version;

/// Pages kept at most: 8 MiB. When there are as many, all are forgotten.
const PAGES_MAX: usize = 1024;
/// Requests in a batch from which on it pays to read a whole page for a record.
const REQUESTS_MIN: usize = 8;

/// Pages of WAL, as far as they were indexed when they were read.
pub(super) struct WalPages {
    pages: HashMap<(TimelineId, Lsn), (Bytes, Lsn)>,
    used: bool,
}

impl WalPages {
    /// None yet, for so many requests.
    pub(super) fn for_requests(requests: usize) -> WalPages {
        WalPages { pages: HashMap::new(), used: requests >= REQUESTS_MIN }
    }

    /// Reads a record again whose place is known.
    pub(super) fn record(
        &mut self,
        timeline: &Timeline,
        version: Version,
    ) -> Result<WalRecord, TimelineError> {
        if self.used
            && let Some(record) = self.find(timeline, version)
        {
            return Ok(record);
        }
        timeline.read_record(version)
    }

    /// The record, if all of it is in one page of WAL; whatever else there is to say of it,
    /// `Timeline::read_record` knows.
    fn find(&mut self, timeline: &Timeline, version: Version) -> Option<WalRecord> {
        let key = (timeline.id(), version.start().page_start());
        if !self.pages.contains_key(&key) {
            if self.pages.len() >= PAGES_MAX {
                self.pages.clear();
            }
            // Before it is read.
            let indexed = timeline.last_record_lsn();
            let mut page = BytesMut::zeroed(XLOG_BLCKSZ as usize);
            let got = timeline.wal.read(key.1, &mut page).ok()?;
            page.truncate(got);
            self.pages.insert(key, (page.freeze(), indexed));
        }
        let (page, indexed) = self.pages.get(&key)?;
        if version.end() > *indexed {
            return None;
        }
        record_within_page(version.start(), page).filter(|record| record.end == version.end())
    }
}
