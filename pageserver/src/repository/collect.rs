//! Which points of a timeline are needed, and removing the layers that are needed for none.

use std::collections::BTreeSet;
use std::time::SystemTime;

use postgres_formats::{Lsn, TimelineId, Timestamp};

use super::{Repository, RepositoryError, Unreadable};
use crate::timeline::error::TimelineError;
use crate::timeline::manifest::Ancestor;
use crate::timeline::{Collected, Timeline};

/// How much of a timeline's history can be asked for, counted from its end. Without either, all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Retention {
    /// The WAL of so many bytes.
    pub window_bytes: Option<u64>,
    /// What happened in so many seconds.
    pub window_seconds: Option<u64>,
}

impl Retention {
    /// From which LSN on every one is to be kept; `None`: all are.
    fn horizon(&self, timeline: &Timeline) -> Result<Option<Lsn>, TimelineError> {
        let end = timeline.last_record_lsn();
        let by_bytes = self.window_bytes.map(|bytes| Lsn::new(end.as_u64().saturating_sub(bytes)));
        let by_time = match self.window_seconds {
            Some(seconds) => {
                let window = std::time::Duration::from_secs(seconds);
                let time = Timestamp::from(SystemTime::now()).saturating_sub(window);
                match timeline.lsn_at(time) {
                    Ok(lsn) => Some(lsn),
                    // All of it is younger.
                    Err(TimelineError::TimeBeforeBeginning { .. }) => Some(Lsn::INVALID),
                    Err(error) => return Err(error),
                }
            }
            None => None,
        };
        // What is kept is in both windows.
        Ok(by_bytes.max(by_time))
    }
}

impl Repository {
    /// Removes the layers of a timeline that are needed neither for what is in the window of retention
    /// nor for a branch or a tag. With `dry` nothing is changed.
    ///
    /// # Errors
    /// `MayBeNeeded` if a branch or a tag cannot be read that may stand on it; see `RepositoryError`.
    pub fn collect(&self, id: TimelineId, dry: bool) -> Result<Collected, RepositoryError> {
        let timeline = self.timeline(id)?;
        let horizon = self.layers.options.retention.horizon(&timeline)?.unwrap_or_default();
        // What stands on it can be told only then.
        self.know_all()?;
        loop {
            let collected = {
                // Nobody shall make a branch or a tag where something is just being removed.
                let changing = self.changing.lock();
                self.look_now(&changing);
                let points = self.points_on(&timeline)?;
                timeline.collect(horizon, &points, dry)?
            };
            match collected {
                Some(collected) => return Ok(collected),
                // Branches can be made while somebody else is about the layers.
                None => timeline.wait_for_layers(),
            }
        }
    }

    /// The points of the timeline's own history on which branches and tags stand.
    fn points_on(&self, timeline: &Timeline) -> Result<BTreeSet<Lsn>, RepositoryError> {
        let id = timeline.id();
        let may_be_needed = |by: String, cause: String| match self.branch_of(id) {
            Some(branch) => RepositoryError::MayBeNeeded { name: branch.name, by, cause },
            None => RepositoryError::NoSuchTimeline(id),
        };
        let registry = self.registry.read();
        let needed = |damaged: &&Unreadable| damaged.may_stand_on(id);
        if let Some(damaged) = registry.unreadable().iter().find(needed) {
            let (by, cause) = (damaged.label(), damaged.cause.clone());
            drop(registry);
            return Err(may_be_needed(by, cause));
        }
        let children = registry.children(id).filter_map(|name| registry.get(name)?.ancestor);
        let kept = registry.kept().filter_map(|kept| kept.ancestor);
        let on_this = |ancestor: &Ancestor| ancestor.timeline == id;
        let mut points: BTreeSet<Lsn> =
            children.chain(kept).filter(on_this).map(|ancestor| ancestor.lsn).collect();
        drop(registry);
        let (usable, unusable) = self.tags()?;
        if let Some(tag) = unusable.into_iter().next() {
            return Err(may_be_needed(format!("tag \"{}\"", tag.name), tag.cause));
        }
        for tag in usable {
            // Its place may be on what the timeline that it names was forked from.
            let registry = self.registry.read();
            let (mut owner, mut rounds) = (tag.timeline, registry.timeline_count());
            while let Some(ancestor) = registry.ancestor(owner).filter(|a| tag.lsn < a.lsn)
                // Damaged files must not keep us here.
                && rounds > 0
            {
                (owner, rounds) = (ancestor.timeline, rounds - 1);
            }
            if owner == id {
                points.insert(tag.lsn);
            }
        }
        Ok(points)
    }
}
