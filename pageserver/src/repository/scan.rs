//! What the folders say about branches: those whose files can be read, and what is damaged.
//!
//! A timeline's folder has the suffix `.unnamed` while the file that names it may not be there: before
//! a branch is complete, and once it is being deleted. So a folder without that suffix that no
//! branch names is one whose file in `refs/branches` was lost.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::ref_file::BranchRef;
use super::{Branch, Kept, RepositoryError, kept};
use crate::error_text::with_causes;
use crate::timeline::manifest::{Manifest, Origin};

/// A branch, or a timeline without one, that cannot be used because a file of it is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// The branch; `None` for a timeline that no branch names.
    pub name: Option<BranchName>,
    /// The timeline; `None` where it is just that what cannot be read.
    pub timeline: Option<TimelineId>,
    /// Which file, and what is wrong with it.
    pub cause: String,
    /// The timeline it was forked from; `None` if that is not known.
    stands_on: Option<Option<TimelineId>>,
}

impl Unreadable {
    /// Whether it may have been forked from that timeline.
    pub fn may_stand_on(&self, timeline: TimelineId) -> bool {
        self.stands_on.is_none_or(|ancestor| ancestor == Some(timeline))
    }

    /// What it is called in messages.
    pub fn label(&self) -> String {
        match (&self.name, self.timeline) {
            (Some(name), _) => format!("branch \"{name}\""),
            (None, Some(timeline)) => format!("timeline {timeline}"),
            (None, None) => "a branch".to_owned(),
        }
    }

    /// Why the branch cannot be used; `None` for a timeline that no branch names.
    pub(super) fn error(&self) -> Option<RepositoryError> {
        let name = self.name.clone()?;
        Some(RepositoryError::Unreadable { name, cause: self.cause.clone() })
    }
}

/// What was found by going through the folders.
#[derive(Default)]
pub(super) struct Found {
    pub branches: Vec<Branch>,
    pub kept: Vec<Kept>,
    pub unreadable: Vec<Unreadable>,
}

/// What the files of one name say.
pub(super) enum Entry {
    /// All is well.
    Branch(Branch),
    /// There is no such branch.
    Absent,
    /// There is one, but it cannot be used.
    Unreadable(Unreadable),
    /// It is being made or deleted, or was when the process ended.
    HalfDone,
}

/// What is to be done with a branch whose making or deletion was broken off while its name was there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HalfDone {
    /// Nothing: whoever changes branches may be about it.
    Leave,
    /// Its timeline gets its folder back. Only for the one who changes branches.
    Finish,
}

pub(super) fn branches_dir(dir: &Path) -> PathBuf {
    dir.join("refs/branches")
}

pub(super) fn timeline_dir(dir: &Path, id: TimelineId) -> PathBuf {
    dir.join("timelines").join(id.to_string())
}

/// What the folder of a timeline ends with while no branch is sure to name it.
pub const UNNAMED: &str = "unnamed";

/// Where a timeline's folder is while no branch is sure to name it.
pub(super) fn unnamed_dir(dir: &Path, id: TimelineId) -> PathBuf {
    dir.join("timelines").join(format!("{id}.{UNNAMED}"))
}

/// Reads what is not known yet. A file that is damaged hides nothing but its own branch.
///
/// # Errors
/// `Io`, if the folders themselves cannot be read.
pub(super) fn scan(
    dir: &Path,
    is_known: impl Fn(&BranchName) -> bool,
    is_named: impl Fn(TimelineId) -> bool,
) -> Result<Found, RepositoryError> {
    let mut found = Found::default();
    let mut named = BTreeSet::new();
    for name in branch_names(dir)?.into_iter().filter(|name| !is_known(name)) {
        match read_branch(dir, &name, HalfDone::Finish) {
            Entry::Branch(branch) => {
                named.insert(branch.timeline);
                found.branches.push(branch);
            }
            Entry::Unreadable(damaged) => {
                named.extend(damaged.timeline);
                found.unreadable.push(damaged);
            }
            Entry::Absent | Entry::HalfDone => {}
        }
    }
    let is_named_now =
        |id| is_named(id) || found.branches.iter().any(|branch| branch.timeline == id);
    kept::settle(dir, is_named_now, found.unreadable.is_empty())?;
    for folder in names_in(&dir.join("timelines"))? {
        let Some(id) = folder.to_str().and_then(|name| name.parse::<TimelineId>().ok()) else {
            continue;
        };
        if !named.contains(&id) && !is_named(id) {
            match Kept::read(dir, id) {
                Ok(Some(kept)) => found.kept.push(kept),
                Ok(None) => found.unreadable.push(nameless(dir, id)),
                Err(cause) => found.unreadable.push(Unreadable { cause, ..nameless(dir, id) }),
            }
        }
    }
    Ok(found)
}

/// The names of all branches, damaged or not.
///
/// # Errors
/// `Io`, if the folder cannot be read.
pub(super) fn branch_names(dir: &Path) -> Result<Vec<BranchName>, RepositoryError> {
    let files = names_in(&branches_dir(dir))?;
    // A file in the making, left by a crash, is no branch.
    Ok(files.iter().filter_map(|file| file.to_str()?.parse().ok()).collect())
}

/// Whether the folders are there and can be read at all.
///
/// # Errors
/// `Io`.
pub(super) fn check_folders(dir: &Path) -> Result<(), RepositoryError> {
    for path in [branches_dir(dir), dir.join("timelines")] {
        fs::read_dir(&path).map_err(|source| RepositoryError::Io { path, source })?;
    }
    Ok(())
}

pub(super) fn names_in(path: &Path) -> Result<Vec<std::ffi::OsString>, RepositoryError> {
    let io = |source| RepositoryError::Io { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return Err(io(error)),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(io)?;
    names.sort_by(|a: &std::ffi::OsString, b| OsStr::cmp(a, b));
    Ok(names)
}

/// Reads one branch's own files.
pub(super) fn read_branch(dir: &Path, name: &BranchName, half_done: HalfDone) -> Entry {
    let name = name.clone();
    let path = branches_dir(dir).join(name.as_str());
    let BranchRef { timeline, protected, expires, retention } = match BranchRef::read(dir, &name) {
        Ok(Some(of_branch)) => of_branch,
        Ok(None) => return Entry::Absent,
        Err(error) => {
            return Entry::Unreadable(Unreadable {
                name: Some(name),
                timeline: None,
                cause: with_causes(&error),
                // Its timeline is among those that nobody names.
                stands_on: Some(None),
            });
        }
    };
    let folder = timeline_dir(dir, timeline);
    let unnamed = unnamed_dir(dir, timeline);
    if !folder.exists() && unnamed.exists() {
        // Making or deleting the branch was broken off while the name was there.
        match half_done {
            HalfDone::Leave => return Entry::HalfDone,
            // If it fails, what is wrong is said by what follows, and it is tried again.
            HalfDone::Finish => drop(durable_files::rename(&unnamed, &folder)),
        }
    }
    match Manifest::read(&folder) {
        Ok(manifest) => {
            let ancestor = manifest.origin.ancestor();
            let Manifest { start, created, detaching, .. } = manifest;
            Entry::Branch(Branch {
                name,
                timeline,
                ancestor,
                start,
                created,
                protected,
                expires,
                detaching,
                retention,
            })
        }
        // Between our looking for the two folders and now it may have got the other name.
        Err(_) if half_done == HalfDone::Leave && !folder.exists() => Entry::HalfDone,
        Err(error) => Entry::Unreadable(Unreadable {
            name: Some(name),
            timeline: Some(timeline),
            cause: if folder.exists() {
                with_causes(&error)
            } else {
                // Either of them may be what is damaged.
                format!(
                    "{} names a timeline that is not there: {}",
                    path.display(),
                    with_causes(&error)
                )
            },
            stands_on: None,
        }),
    }
}

/// A timeline that nobody names.
fn nameless(dir: &Path, id: TimelineId) -> Unreadable {
    let (stands_on, why) = match Manifest::read(&timeline_dir(dir, id)) {
        Ok(Manifest { origin: Origin::Ancestor(ancestor), .. }) => {
            (Some(Some(ancestor.timeline)), String::new())
        }
        Ok(_) => (Some(None), String::new()),
        Err(error) => (None, format!("; {}", with_causes(&error))),
    };
    let refs = branches_dir(dir);
    let cause = format!(
        "no file in {} names timeline {id}: put the one that did back from a copy, or write the \
         timeline's id into a new one{why}",
        refs.display()
    );
    Unreadable { name: None, timeline: Some(id), cause, stands_on }
}
