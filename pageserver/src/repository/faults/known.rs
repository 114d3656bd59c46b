//! What must be there: the model.

use std::collections::BTreeMap;

use postgres_formats::{Lsn, TimelineId};

use crate::repository::Retention;

/// What a branch's server has written, and what its pages are.
pub(super) struct Line {
    /// The timeline that it goes on from, and where.
    pub ancestor: Option<(TimelineId, Lsn)>,
    pub start: Lsn,
    /// From `start` on.
    pub wal: Vec<u8>,
    /// Where each record ends, and what block 0 is from there on: so many bytes of that content.
    pub versions: Vec<(Lsn, (u8, u16))>,
}

impl Line {
    pub fn end(&self) -> Lsn {
        self.start.saturating_add(self.wal.len() as u64)
    }

    pub fn wal_from(&self, from: Lsn) -> &[u8] {
        &self.wal[from.distance_from(self.start).unwrap() as usize..]
    }
}

/// Something that was begun, or is done and acknowledged.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Began(Command),
    Done(Command),
    /// What was begun has failed, and has not happened.
    Failed,
    /// A timeline's WAL is durable so far.
    Durable(TimelineId, Lsn),
    /// From now on a timeline may not answer for what is before this LSN.
    Collecting(TimelineId, Lsn),
}

#[derive(Clone, Debug)]
pub(super) enum Command {
    /// The timeline is known once it is done.
    Create(String, Option<TimelineId>),
    Rename(String, String),
    Delete(String),
    Protect(String, bool),
    Expire(String, Option<u64>),
    Retain(String, Option<Retention>),
    Tag(String, TimelineId),
    Untag(String),
    Detach(TimelineId),
    /// With these LSNs.
    Lease(String, TimelineId, Vec<Lsn>),
    EndLease(String),
}

/// What is remembered of a branch or of a tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Named {
    /// What it is on; `None`: not known yet.
    pub timeline: Option<TimelineId>,
    pub protected: bool,
    pub expires: Option<u64>,
    pub retention: Option<Retention>,
}

impl Named {
    pub fn on(timeline: Option<TimelineId>) -> Named {
        Named { timeline, protected: false, expires: None, retention: None }
    }

    /// Whether what was `found` is this.
    pub fn fits(&self, found: &Named) -> bool {
        let timeline = self.timeline.or(found.timeline);
        Named { timeline, ..*self } == *found
    }
}

/// Branches and tags.
pub(super) type Names = BTreeMap<String, Named>;

/// Everything that was acknowledged, and after how many operations.
#[derive(Default)]
pub(super) struct Known {
    pub lines: BTreeMap<TimelineId, Line>,
    pub events: Vec<(usize, Event)>,
}

impl Known {
    /// Which branches there may be after so many operations: one way, or two within a command.
    pub fn names(&self, after: usize) -> Vec<Names> {
        let mut names = Names::new();
        let mut begun: Option<&Command> = None;
        for (at, event) in &self.events {
            match event {
                Event::Began(command) if *at < after => begun = Some(command),
                Event::Done(command) if *at <= after => {
                    apply(&mut names, command);
                    begun = None;
                }
                Event::Failed if *at <= after => begun = None,
                _ => {}
            }
        }
        let mut possible = vec![names.clone()];
        if let Some(command) = begun {
            apply(&mut names, command);
            possible.push(names);
        }
        possible
    }

    /// How far the timeline had been durable.
    pub fn durable(&self, timeline: TimelineId, after: usize) -> Option<Lsn> {
        let of = |(at, event): &(usize, Event)| match event {
            Event::Durable(id, lsn) if *id == timeline && *at <= after => Some(*lsn),
            _ => None,
        };
        self.events.iter().filter_map(of).max()
    }

    /// Whose own history `lsn` of a timeline is.
    pub fn owner(&self, timeline: TimelineId, lsn: Lsn) -> TimelineId {
        match self.lines.get(&timeline).and_then(|line| line.ancestor) {
            Some((ancestor, at)) if lsn < at => self.owner(ancestor, lsn),
            _ => timeline,
        }
    }

    /// Whether a timeline need not answer for `lsn` any more, unless something stands there.
    pub fn may_be_gone(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        let owner = self.owner(timeline, lsn);
        let detached = |id: &TimelineId| {
            self.stands_on(timeline).any(|on| on == *id)
                && self.lines.get(id).is_some_and(|line| lsn < line.start)
        };
        self.events.iter().any(|(_, event)| match event {
            Event::Collecting(id, before) => *id == owner && lsn < *before,
            Event::Began(Command::Detach(id)) => detached(id),
            _ => false,
        })
    }

    /// The timeline, what it was made from, and so on.
    fn stands_on(&self, timeline: TimelineId) -> impl Iterator<Item = TimelineId> {
        std::iter::successors(Some(timeline), |id| Some(self.lines.get(id)?.ancestor?.0))
    }

    /// How many events count after so many operations: what is asked for depends on nothing else.
    pub fn events_by(&self, after: usize) -> usize {
        self.events.iter().filter(|(at, _)| *at < after).count()
            + self.events.iter().filter(|(at, _)| *at <= after).count()
    }

    /// Whether the timeline must stand on no other.
    pub fn is_detached(&self, timeline: TimelineId, after: usize) -> bool {
        let detaches =
            |event: &Event| matches!(event, Event::Done(Command::Detach(id)) if *id == timeline);
        self.events.iter().any(|(at, event)| *at <= after && detaches(event))
    }

    /// What block 0 must be.
    pub fn page(&self, timeline: TimelineId, lsn: Lsn) -> Option<(u8, u16)> {
        let line = self.lines.get(&timeline)?;
        let own = line.versions.iter().rev().find(|(end, _)| *end <= lsn);
        match (own, line.ancestor) {
            (Some((_, page)), _) => Some(*page),
            (None, Some((ancestor, at))) => self.page(ancestor, at.min(lsn)),
            (None, None) => None,
        }
    }
}

pub(super) fn tag_key(name: &str) -> String {
    format!("tag {name}")
}

/// LSNs belong to it: a lease is another one with others.
pub(super) fn lease_key(name: &str, lsns: &[Lsn]) -> String {
    format!("lease {name} {lsns:?}")
}

fn apply(names: &mut Names, command: &Command) {
    match command {
        Command::Create(name, id) => drop(names.insert(name.clone(), Named::on(*id))),
        Command::Rename(old, new) => {
            let named = names.remove(old).unwrap();
            names.insert(new.clone(), named);
        }
        Command::Delete(name) => drop(names.remove(name)),
        Command::Protect(name, protected) => {
            names.get_mut(name).unwrap().protected = *protected;
        }
        Command::Expire(name, expires) => names.get_mut(name).unwrap().expires = *expires,
        Command::Retain(name, retention) => names.get_mut(name).unwrap().retention = *retention,
        Command::Tag(name, id) => drop(names.insert(tag_key(name), Named::on(Some(*id)))),
        Command::Untag(name) => drop(names.remove(&tag_key(name))),
        Command::Detach(_) => {}
        Command::Lease(name, id, lsns) => {
            names.retain(|key, _| !key.starts_with(&format!("lease {name} ")));
            names.insert(lease_key(name, lsns), Named::on(Some(*id)));
        }
        Command::EndLease(name) => {
            names.retain(|key, _| !key.starts_with(&format!("lease {name} ")));
        }
    }
}
