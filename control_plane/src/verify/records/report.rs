//! What the check of records has found.

use std::collections::BTreeMap;

use postgres_formats::{Lsn, TimelineId};
use serde::{Serialize, Serializer};

use crate::branch::Branch;
use crate::verify::report::{self, Difference, PageCounts};

/// Records and images of one resource manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ManagerCounts {
    /// Records.
    pub records: u64,
    /// Images for comparison only, as `wal_consistency_checking` adds them.
    pub consistency_images: u64,
    /// Images that take the page's place.
    pub applied_images: u64,
    /// Pages that differ from their images.
    pub different: u64,
}

/// The result.
#[derive(Clone, PartialEq, Debug)]
pub struct RecordsVerification {
    /// The branch.
    pub branch: String,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Records that end behind this were looked at,
    pub since: Lsn,
    /// and that end at or before this.
    pub lsn: Lsn,
    /// How many records that are.
    pub records: u64,
    /// Images, and what the comparison with them gave.
    pub images: PageCounts,
    /// By PostgreSQL's name of the resource manager.
    pub managers: BTreeMap<String, ManagerCounts>,
    /// The first differences in detail.
    pub differences: Vec<Difference>,
    /// How long it took.
    pub seconds: f64,
}

impl RecordsVerification {
    pub(super) fn new(branch: &Branch, since: Lsn, lsn: Lsn) -> RecordsVerification {
        RecordsVerification {
            branch: branch.name.to_string(),
            timeline: branch.timeline,
            since,
            lsn,
            records: 0,
            images: PageCounts::default(),
            managers: BTreeMap::new(),
            differences: Vec::new(),
            seconds: 0.0,
        }
    }

    /// How many differences there are.
    pub fn different(&self) -> u64 {
        self.images.different
    }

    pub(super) fn manager(&mut self, name: &str) -> &mut ManagerCounts {
        if !self.managers.contains_key(name) {
            self.managers.insert(name.to_owned(), ManagerCounts::default());
        }
        self.managers.entry(name.to_owned()).or_default()
    }

    pub(super) fn differs(&mut self, difference: Difference) {
        self.images.different += 1;
        if let Some(name) = &difference.manager {
            self.managers.entry(name.clone()).or_default().different += 1;
        }
        report::keep(&mut self.differences, difference);
    }
}

impl Serialize for RecordsVerification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let mut fields = serializer.serialize_struct("RecordsVerification", 10)?;
        fields.serialize_field("branch", &self.branch)?;
        fields.serialize_field("timeline", &self.timeline.to_string())?;
        fields.serialize_field("since", &self.since.to_string())?;
        fields.serialize_field("lsn", &self.lsn.to_string())?;
        fields.serialize_field("different", &self.different())?;
        fields.serialize_field("records", &self.records)?;
        fields.serialize_field("images", &self.images)?;
        fields.serialize_field("resource_managers", &self.managers)?;
        fields.serialize_field("differences", &self.differences)?;
        fields.serialize_field("seconds", &self.seconds)?;
        fields.end()
    }
}
