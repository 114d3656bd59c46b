//! What the deep part of a verification has found.

use serde::Serialize;

use super::super::report::{Difference, Verification};

/// What `amcheck` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct AmcheckCounts {
    /// Tables and B-tree indexes that it looked at.
    pub relations: u64,
    /// What it found.
    pub different: u64,
}

/// Pages by their checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ChecksumCounts {
    /// Whether the cluster has checksums. Otherwise the rest is 0.
    pub enabled: bool,
    /// All pages.
    pub pages: u64,
    /// Those that were never written to, which have no checksum.
    pub new_pages: u64,
    /// Those with a wrong one.
    pub different: u64,
}

/// What is in the dumps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DumpCounts {
    /// Bytes that are equal.
    pub bytes: u64,
    /// 1 if they are not equal: the first difference ends the comparison.
    pub different: u64,
}

/// The three together.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct DeepCounts {
    /// `pg_amcheck` on a compute.
    pub amcheck: AmcheckCounts,
    /// Checksums of the page server's pages.
    pub checksums: ChecksumCounts,
    /// `pg_dumpall` of a compute and of the stock server.
    pub dump: DumpCounts,
    /// How long it took.
    pub seconds: f64,
}

impl DeepCounts {
    /// How many differences there are.
    pub fn different(&self) -> u64 {
        self.amcheck.different + self.checksums.different + self.dump.different
    }
}

impl Verification {
    pub(super) fn deep_counts(&mut self) -> &mut DeepCounts {
        self.deep.get_or_insert_default()
    }

    pub(super) fn amcheck_differs(&mut self, name: &str, detail: String) {
        self.deep_counts().amcheck.different += 1;
        self.describe(named("amcheck", name, detail));
    }

    pub(super) fn dump_differs(&mut self, name: &str, detail: String) {
        self.deep_counts().dump.different += 1;
        self.describe(named("dump", name, detail));
    }
}

fn named(kind: &'static str, name: &str, detail: String) -> Difference {
    let name = (!name.is_empty()).then(|| name.to_owned());
    Difference { kind, name, detail, ..Difference::default() }
}
