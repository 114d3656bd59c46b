//! From a point to an LSN.

use std::time::{Duration, Instant, SystemTime};

use pageserver_client::{At, Point};
use postgres_formats::{Lsn, TimelineId, Timestamp};

use crate::branch::{Branch, DATA_CORRUPTED, stop_of};
use crate::compute::ComputeState;
use crate::error::{Error, Result};
use crate::process;
use crate::repository::Repository;

/// How long WAL may be stopped before that counts as more than a hiccup.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

impl Repository {
    /// The branch that `point` is on, and where on it: a tag is an LSN on a branch.
    pub fn locate(&self, point: &Point) -> Result<(Branch, Point)> {
        let no_branch = match self.branch(&point.branch) {
            Ok(branch) => return Ok((branch, point.clone())),
            Err(error @ Error::NotFound { .. }) => error,
            Err(error) => return Err(error),
        };
        let Some(tag) = self.find_tag(&point.branch)? else { return Err(no_branch) };
        if point.at != At::End {
            return Err(Error::InvalidArgument(format!(
                "{:?} is a tag, which is a point by itself: leave out the @ and what follows",
                tag.name.as_str()
            )));
        }
        let Some(name) = &tag.branch else {
            return Err(Error::PageServer {
                sqlstate: DATA_CORRUPTED.to_owned(),
                message: format!(
                    "tag {:?} cannot be used: no branch that can be read has its timeline {}",
                    tag.name.as_str(),
                    tag.timeline
                ),
            });
        };
        Ok((self.branch(name)?, Point::at_lsn(name, tag.lsn)))
    }

    /// The LSN that `point` means; it is on `branch`.
    pub fn lsn_of(&self, branch: &Branch, point: &Point) -> Result<Lsn> {
        // Counted from now, not from when the page server has caught up.
        let time = match point.at {
            At::Lsn(lsn) => return Ok(lsn),
            At::End => None,
            At::Time(time) => Some(time),
            At::Ago(ago) => Some(Timestamp::from(SystemTime::now()).saturating_sub(ago)),
        };
        self.catch_up(branch.timeline)?;
        match time {
            None => self.end_lsn(branch.timeline),
            Some(time) => {
                let command = format!("lsn_at {} {time}", branch.timeline);
                self.control()?.row(&command)?.value("lsn")
            }
        }
    }

    /// End of the last record that the page server has of `timeline`.
    pub fn last_record_lsn(&self, timeline: TimelineId) -> Result<Lsn> {
        self.control()?.row(&format!("timeline_show {timeline}"))?.value("last_record_lsn")
    }

    /// The oldest LSN from which on the page server answers for all of `timeline`.
    pub(crate) fn oldest_lsn(&self, timeline: TimelineId) -> Result<Lsn> {
        self.control()?.row(&format!("timeline_show {timeline}"))?.value("oldest_lsn")
    }

    /// The same as the place where a server can go on; refused where more had been durable that the
    /// page server cannot read.
    pub(crate) fn end_lsn(&self, timeline: TimelineId) -> Result<Lsn> {
        let row = self.control()?.row(&format!("timeline_show {timeline}"))?;
        match stop_of(&row)? {
            Some(stop) if stop.is_damage => Err(Error::PageServer {
                sqlstate: DATA_CORRUPTED.to_owned(),
                message: format!("the end of this branch is not known: {stop}"),
            }),
            _ => row.value("last_record_lsn"),
        }
    }

    /// Waits until the page server has what the compute on `timeline` has made durable by now. It
    /// follows a moment behind, and the end of a branch should include the commit just made.
    pub(crate) fn catch_up(&self, timeline: TimelineId) -> Result<()> {
        let Some(writer) =
            self.writing_compute(timeline)?.filter(|c| c.status().state == ComputeState::Running)
        else {
            return Ok(());
        };
        let flushed: Lsn =
            writer.control()?.row("select pg_current_wal_flush_lsn() as lsn")?.value("lsn")?;
        let mut control = self.control()?;
        let command = format!("timeline_show {timeline}");
        let mut received = Ok(Lsn::INVALID);
        let mut stop = Ok(None);
        let mut stopped_since = None;
        let patience = Duration::from_secs(self.config().lsn_timeout_seconds);
        let caught_up = process::wait_until(patience, || {
            let row = control.row(&command);
            stop = row.as_ref().map_or(Ok(None), stop_of);
            received = row.and_then(|row| row.value("received_lsn"));
            let since = match &stop {
                Ok(Some(_)) => *stopped_since.get_or_insert_with(Instant::now),
                _ => {
                    stopped_since = None;
                    Instant::now()
                }
            };
            // What came badly is asked for again at once, and most often is good then.
            received.as_ref().map_or(true, |lsn| *lsn >= flushed) || since.elapsed() > STOP_PATIENCE
        });
        let received = received?;
        if received >= flushed {
            return Ok(());
        }
        if let Some(stop) = stop.ok().flatten().filter(|_| caught_up) {
            return Err(Error::PageServer {
                sqlstate: DATA_CORRUPTED.to_owned(),
                message: format!(
                    "the page server does not have all that compute {:?} has: {stop}",
                    writer.name()
                ),
            });
        }
        Err(Error::Timeout(format!(
            "the page server has received only {received} of compute {:?}, which is at {flushed}, \
             after {} s; name an LSN to take what is there, or see {}",
            writer.name(),
            patience.as_secs(),
            self.server_log().display()
        )))
    }
}
