//! Where in which timeline a point is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pageserver_client::{At, Point};
use postgres_formats::{TimelineId, Timestamp};

use super::{Repository, RepositoryError};
use crate::timeline::error::TimelineError;
use crate::timeline::{StateAt, Timeline};

/// A point that can be stood on: it has been received, and a crash does not take it away.
pub(super) struct Place {
    /// The timeline that the point's branch or tag names.
    pub(super) named: TimelineId,
    /// The one whose own history has the point: the same, or one of its ancestors.
    pub(super) owner: Arc<Timeline>,
    /// The state there.
    pub(super) at: StateAt,
}

impl Repository {
    /// The timeline that a point names, and where on it: a tag is a place on a timeline.
    fn named_by(&self, point: &Point) -> Result<(TimelineId, At), RepositoryError> {
        match self.find_tag(&point.branch)? {
            Some(tag) if point.at == At::End => Ok((tag.timeline, At::Lsn(tag.lsn))),
            Some(tag) => Err(RepositoryError::TagIsAPoint(tag.name)),
            None => Ok((self.branch(&point.branch)?.timeline, point.at)),
        }
    }

    /// The place of a point. Waits up to `timeout` for an LSN to be received; the end and a time
    /// are looked for in what is there.
    pub(super) fn place(&self, point: &Point, timeout: Duration) -> Result<Place, RepositoryError> {
        let (named, at) = self.named_by(point)?;
        let mut owner = self.timeline(named)?;
        let lsn = match at {
            At::End => owner.end_lsn()?,
            At::Lsn(lsn) => lsn,
            At::Time(time) => owner.lsn_at(time)?,
            At::Ago(ago) => {
                let now = Timestamp::from(SystemTime::now());
                owner.lsn_at(now.saturating_sub(ago))?
            }
        };
        owner.check_lsn(lsn)?;
        owner.wait_lsn(lsn, timeout)?;
        let at = owner.state_at(lsn)?;
        // The history before a timeline's own beginning is its ancestor's.
        while let Some(ancestor) = owner.ancestor_before(at.base) {
            owner = ancestor;
        }
        // What others stand on must not be lost in a crash.
        if owner.flushed_lsn() < at.base {
            owner.sync_wal().map_err(TimelineError::from)?;
        }
        Ok(Place { named, owner, at })
    }
}
