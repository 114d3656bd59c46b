//! Branches: names for lines of history, kept by the page server.

use std::fmt;
use std::time::{Duration, SystemTime};

use pageserver_client::{At, BranchName, BranchNameError, Point, RetentionSpec};
use postgres_formats::{Lsn, TimelineId, Timestamp};

use crate::control::{Row, quote};
use crate::error::{Error, Result, Thing};
use crate::repository::Repository;

/// SQLSTATE of a thing that is not there.
pub(crate) const UNDEFINED_OBJECT: &str = "42704";
/// SQLSTATE of a thing that is there already.
pub(crate) const DUPLICATE_OBJECT: &str = "42710";

/// SQLSTATE of what is stored and is not as it was.
pub(crate) const DATA_CORRUPTED: &str = "XX001";

/// A branch as the page server tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    /// Its name.
    pub name: BranchName,
    /// The line of history it stands for.
    pub timeline: TimelineId,
    /// Where its history left that of another; `None` for the root of a tree.
    pub ancestor: Option<Ancestor>,
    /// End of the last record that the page server has of it.
    pub last_record_lsn: Option<Lsn>,
    /// Whether it is meant where no branch is named.
    pub is_default: bool,
    /// That the page server takes in no more WAL of it, where and why.
    pub stop: Option<Stop>,
    /// Whether it cannot be deleted.
    pub protected: bool,
    /// When it may go by itself, as the page server writes times.
    pub expires: Option<String>,
    /// How much of its history is kept.
    pub retention: RetentionSpec,
    /// Why it is still there though it has expired.
    pub kept_because: Option<String>,
    /// Whether it is being detached from what it was made from.
    pub detaching: bool,
}

/// That the page server takes in no more WAL of a branch. Everything up to there is readable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Up to where everything is there; `None` if nothing can be read.
    pub lsn: Option<Lsn>,
    /// Whether it is what the page server has on disk that is damaged, rather than what came.
    pub is_damage: bool,
    /// Why, and what can be done.
    pub cause: String,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lsn {
            Some(lsn) => write!(f, "WAL stopped at {lsn}: {}", self.cause),
            None => write!(f, "it cannot be read: {}", self.cause),
        }
    }
}

/// A branch that cannot be used because files of it are damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedBranch {
    /// Its name.
    pub name: BranchName,
    /// The line of history it stands for; `None` if that is just what cannot be read.
    pub timeline: Option<TimelineId>,
    /// Whether it is meant where no branch is named.
    pub is_default: bool,
    /// Which file, and what is wrong with it.
    pub cause: String,
}

/// All branches at one moment, each kind sorted by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Branches {
    /// Those that can be used.
    pub usable: Vec<Branch>,
    /// Those that cannot be used because files of theirs are damaged.
    pub damaged: Vec<DamagedBranch>,
}

/// The stop that a row tells of.
pub(crate) fn stop_of(row: &Row) -> Result<Option<Stop>> {
    let Some(cause) = row.optional("cause") else { return Ok(None) };
    Ok(Some(Stop {
        lsn: row.optional_value("stopped_lsn")?,
        is_damage: row.optional("state") != Some("stopped"),
        cause: cause.to_owned(),
    }))
}

/// Where a branch comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ancestor {
    /// The line of history it left.
    pub timeline: TimelineId,
    /// Name of a branch that stands for that line now, if there is one.
    pub branch: Option<BranchName>,
    /// Where it left.
    pub lsn: Lsn,
}

impl Repository {
    /// All branches, sorted by name.
    pub fn branches(&self) -> Result<Vec<Branch>> {
        Ok(self.all_branches()?.usable)
    }

    /// All branches, also those that cannot be used because files of theirs are damaged.
    pub fn all_branches(&self) -> Result<Branches> {
        let rows = self.control()?.rows("branch_list")?;
        Ok(Branches { usable: self.branches_of(&rows)?, damaged: self.damaged_of(&rows)? })
    }

    fn damaged_of(&self, rows: &[Row]) -> Result<Vec<DamagedBranch>> {
        let damaged = rows.iter().filter(|row| row.optional("start_lsn").is_none());
        let mut damaged = damaged
            .map(|row| {
                let name: BranchName = row.value("name")?;
                Ok(DamagedBranch {
                    timeline: row.optional_value("timeline")?,
                    is_default: *name == *self.config().default_branch,
                    cause: row.value("cause")?,
                    name,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        damaged.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(damaged)
    }

    fn branches_of(&self, rows: &[Row]) -> Result<Vec<Branch>> {
        let whole = rows.iter().filter(|row| row.optional("start_lsn").is_some());
        let mut branches = whole.map(|row| self.branch_of(row)).collect::<Result<Vec<_>>>()?;
        branches.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(branches)
    }

    fn branch_of(&self, row: &Row) -> Result<Branch> {
        let name: BranchName = row.value("name")?;
        let ancestor = match row.optional_value("ancestor_timeline")? {
            None => None,
            Some(timeline) => Some(Ancestor {
                timeline,
                branch: row.optional_value("ancestor_branch")?,
                lsn: row.value("ancestor_lsn")?,
            }),
        };
        Ok(Branch {
            timeline: row.value("timeline")?,
            ancestor,
            last_record_lsn: row.optional_value("last_record_lsn")?,
            is_default: *name == *self.config().default_branch,
            stop: stop_of(row)?,
            protected: row.optional("protected") == Some("true"),
            expires: row.optional("expires").map(str::to_owned),
            retention: row.optional_value("retention")?.unwrap_or(RetentionSpec::Default),
            kept_because: row.optional("kept_because").map(str::to_owned),
            detaching: row.optional("detaching") == Some("true"),
            name,
        })
    }

    /// The branch with this name.
    pub fn branch(&self, name: &str) -> Result<Branch> {
        // No branch has a name that is none.
        check_name(name).map_err(|_| no_branch(name))?;
        self.branch_in(&format!("branch_show {}", quote(name)), name, name)
    }

    /// The branch that a command answers with; `used` and `made` as in `typed`.
    pub(crate) fn branch_in(&self, command: &str, used: &str, made: &str) -> Result<Branch> {
        let rows = self.control()?.rows(command).map_err(|error| self.typed(error, used, made))?;
        let row = rows.first().ok_or_else(|| no_branch(made))?;
        self.branch_of(row)
    }

    /// Makes a branch at `point`; without one, at the end of the default branch.
    pub fn create_branch(&self, name: &str, point: Option<&Point>) -> Result<Branch> {
        self.create_branch_for(name, point, None)
    }

    /// The same; it may go by itself after `lifetime`.
    pub fn create_branch_for(
        &self,
        name: &str,
        point: Option<&Point>,
        lifetime: Option<Duration>,
    ) -> Result<Branch> {
        check_name(name)?;
        let mut point = match point {
            Some(point) => point.clone(),
            None => Point::end_of(check_name(&self.config().default_branch)?),
        };
        // Counted from now, not from when the page server has caught up.
        point.at = point.at.seen_at(SystemTime::now().into());
        let (parent, point) = self.locate(&point)?;
        if !matches!(point.at, At::Lsn(_)) {
            self.catch_up(parent.timeline)?;
        }
        let mut command = format!("branch_create {} {}", quote(name), quote(&point.to_string()));
        if let Some(lifetime) = lifetime {
            command = format!("{command} {}", from_now(lifetime)?);
        }
        self.branch_in(&command, &point.branch, name)
    }

    /// Removes a branch that nothing depends on.
    pub fn delete_branch(&self, name: &str) -> Result<()> {
        self.delete(name, "")
    }

    /// Removes a branch. Those that were made from it keep the history that they share with it.
    pub fn delete_branch_reparenting(&self, name: &str) -> Result<()> {
        self.delete(name, " reparent")
    }

    fn delete(&self, name: &str, how: &str) -> Result<()> {
        let branch = self.branch(name)?;
        // What will be refused anyway leaves all as it is.
        if !branch.protected {
            self.end_writing(&branch)?;
        }
        self.control()?.rows(&format!("branch_delete {}{how}", quote(name))).map(|_| ())
    }

    /// Lets a branch be deleted, or not.
    pub fn protect_branch(&self, name: &str, protected: bool) -> Result<Branch> {
        check_name(name)?;
        let verb = if protected { "branch_protect" } else { "branch_unprotect" };
        let command = format!("{verb} {}", quote(name));
        self.branch_in(&command, name, name)
    }

    /// Lets a branch go by itself after `lifetime` from now, or not at all. The page server then deletes it
    /// when nothing needs it.
    pub fn expire_branch(&self, name: &str, lifetime: Option<Duration>) -> Result<()> {
        check_name(name)?;
        let mut command = format!("branch_expire {}", quote(name));
        if let Some(lifetime) = lifetime {
            command = format!("{command} {}", from_now(lifetime)?);
        }
        self.control()?.rows(&command).map(drop).map_err(|error| self.typed(error, name, name))
    }

    /// Says how much of a branch's history is kept behind its end. What is gone already does not come back.
    pub fn retain_branch(&self, name: &str, retention: RetentionSpec) -> Result<Branch> {
        check_name(name)?;
        let command = format!("branch_retain {} {}", quote(name), quote(&retention.to_string()));
        self.branch_in(&command, name, name)
    }

    /// Gives a branch another name; computes on it are not disturbed.
    pub fn rename_branch(&self, old: &str, new: &str) -> Result<Branch> {
        check_name(new)?;
        let command = format!("branch_rename {} {}", quote(old), quote(new));
        let branch = self.branch_in(&command, old, new)?;
        for mut compute in self.computes()? {
            if compute.timeline() == branch.timeline {
                compute.set_branch(new)?;
            }
        }
        Ok(branch)
    }

    /// The page server's refusal as one of our own kinds: `used` is the branch that had to be there,
    /// `made` the one that had not to be.
    fn typed(&self, error: Error, used: &str, made: &str) -> Error {
        match &error {
            Error::PageServer { sqlstate, .. } if sqlstate == UNDEFINED_OBJECT => no_branch(used),
            Error::PageServer { sqlstate, .. } if sqlstate == DUPLICATE_OBJECT => self.taken(made),
            _ => error,
        }
    }
}

fn from_now(lifetime: Duration) -> Result<Timestamp> {
    SystemTime::now().checked_add(lifetime).map(Timestamp::from).ok_or_else(|| {
        Error::InvalidArgument(format!(
            "{} s from now is no time that has a date",
            lifetime.as_secs()
        ))
    })
}

/// The text as a name of a branch, a tag or a compute.
pub(crate) fn check_name(name: &str) -> Result<BranchName> {
    name.parse().map_err(|error: BranchNameError| Error::InvalidArgument(error.to_string()))
}

pub(crate) fn no_branch(name: &str) -> Error {
    Error::NotFound {
        thing: Thing::Branch,
        name: name.to_owned(),
        hint: format!("make it with `zenith branch {name}`, or see what there is: `zenith branch`"),
    }
}
