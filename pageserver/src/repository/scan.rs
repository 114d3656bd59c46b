//! What the folders say about branches: those whose files can be read, and what is damaged.
//!
//! A timeline's folder has the suffix `.unnamed` while the file that names it may not be there: before
//! a branch is complete, and once it is being deleted. So a folder without that suffix that no
//! branch names is one whose file in `refs/branches` was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::{Branch, RepositoryError};
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
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub branches: BTreeMap<BranchName, Branch>,
    pub unreadable: Vec<Unreadable>,
}

pub(super) fn branches_dir(dir: &Path) -> PathBuf {
    dir.join("refs/branches")
}

pub(super) fn timeline_dir(dir: &Path, id: TimelineId) -> PathBuf {
    dir.join("timelines").join(id.to_string())
}

/// Where a timeline's folder is while no branch is sure to name it.
pub(super) fn unnamed_dir(dir: &Path, id: TimelineId) -> PathBuf {
    dir.join("timelines").join(format!("{id}.unnamed"))
}

/// Reads all there is. A file that is damaged hides nothing but its own branch.
///
/// # Errors
/// `Io`, if the folders themselves cannot be read.
pub(super) fn scan(dir: &Path) -> Result<Found, RepositoryError> {
    let mut found = Found::default();
    let mut named = BTreeSet::new();
    for file in names_in(&branches_dir(dir))? {
        // A file in the making, left by a crash, is no branch.
        let Some(name) = file.to_str().and_then(|name| name.parse::<BranchName>().ok()) else {
            continue;
        };
        match read_ref(&branches_dir(dir).join(&file)) {
            Ok(timeline) => {
                named.insert(timeline);
                take_branch(dir, name, timeline, &mut found);
            }
            Err(error) => found.unreadable.push(Unreadable {
                name: Some(name),
                timeline: None,
                cause: with_causes(&error),
                // Its timeline is among those that nobody names.
                stands_on: Some(None),
            }),
        }
    }
    for folder in names_in(&dir.join("timelines"))? {
        let Some(id) = folder.to_str().and_then(|name| name.parse::<TimelineId>().ok()) else {
            continue;
        };
        if !named.contains(&id) {
            found.unreadable.push(nameless(dir, id));
        }
    }
    Ok(found)
}

fn names_in(path: &Path) -> Result<Vec<std::ffi::OsString>, RepositoryError> {
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

fn read_ref(path: &Path) -> Result<TimelineId, RepositoryError> {
    let bytes =
        fs::read(path).map_err(|source| RepositoryError::Io { path: path.to_owned(), source })?;
    String::from_utf8_lossy(&bytes)
        .trim()
        .parse()
        .map_err(|source| RepositoryError::DamagedRef { path: path.to_owned(), source })
}

fn take_branch(dir: &Path, name: BranchName, timeline: TimelineId, found: &mut Found) {
    let folder = timeline_dir(dir, timeline);
    let file = name.clone();
    let unnamed = unnamed_dir(dir, timeline);
    // Making or deleting the branch was broken off while the name was there.
    if !folder.exists() && unnamed.exists() && durable_files::rename(&unnamed, &folder).is_err() {
        // Tried again the next time; what is wrong is said by what follows.
    }
    match Manifest::read(&folder) {
        Ok(manifest) => {
            let ancestor = match manifest.origin {
                Origin::Ancestor(ancestor) => Some(ancestor),
                Origin::ImageLayer(_) => None,
            };
            let (start, created) = (manifest.start, manifest.created);
            found
                .branches
                .insert(name.clone(), Branch { name, timeline, ancestor, start, created });
        }
        Err(error) => found.unreadable.push(Unreadable {
            name: Some(name),
            timeline: Some(timeline),
            cause: if folder.exists() {
                with_causes(&error)
            } else {
                // Either of them may be what is damaged.
                let name = branches_dir(dir).join(file.as_str());
                format!(
                    "{} names a timeline that is not there: {}",
                    name.display(),
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
