//! Checkpoints: a branch's history is put into layers up to its end, so that the next start of the page
//! server has no WAL of it to index.

use postgres_formats::{Lsn, TimelineId};
use serde::{Serialize, Serializer};

use crate::branch::{Branch, check_name};
use crate::control::Row;
use crate::error::Result;
use crate::repository::Repository;

/// What a checkpoint has given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Checkpoint {
    /// The branch.
    pub branch: String,
    /// Its timeline.
    #[serde(serialize_with = "as_text")]
    pub timeline: TimelineId,
    /// Up to where its history is in layers.
    #[serde(serialize_with = "as_text")]
    pub lsn: Lsn,
    /// The layers written for it, oldest first; none if all of it was in layers already.
    pub layers: Vec<Layer>,
}

/// A layer that was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Layer {
    /// Name of its file.
    pub name: String,
    /// Size of its file.
    pub bytes: u64,
    /// How many bytes of WAL it stands for.
    pub wal_bytes: u64,
}

pub(crate) fn as_text<T: ToString, S: Serializer>(
    value: &T,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

impl Repository {
    /// Puts the history of the branch with this name, by default of the default branch, into layers: all
    /// that its compute has made durable by now.
    pub fn checkpoint(&self, name: Option<&str>) -> Result<Checkpoint> {
        let name = check_name(name.unwrap_or(&self.config().default_branch))?;
        self.checkpoint_of(&self.branch(&name)?)
    }

    /// The same of a branch that was looked up.
    pub fn checkpoint_of(&self, branch: &Branch) -> Result<Checkpoint> {
        self.catch_up(branch.timeline)?;
        let rows = self.control()?.rows(&format!("checkpoint {}", branch.timeline))?;
        let mut lsn = branch.last_record_lsn.unwrap_or(Lsn::INVALID);
        let mut layers = Vec::new();
        for row in &rows {
            match row.optional("layer") {
                Some(_) => layers.push(layer_of(row)?),
                None => lsn = row.value("lsn")?,
            }
        }
        let branch_name = branch.name.to_string();
        Ok(Checkpoint { branch: branch_name, timeline: branch.timeline, lsn, layers })
    }
}

fn layer_of(row: &Row) -> Result<Layer> {
    Ok(Layer {
        name: row.value("layer")?,
        bytes: row.value("bytes")?,
        wal_bytes: row.value("wal_bytes")?,
    })
}
