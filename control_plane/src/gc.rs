//! Garbage collection: layers of a branch's history that nobody can ask for any more are removed.

use postgres_formats::{Lsn, TimelineId};
use serde::{Serialize, Serializer};

use crate::branch::check_name;
use crate::checkpoint::as_text;
use crate::control::Row;
use crate::error::Result;
use crate::repository::Repository;

/// What a collection has removed, or would remove, and who keeps it from removing more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Collected {
    /// The branch; of history that is kept for others, the one that it was of.
    pub branch: String,
    /// Its timeline.
    #[serde(serialize_with = "as_text")]
    pub timeline: TimelineId,
    /// Whether the branch is gone, and its history kept for those that were made from it.
    pub is_kept: bool,
    /// Every LSN from here on can be asked for, and of those before what is held; `None`: only that.
    #[serde(serialize_with = "as_optional_text")]
    pub horizon: Option<Lsn>,
    /// The layers.
    pub layers: Vec<CollectedLayer>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of those that stay.
    pub bytes_left: u64,
    /// Who needs history that the branch's own retention does not.
    pub held: Vec<Held>,
    /// Whether the layers are still there, because nobody wanted more than to know.
    pub dry_run: bool,
}

/// A layer that is not needed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CollectedLayer {
    /// Name of its file.
    pub name: String,
    /// Size of its file.
    pub bytes: u64,
}

/// History that somebody needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Held {
    /// Who: a branch, a tag, a compute, a reader.
    pub by: String,
    /// Where it begins.
    #[serde(serialize_with = "as_text")]
    pub from: Lsn,
    /// Up to where, this LSN included; `None`: to the end.
    #[serde(serialize_with = "as_optional_text")]
    pub to: Option<Lsn>,
    /// Bytes of layers that are there for it, and that the branch's own retention does not need; others may
    /// need them, too.
    pub bytes: u64,
}

fn as_optional_text<T: ToString, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match value {
        Some(value) => as_text(value, serializer),
        None => serializer.serialize_none(),
    }
}

impl Repository {
    /// Removes the layers of the branch with this name that are needed neither for what its retention says nor
    /// for branches, tags, computes and readers; or tells which these are.
    pub fn gc(&self, name: &str, dry_run: bool) -> Result<Collected> {
        self.register_computes()?;
        let branch = self.branch(&check_name(name)?)?;
        self.collect(&branch.name, branch.timeline, false, dry_run)
    }

    /// The same of all branches, and of the history of former ones that is kept for others.
    pub fn gc_all(&self, dry_run: bool) -> Result<Vec<Collected>> {
        self.register_computes()?;
        let mut all = Vec::new();
        for branch in self.branches()? {
            all.push(self.collect(&branch.name, branch.timeline, false, dry_run)?);
        }
        for row in self.control()?.rows("kept_list")? {
            all.push(self.collect(row.text("name")?, row.value("timeline")?, true, dry_run)?);
        }
        Ok(all)
    }

    fn collect(
        &self,
        branch: &str,
        timeline: TimelineId,
        is_kept: bool,
        dry_run: bool,
    ) -> Result<Collected> {
        let dry = if dry_run { " dry" } else { "" };
        let rows = self.control()?.rows(&format!("gc {timeline}{dry}"))?;
        let mut collected = Collected {
            branch: branch.to_owned(),
            timeline,
            is_kept,
            horizon: None,
            layers: Vec::new(),
            bytes: 0,
            bytes_left: 0,
            held: Vec::new(),
            dry_run,
        };
        for row in &rows {
            if let Some(name) = row.optional("layer") {
                let (name, bytes) = (name.to_owned(), row.value("bytes")?);
                collected.layers.push(CollectedLayer { name, bytes });
            } else if let Some(by) = row.optional("holder") {
                collected.held.push(held(by, row)?);
            } else {
                collected.horizon = row.optional_value("lsn")?;
                collected.bytes = row.value("bytes")?;
                collected.bytes_left = row.value("bytes_left")?;
            }
        }
        Ok(collected)
    }
}

fn held(by: &str, row: &Row) -> Result<Held> {
    Ok(Held {
        by: by.to_owned(),
        from: row.value("lsn")?,
        to: row.optional_value("to_lsn")?,
        bytes: row.value("bytes")?,
    })
}
