//! Timelines whose branch is gone, kept because others stand on them.
//!
//! That nobody names such a timeline is a fact of its own, the file `refs/kept/TIMELINE`; without it, a
//! timeline that nobody names is one whose name was lost. The steps are ordered so that a crash between
//! any two leaves either the branch as it was or all of this done:
//!
//! - Kept: the fact is written, then the branch's file is removed. Both there: the branch counts, the fact
//!   is removed when they are read.
//! - Removed, when nothing stands on it any more: the folder gets the suffix `.unnamed`, the fact is removed,
//!   then the folder. Fact and folder with the suffix: the removal is finished when they are read.

use std::fs;
use std::path::{Path, PathBuf};

use durable_files::{Fact, read_fact, remove_fact, write_fact};
use pageserver_client::BranchName;
use postgres_formats::TimelineId;
use serde::{Deserialize, Serialize};

use super::lookup::Changing;
use super::scan::{branches_dir, names_in, timeline_dir, unnamed_dir};
use super::{Branch, Repository, RepositoryError, now};
use crate::error_text::with_causes;
use crate::timeline::manifest::{Ancestor, Manifest, Origin};

/// A timeline that is kept for those that stand on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The timeline.
    pub timeline: TimelineId,
    /// What it was forked from.
    pub ancestor: Option<Ancestor>,
    /// What its branch was called.
    pub name: BranchName,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Text {
    name: String,
    since: u64,
}

impl Fact for Text {
    const FORMAT_VERSION: u32 = 1;
    const REMEDY: &'static str = "put it back from a copy, or give the timeline a branch again: write its id \
         into a new file in refs/branches";
}

/// The folder of these facts. Not there before there is one.
pub(super) fn kept_dir(dir: &Path) -> PathBuf {
    dir.join("refs/kept")
}

fn path_of(dir: &Path, id: TimelineId) -> PathBuf {
    kept_dir(dir).join(id.to_string())
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> RepositoryError {
    let path = path.to_owned();
    move |source| RepositoryError::Io { path, source }
}

impl Kept {
    /// The fact about a timeline that no branch names; `None` if there is none, so that its name was lost.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn read(dir: &Path, id: TimelineId) -> Result<Option<Kept>, String> {
        let path = path_of(dir, id);
        let text = match read_fact::<Text>(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(error) => return Err(with_causes(&error)),
        };
        let manifest = Manifest::read(&timeline_dir(dir, id)).map_err(|e| with_causes(&e))?;
        let ancestor = match manifest.origin {
            Origin::Ancestor(ancestor) => Some(ancestor),
            Origin::ImageLayer(_) | Origin::OwnImage => None,
        };
        let bad_name = |error| format!("{} is damaged: {error}", path.display());
        let name = text.name.parse().map_err(bad_name)?;
        Ok(Some(Kept { timeline: id, ancestor, name }))
    }
}

/// Brings the facts in step with the branches, after what was broken off by a crash. Only for the one who
/// changes branches. `is_named`: whether a branch that can be read names a timeline; `all_readable`: whether
/// there are no others.
///
/// # Errors
/// See `RepositoryError`.
pub(super) fn settle(
    dir: &Path,
    is_named: impl Fn(TimelineId) -> bool,
    all_readable: bool,
) -> Result<(), RepositoryError> {
    if !kept_dir(dir).exists() {
        return Ok(());
    }
    for file in names_in(&kept_dir(dir))? {
        let Some(id) = file.to_str().and_then(|name| name.parse::<TimelineId>().ok()) else {
            continue;
        };
        let unnamed = unnamed_dir(dir, id);
        if is_named(id) {
            remove_fact(&path_of(dir, id))?;
        } else if all_readable && !timeline_dir(dir, id).exists() && unnamed.exists() {
            remove_fact(&path_of(dir, id))?;
            durable_files::remove_dir_all(&unnamed).map_err(io(&unnamed))?;
        }
    }
    Ok(())
}

/// Removes the fact about a timeline that has a name: what is left of an attempt that could not be undone.
///
/// # Errors
/// See `RepositoryError`.
pub(super) fn forget(dir: &Path, id: TimelineId) -> Result<(), RepositoryError> {
    let path = path_of(dir, id);
    if path.exists() {
        remove_fact(&path)?;
    }
    Ok(())
}

impl Repository {
    /// Names of the branches that stand on a timeline, be it with kept ones in between.
    pub(super) fn standing_on(&self, id: TimelineId) -> Vec<BranchName> {
        let registry = self.registry.read();
        let (mut names, mut next, mut seen) = (Vec::new(), vec![id], vec![id]);
        while let Some(id) = next.pop() {
            names.extend(registry.children(id).cloned());
            for kept in registry.kept().filter(|kept| kept.stands_on(id)) {
                // A circle of damaged files must not keep us here.
                if !seen.contains(&kept.timeline) {
                    seen.push(kept.timeline);
                    next.push(kept.timeline);
                }
            }
        }
        names
    }

    /// Removes a branch's name and keeps its timeline for those that stand on it. Whoever calls has
    /// seen to it that nobody writes it.
    pub(super) fn keep_nameless(
        &self,
        branch: &Branch,
        _changing: &Changing<'_>,
    ) -> Result<(), RepositoryError> {
        let (refs, kept) = (self.dir.join("refs"), kept_dir(&self.dir));
        durable_files::create_dir_all(&kept).map_err(io(&kept))?;
        // Also where it was there: whoever made it may have come no further. And the name of the
        // timeline's folder may be as young as the branch: a crash must not give it the suffix back.
        for folder in [refs, self.dir.join("timelines")] {
            durable_files::sync_dir(&folder).map_err(io(&folder))?;
        }
        let path = path_of(&self.dir, branch.timeline);
        let name = branches_dir(&self.dir).join(branch.name.as_str());
        let text = Text { name: branch.name.to_string(), since: now() };
        let written = write_fact(&path, &text).map_err(RepositoryError::from);
        let kept = written.and_then(|()| durable_files::remove_file(&name).map_err(io(&name)));
        if let Err(error) = kept {
            // The branch is still there, if only after a crash. First its name is sure, then the fact
            // goes; if that fails, the branch counts.
            if !name.exists() {
                branch.to_ref().write(&self.dir, &branch.name)?;
            }
            let _ = remove_fact(&path);
            return Err(error);
        }
        let mut registry = self.registry.write();
        registry.remove(&branch.name);
        registry.insert_kept(Kept {
            timeline: branch.timeline,
            ancestor: branch.ancestor,
            name: branch.name.clone(),
        });
        drop(registry);
        slog::info!(self.log, "branch deleted, its history is kept for others";
            "branch" => %branch.name, "timeline" => %branch.timeline);
        Ok(())
    }

    /// Removes the kept timelines that nothing stands on any more, and what earlier deletions could not
    /// remove. What fails is tried again with the next deletion and at the next start.
    pub(super) fn remove_unneeded(&self, changing: &Changing<'_>) {
        self.remove_unneeded_kept(changing);
        let left = self.registry.write().take_left();
        left.into_iter().for_each(|id| self.remove_folder(id));
    }

    fn remove_unneeded_kept(&self, changing: &Changing<'_>) {
        loop {
            let unneeded = {
                let registry = self.registry.read();
                // What cannot be read may stand on any of them.
                if !registry.complete || !registry.unreadable().is_empty() {
                    return;
                }
                let is_needed = |id| {
                    registry.children(id).next().is_some()
                        || registry.kept().any(|kept| kept.stands_on(id))
                };
                registry.kept().find(|kept| !is_needed(kept.timeline)).cloned()
            };
            let Some(kept) = unneeded else { return };
            if let Err(error) = self.remove_kept(&kept, changing) {
                slog::warn!(self.log, "history that nobody needs is still there: {}",
                    with_causes(&error); "timeline" => %kept.timeline);
                return;
            }
            slog::info!(self.log, "history that nobody needs is removed";
                "timeline" => %kept.timeline, "branch" => %kept.name);
        }
    }

    fn remove_kept(&self, kept: &Kept, _changing: &Changing<'_>) -> Result<(), RepositoryError> {
        let id = kept.timeline;
        let (dir, unnamed) = (timeline_dir(&self.dir, id), unnamed_dir(&self.dir, id));
        match dir.exists() {
            true => durable_files::rename(&dir, &unnamed).map_err(io(&dir))?,
            // An earlier try came this far, perhaps not durably.
            false => {
                let timelines = self.dir.join("timelines");
                durable_files::sync_dir(&timelines).map_err(io(&timelines))?;
            }
        }
        remove_fact(&path_of(&self.dir, id))?;
        self.registry.write().remove_kept(id);
        self.let_go(id);
        self.remove_folder(id);
        Ok(())
    }

    /// The timelines that are kept for others.
    ///
    /// # Errors
    /// `Io`, if the folders themselves cannot be read.
    pub fn kept_timelines(&self) -> Result<Vec<Kept>, RepositoryError> {
        self.know_all()?;
        Ok(self.registry.read().kept().cloned().collect())
    }

    /// The timelines that are kept for others, and how many bytes their files have.
    ///
    /// # Errors
    /// `Io`, if the folders themselves cannot be read.
    pub fn kept(&self) -> Result<(Vec<Kept>, u64), RepositoryError> {
        let kept = self.kept_timelines()?;
        let bytes = kept.iter().map(|kept| bytes_in(&timeline_dir(&self.dir, kept.timeline))).sum();
        Ok((kept, bytes))
    }
}

impl Kept {
    fn stands_on(&self, id: TimelineId) -> bool {
        self.ancestor.is_some_and(|ancestor| ancestor.timeline == id)
    }
}

/// Of all files; those that go away meanwhile count nothing.
fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_in(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
