//! Garbage collection: layers of a branch's history that nobody can ask for any more are removed.

use postgres_formats::{Lsn, TimelineId};
use serde::Serialize;

use crate::branch::check_name;
use crate::checkpoint::as_text;
use crate::control::Row;
use crate::error::{Error, Result};
use crate::repository::Repository;

/// What a collection has removed, or would remove.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Collected {
    /// The branch.
    pub branch: String,
    /// Its timeline.
    #[serde(serialize_with = "as_text")]
    pub timeline: TimelineId,
    /// Every LSN from here on can be asked for, and of those before the points of branches and tags.
    #[serde(serialize_with = "as_text")]
    pub horizon: Lsn,
    /// The layers.
    pub layers: Vec<CollectedLayer>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Whether they are still there, because nobody wanted more than to know.
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

impl Repository {
    /// Removes the layers of the branch with this name, by default of the default branch, that are needed
    /// neither for the window of retention nor for branches, tags and computes; or tells which these
    /// are.
    ///
    /// # Errors
    /// `Conflict` if a compute reads pages at an LSN that would be gone.
    pub fn gc(&self, name: Option<&str>, dry_run: bool) -> Result<Collected> {
        let name = check_name(name.unwrap_or(&self.config().default_branch))?;
        let branch = self.branch(&name)?;
        let ask = |word: &str| {
            let rows = self.control()?.rows(&format!("gc {}{word}", branch.timeline))?;
            collected(&branch.name.to_string(), branch.timeline, &rows, dry_run)
        };
        let would_go = ask(" dry")?;
        // The page server does not know of them, and they move forward only.
        if let Some(compute) = self.computes()?.into_iter().find(|compute| {
            compute.timeline() == branch.timeline && compute.base_lsn() < would_go.horizon
        }) && !would_go.layers.is_empty()
        {
            let (name, base) = (compute.name(), compute.base_lsn());
            return Err(Error::Conflict(format!(
                "compute {name:?} reads pages at {base}, and nothing is to be kept before {}; move it \
                 forward first: `zenith pg advance {name}`",
                would_go.horizon
            )));
        }
        if dry_run { Ok(would_go) } else { ask("") }
    }
}

fn collected(branch: &str, timeline: TimelineId, rows: &[Row], dry_run: bool) -> Result<Collected> {
    let (mut horizon, mut bytes) = (Lsn::INVALID, 0);
    let mut layers = Vec::new();
    for row in rows {
        match row.optional("layer") {
            Some(name) => {
                layers.push(CollectedLayer { name: name.to_owned(), bytes: row.value("bytes")? });
            }
            None => (horizon, bytes) = (row.value("lsn")?, row.value("bytes")?),
        }
    }
    Ok(Collected { branch: branch.to_owned(), timeline, horizon, layers, bytes, dry_run })
}
