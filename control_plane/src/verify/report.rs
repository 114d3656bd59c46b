//! What a verification has found.

use std::collections::BTreeMap;

use postgres_formats::{BlockNumber, Lsn, RelTag, TimelineId};

use crate::branch::Branch;

/// Differences that are told in detail; of more there is only the number.
const DETAILS_MAX: usize = 20;

/// How many were compared, and how many of them differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// All.
    pub compared: u64,
    /// Those that differ.
    pub different: u64,
}

/// Why a difference is none of the page server's: each reason is a matter of what PostgreSQL logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Permitted {
    /// Redo makes a visibility map when it looks at it to clear a bit, and logs nothing of that. A map
    /// without a bit means the same as no map.
    EmptyVisibilityMap,
}

impl Permitted {
    /// A short name, stable.
    pub fn name(self) -> &'static str {
        match self {
            Permitted::EmptyVisibilityMap => "empty_visibility_map",
        }
    }
}

/// Pages by what the comparison gave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageCounts {
    /// All.
    pub compared: u64,
    /// Equal in every byte.
    pub equal: u64,
    /// Equal in all that WAL promises, as PostgreSQL's masks have it.
    pub masked_equal: u64,
    /// Different for a reason that is known.
    pub permitted: BTreeMap<Permitted, u64>,
    /// Different.
    pub different: u64,
}

/// A difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// What differs: `page`, `size`, `relation` or `file`.
    pub kind: &'static str,
    /// The relation fork, if it is about one.
    pub relation: Option<RelTag>,
    /// The relation's name, or the file's path.
    pub name: Option<String>,
    /// The page, if it is about one.
    pub block: Option<BlockNumber>,
    /// LSN on the page server's page.
    pub our_lsn: Option<Lsn>,
    /// LSN on the stock server's page.
    pub their_lsn: Option<Lsn>,
    /// In words.
    pub detail: String,
}

impl Difference {
    pub(super) fn of_relation(kind: &'static str, relation: RelTag, detail: String) -> Difference {
        Difference {
            kind,
            relation: Some(relation),
            name: None,
            block: None,
            our_lsn: None,
            their_lsn: None,
            detail,
        }
    }

    pub(super) fn of_file(path: &str, detail: String) -> Difference {
        Difference {
            kind: "file",
            relation: None,
            name: Some(path.to_owned()),
            block: None,
            our_lsn: None,
            their_lsn: None,
            detail,
        }
    }
}

/// How long the parts took.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Seconds {
    /// Copying the base image and the WAL.
    pub copying: f64,
    /// Recovery by the stock server.
    pub recovering: f64,
    /// Comparing.
    pub comparing: f64,
    /// Looking at what is not equal.
    pub judging: f64,
}

/// The result.
#[derive(Clone, PartialEq, Debug)]
pub struct Verification {
    /// The branch.
    pub branch: String,
    /// Its timeline.
    pub timeline: TimelineId,
    /// At which LSN.
    pub lsn: Lsn,
    /// Relation forks: whether they are there, and their sizes.
    pub relations: Count,
    /// Pages of relations.
    pub pages: PageCounts,
    /// Segments of the commit log and of multixacts.
    pub slru_segments: Count,
    /// Other files: relation maps, prepared transactions, databases' version files, the counters in
    /// `pg_control`.
    pub files: Count,
    /// The first differences in detail.
    pub differences: Vec<Difference>,
    /// How long it took.
    pub seconds: Seconds,
}

impl Verification {
    pub(super) fn new(branch: &Branch, lsn: Lsn) -> Verification {
        Verification {
            branch: branch.name.to_string(),
            timeline: branch.timeline,
            lsn,
            relations: Count::default(),
            pages: PageCounts::default(),
            slru_segments: Count::default(),
            files: Count::default(),
            differences: Vec::new(),
            seconds: Seconds::default(),
        }
    }

    /// How many differences there are.
    pub fn different(&self) -> u64 {
        let counts = [self.relations, self.slru_segments, self.files];
        counts.iter().map(|count| count.different).sum::<u64>() + self.pages.different
    }

    pub(super) fn describe(&mut self, difference: Difference) {
        if self.differences.len() < DETAILS_MAX {
            self.differences.push(difference);
        }
    }

    pub(super) fn permit(&mut self, reason: Permitted, pages: u64) {
        *self.pages.permitted.entry(reason).or_default() += pages;
    }
}
