//! Which history of a timeline is needed, and by whom.
//!
//! A branch can be asked for as far back from its end as its retention says, also where that is history of what it was
//! made from. Before that, single points are needed: where branches were made, tags, what computes and readers
//! have leases for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use pageserver_client::BranchName;
use postgres_formats::{Lsn, TimelineId, Timestamp};

use super::lookup::Changing;
use super::registry::Registry;
use super::{Repository, RepositoryError, Retention, Tag, Unreadable};
use crate::error_text::with_causes;
use crate::timeline::error::TimelineError;
use crate::timeline::{Needed, Timeline};

/// Who needs a part of a timeline's history.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Holder {
    /// The retention of a branch.
    Retention(BranchName),
    /// A branch was made there.
    Branch(BranchName),
    /// A branch was made there that is gone; this was its name.
    Kept(BranchName),
    /// A tag.
    Tag(BranchName),
    /// The base LSN of a compute.
    Compute(BranchName),
    /// A reader that has a lease, by what it does.
    Reader(BranchName),
    /// A connection on which pages are read.
    Connection,
    /// `zenith verify` has a stock server begin there.
    Beginning,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Retention(name) => write!(f, "retention of branch {name}"),
            Holder::Branch(name) => write!(f, "branch {name}"),
            Holder::Kept(name) => write!(f, "what was made from the former branch {name}"),
            Holder::Tag(name) => write!(f, "tag {name}"),
            Holder::Compute(name) => write!(f, "compute {name}"),
            Holder::Reader(name) => write!(f, "reader {name}"),
            Holder::Connection => f.write_str("a connection that reads there"),
            Holder::Beginning => f.write_str("WAL kept from the beginning"),
        }
    }
}

/// That somebody needs a part of a timeline's history.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Hold {
    /// Which part.
    pub needed: Needed,
    /// Who.
    pub holder: Holder,
}

/// Which parts are needed.
pub(super) fn needed_by(holds: &[Hold]) -> Vec<Needed> {
    holds.iter().map(|hold| hold.needed).collect()
}

/// A branch of which a timeline is the history, or a part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reader {
    name: BranchName,
    timeline: TimelineId,
    /// Where the branch's own history begins.
    start: Lsn,
    retention: Retention,
    /// Up to where the timeline is its history.
    upto: Lsn,
}

/// How far back the branches of which a timeline is the history can be asked for.
pub(super) struct Windows {
    readers: Vec<Reader>,
    holds: Vec<Hold>,
}

impl Repository {
    /// The branches of which that timeline is the history, or a part of it.
    fn readers_of(&self, id: TimelineId) -> Vec<Reader> {
        let registry = self.registry.read();
        let retention = |of: Option<Retention>| of.unwrap_or(self.layers.options.retention);
        let reader = |name: &BranchName, upto| {
            let branch = registry.get(name)?;
            Some(Reader {
                name: name.clone(),
                timeline: branch.timeline,
                start: branch.start,
                retention: retention(branch.retention),
                upto,
            })
        };
        let mut readers: Vec<Reader> =
            registry.names_of(id).filter_map(|name| reader(name, Lsn::MAX)).collect();
        let (mut next, mut seen) = (vec![(id, Lsn::MAX)], 0);
        while let Some((parent, upto)) = next.pop() {
            // A circle of damaged files must not keep us here.
            seen += 1;
            if seen > registry.timeline_count() {
                break;
            }
            for child in registry.children(parent).filter_map(|name| registry.get(name)) {
                let at = child.ancestor.map_or(upto, |ancestor| upto.min(ancestor.lsn));
                readers.extend(reader(&child.name, at));
                next.push((child.timeline, at));
            }
            for kept in registry.kept() {
                if let Some(ancestor) = kept.ancestor.filter(|at| at.timeline == parent) {
                    next.push((kept.timeline, upto.min(ancestor.lsn)));
                }
            }
        }
        readers
    }

    /// How far back the branches of which `timeline` is the history can be asked for. Reads layers.
    ///
    /// # Errors
    /// See `TimelineError`; `Stopped` if nobody knows which transactions follow.
    pub(super) fn windows_on(&self, timeline: &Timeline) -> Result<Windows, TimelineError> {
        self.windows(
            timeline.id(),
            timeline.last_record_lsn(),
            |time| timeline.begins_before(time),
            |lsn| timeline.record_end_before(lsn),
        )
    }

    /// The same of a timeline of which is told where it ends, or later, where what is kept begins that is younger than a time, and where the
    /// last record before an LSN ends.
    pub(super) fn windows<E>(
        &self,
        id: TimelineId,
        end: Lsn,
        begins_before: impl Fn(Timestamp) -> Result<Lsn, E>,
        record_end_before: impl Fn(Lsn) -> Result<Lsn, E>,
    ) -> Result<Windows, E> {
        let readers = self.readers_of(id);
        let mut times: BTreeMap<u64, Lsn> = BTreeMap::new();
        let mut holds = Vec::new();
        for reader in &readers {
            let Retention { window_bytes, window_seconds } = reader.retention;
            let by_bytes = window_bytes.map(|bytes| {
                let end = match self.loaded_timeline(reader.timeline) {
                    Some(loaded) => loaded.last_record_lsn(),
                    None if reader.timeline == id => end,
                    // It is there at least, and what is asked of it counts from its true end.
                    None => reader.start,
                };
                Lsn::new(end.as_u64().saturating_sub(bytes))
            });
            let by_time = match window_seconds {
                None => None,
                Some(seconds) => Some(match times.get(&seconds) {
                    Some(found) => *found,
                    None => {
                        let window = Duration::from_secs(seconds);
                        let time = Timestamp::from(SystemTime::now()).saturating_sub(window);
                        let found = begins_before(time)?;
                        times.insert(seconds, found);
                        found
                    }
                }),
            };
            // What is kept is in both windows.
            let from = by_bytes.max(by_time).unwrap_or(Lsn::INVALID);
            let from = match reader.upto {
                Lsn::MAX => record_end_before(from)?,
                _ => from,
            };
            if from < reader.upto {
                let needed = Needed { from, to: reader.upto };
                holds.push(Hold { needed, holder: Holder::Retention(reader.name.clone()) });
            }
        }
        Ok(Windows { readers, holds })
    }

    /// All that is needed of the timeline's own history. `None`: `windows` are not right any more. As long as
    /// `changing` is held nobody comes to need more of what is not.
    ///
    /// # Errors
    /// `MayHold` if something cannot be read that may need it; `NoSuchTimeline` if it was deleted.
    pub(super) fn holds_on(
        &self,
        timeline: &Timeline,
        windows: Windows,
        _changing: &Changing<'_>,
    ) -> Result<Option<Vec<Hold>>, RepositoryError> {
        let id = timeline.id();
        if windows.readers != self.readers_of(id) {
            return Ok(None);
        }
        let may_hold = |by: String, cause: String| Err(RepositoryError::MayHold { by, cause });
        {
            let registry = self.registry.read();
            if registry.names_of(id).next().is_none() && !registry.kept().any(|k| k.timeline == id)
            {
                // Its name was lost: who knows what that says of its retention.
                return match registry.unreadable().iter().find(|it| it.timeline == Some(id)) {
                    Some(lost) => may_hold(lost.label(), lost.cause.clone()),
                    None => Err(RepositoryError::NoSuchTimeline(id)),
                };
            }
        }
        if let Some((file, error)) = self.leases.unreadable().first() {
            return may_hold(format!("lease {file}"), with_causes(error));
        }
        let (tags, unusable) = self.tags()?;
        if let Some(tag) = unusable.into_iter().next() {
            return may_hold(format!("tag \"{}\"", tag.name), tag.cause);
        }
        let needed = |damaged: &&Unreadable| damaged.may_stand_on(id);
        if let Some(damaged) = self.registry.read().unreadable().iter().find(needed) {
            return may_hold(damaged.label(), damaged.cause.clone());
        }
        Ok(Some(self.holds(id, windows, &tags, timeline.beginning())))
    }

    /// The same of a timeline that need not be loaded, as far as it can be told without a lock.
    pub(super) fn holds(
        &self,
        id: TimelineId,
        windows: Windows,
        tags: &[Tag],
        beginning: Option<Lsn>,
    ) -> Vec<Hold> {
        let registry = self.registry.read();
        let mut holds = windows.holds;
        let mut hold = |needed, holder| holds.push(Hold { needed, holder });
        for branch in registry.children(id).filter_map(|name| registry.get(name)) {
            if let Some(at) = branch.ancestor {
                hold(Needed::point(at.lsn), Holder::Branch(branch.name.clone()));
            }
        }
        for kept in registry.kept() {
            if let Some(at) = kept.ancestor.filter(|at| at.timeline == id) {
                hold(Needed::point(at.lsn), Holder::Kept(kept.name.clone()));
            }
        }
        for tag in tags {
            if let Some(needed) = on(&registry, id, tag.timeline, Needed::point(tag.lsn)) {
                hold(needed, Holder::Tag(tag.name.clone()));
            }
        }
        for lease in self.leases.list() {
            let holder = match lease.ends_by_itself() {
                false => Holder::Compute(lease.name),
                true => Holder::Reader(lease.name),
            };
            let all = match lease.since {
                true => lease.lsns.first().copied().map(Needed::since).into_iter().collect(),
                false => lease.lsns.into_iter().map(Needed::point).collect::<Vec<_>>(),
            };
            for needed in all.into_iter().filter_map(|at| on(&registry, id, lease.timeline, at)) {
                hold(needed, holder.clone());
            }
        }
        for (reads, at) in self.readings.list() {
            if let Some(needed) = on(&registry, id, reads, at) {
                hold(needed, Holder::Connection);
            }
        }
        if let Some(start) = beginning {
            hold(Needed::point(start), Holder::Beginning);
        }
        holds
    }
}

/// What of `needed`, which is asked of the timeline `asked`, is history of the timeline `id`.
fn on(registry: &Registry, id: TimelineId, asked: TimelineId, needed: Needed) -> Option<Needed> {
    let (mut owner, mut to) = (asked, needed.to);
    // Damaged files must not keep us here.
    for _ in 0..=registry.timeline_count() {
        let below = registry.ancestor(owner).filter(|ancestor| needed.from < ancestor.lsn);
        let is_point = needed.from == needed.to;
        if owner == id && !(is_point && below.is_some()) {
            return Some(Needed { to, ..needed });
        }
        let ancestor = below?;
        (owner, to) = (ancestor.timeline, to.min(ancestor.lsn));
    }
    None
}
