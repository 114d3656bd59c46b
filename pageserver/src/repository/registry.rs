//! `Registry`: the branches that have been read so far, found by name, by timeline and by ancestor.
//!
//! Nothing has been read when the repository is opened. It is `complete` once all folders have been
//! gone through.

use std::collections::{BTreeMap, BTreeSet};

use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::{Branch, Kept, Unreadable};
use crate::timeline::manifest::Ancestor;

/// The branches that have been read so far, and what is damaged. Every lookup is quick, however
/// many there are.
#[derive(Default)]
pub(super) struct Registry {
    by_name: BTreeMap<BranchName, Branch>,
    by_timeline: BTreeMap<TimelineId, BTreeSet<BranchName>>,
    by_ancestor: BTreeMap<TimelineId, BTreeSet<BranchName>>,
    kept: BTreeMap<TimelineId, Kept>,
    unreadable: Vec<Unreadable>,
    /// Whether all that there is has been read, so that what is not in here is not there.
    pub complete: bool,
    removals: u64,
    left: BTreeSet<TimelineId>,
}

impl Registry {
    /// How many branches have been read.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many timelines they are, those included that are kept for others.
    pub fn timeline_count(&self) -> usize {
        self.by_name.len() + self.kept.len()
    }

    /// The branch of that name.
    pub fn get(&self, name: &BranchName) -> Option<&Branch> {
        self.by_name.get(name)
    }

    /// All branches, by name.
    pub fn branches(&self) -> impl Iterator<Item = &Branch> {
        self.by_name.values()
    }

    /// The first branch that names this timeline.
    pub fn of_timeline(&self, timeline: TimelineId) -> Option<&Branch> {
        self.get(self.by_timeline.get(&timeline)?.first()?)
    }

    /// Names of the branches that name this timeline: mostly one.
    pub fn names_of(&self, timeline: TimelineId) -> impl Iterator<Item = &BranchName> {
        self.by_timeline.get(&timeline).into_iter().flatten()
    }

    /// Names of the branches whose timelines were forked from this one.
    pub fn children(&self, ancestor: TimelineId) -> impl Iterator<Item = &BranchName> {
        self.by_ancestor.get(&ancestor).into_iter().flatten()
    }

    /// The timelines that no branch names any more, and others stand on.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.kept.values()
    }

    /// Puts in a timeline that is kept.
    pub fn insert_kept(&mut self, kept: Kept) {
        self.kept.insert(kept.timeline, kept);
    }

    /// Takes out a timeline that was kept.
    pub fn remove_kept(&mut self, id: TimelineId) {
        self.kept.remove(&id);
    }

    /// Takes note that the folder of a timeline that is gone could not be removed.
    pub fn leave(&mut self, id: TimelineId) {
        self.left.insert(id);
    }

    /// The timelines of which that was noted, which is forgotten.
    pub fn take_left(&mut self) -> BTreeSet<TimelineId> {
        std::mem::take(&mut self.left)
    }

    /// Where the timeline was forked from another, if it has been read.
    pub fn ancestor(&self, id: TimelineId) -> Option<Ancestor> {
        match self.of_timeline(id) {
            Some(branch) => branch.ancestor,
            None => self.kept.get(&id)?.ancestor,
        }
    }

    /// What is damaged, so that it is no branch for now.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// Puts in what was found to be damaged, in place of what was known of that.
    pub fn set_unreadable(&mut self, mut unreadable: Vec<Unreadable>) {
        // What was known before stays known: what is damaged of it is said where it is read.
        unreadable.retain(|damaged| {
            let by_name = damaged.name.as_ref().and_then(|name| self.get(name));
            by_name.is_none() && damaged.timeline.is_none_or(|id| self.of_timeline(id).is_none())
        });
        self.unreadable = unreadable;
    }

    /// Goes up whenever a branch is taken out: whoever reads files while that happens may have read
    /// what is no longer so.
    pub fn removals(&self) -> u64 {
        self.removals
    }

    /// Puts in a branch whose files have been read. It is damaged no more. Tells whether it was.
    pub fn insert(&mut self, branch: Branch) -> bool {
        let before = self.unreadable.len();
        self.unreadable.retain(|damaged| {
            damaged.name.as_ref() != Some(&branch.name) && damaged.timeline != Some(branch.timeline)
        });
        // It has a name again.
        self.kept.remove(&branch.timeline);
        let name = &branch.name;
        self.by_timeline.entry(branch.timeline).or_default().insert(name.clone());
        if let Some(ancestor) = branch.ancestor {
            self.by_ancestor.entry(ancestor.timeline).or_default().insert(name.clone());
        }
        self.by_name.insert(name.clone(), branch);
        self.unreadable.len() < before
    }

    /// Takes note that a timeline is to be detached, or not.
    pub fn set_detaching(&mut self, timeline: TimelineId, detaching: bool) {
        for branch in self.of_timeline_mut(timeline) {
            branch.detaching = detaching;
        }
    }

    /// Takes note that a timeline stands on no other any more.
    pub fn set_detached(&mut self, timeline: TimelineId) {
        let mut before = Vec::new();
        for branch in self.of_timeline_mut(timeline) {
            branch.detaching = false;
            before.extend(branch.ancestor.take().map(|at| (at.timeline, branch.name.clone())));
        }
        for (ancestor, name) in before {
            take_name(&mut self.by_ancestor, ancestor, &name);
        }
    }

    fn of_timeline_mut(&mut self, timeline: TimelineId) -> impl Iterator<Item = &mut Branch> {
        self.by_name.values_mut().filter(move |branch| branch.timeline == timeline)
    }

    /// Takes a branch out.
    pub fn remove(&mut self, name: &BranchName) -> Option<Branch> {
        self.removals += 1;
        let branch = self.by_name.remove(name)?;
        take_name(&mut self.by_timeline, branch.timeline, name);
        if let Some(ancestor) = branch.ancestor {
            take_name(&mut self.by_ancestor, ancestor.timeline, name);
        }
        Some(branch)
    }
}

fn take_name(
    names: &mut BTreeMap<TimelineId, BTreeSet<BranchName>>,
    timeline: TimelineId,
    name: &BranchName,
) {
    if let Some(of_one) = names.get_mut(&timeline) {
        of_one.remove(name);
        if of_one.is_empty() {
            names.remove(&timeline);
        }
    }
}
