//! Which segments of a "simple LRU" a truncation record removes.
//!
//! Source: PostgreSQL `SimpleLruTruncate`, `SlruMayDeleteSegment` in `slru.c`,
//! `PerformMembersTruncation` in `multixact.c`.

use postgres_formats::SlruKind;
use postgres_formats::slru::SLRU_PAGES_PER_SEGMENT;

/// Removal of old segments. Page numbers wrap around, so "older" is circular: ask
/// [`SlruTruncation::removes`] for each existing segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlruTruncation {
    /// Which files.
    pub kind: SlruKind,
    /// Which of their segments.
    pub range: TruncatedRange,
}

/// How a truncation record says what goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncatedRange {
    /// Every segment whose first and last pages are both older than this page.
    BeforePage(u32),
    /// Segments from `first` up to but not including `end`, going around after the last possible
    /// segment if `end` is smaller; none if they are equal.
    Segments {
        /// The first segment to go.
        first: u32,
        /// The first segment to stay.
        end: u32,
    },
}

impl SlruTruncation {
    /// Whether segment number `segment` goes, given the newest page in use before the record.
    ///
    /// `newest_page` is that of the newest entry ever assigned (commit log: of the id before the
    /// checkpoint state's next transaction id). If even this looks older than the
    /// cutoff, ids have apparently wrapped around and PostgreSQL leaves every file alone. `None`
    /// leaves this check out, as PostgreSQL's redo does for multitransactions.
    pub fn removes(&self, segment: u32, newest_page: Option<u32>) -> bool {
        match self.range {
            TruncatedRange::BeforePage(cutoff) => {
                if newest_page.is_some_and(|newest| self.kind.page_precedes(newest, cutoff)) {
                    return false;
                }
                let Some(first) = segment.checked_mul(SLRU_PAGES_PER_SEGMENT) else {
                    return false;
                };
                let last = first.saturating_add(SLRU_PAGES_PER_SEGMENT - 1);
                self.kind.page_precedes(first, cutoff) && self.kind.page_precedes(last, cutoff)
            }
            TruncatedRange::Segments { first, end } => {
                if first <= end {
                    (first..end).contains(&segment)
                } else {
                    segment >= first || segment < end
                }
            }
        }
    }
}
