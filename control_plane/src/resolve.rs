//! From a point to an LSN.

use std::time::{Duration, SystemTime};

use pageserver_client::{At, Point};
use postgres_formats::{Lsn, TimelineId, Timestamp};

use crate::branch::Branch;
use crate::compute::ComputeState;
use crate::error::{Error, Result};
use crate::process;
use crate::repository::Repository;

impl Repository {
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
            None => self.last_record_lsn(branch.timeline),
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

    /// Waits until the page server has what the compute on `timeline` has made durable by now. It
    /// follows a moment behind, and the end of a branch should include the commit just made.
    pub(crate) fn catch_up(&self, timeline: TimelineId) -> Result<()> {
        let computes = self.computes()?;
        let writer = computes.iter().find(|compute| compute.continues(timeline));
        let Some(writer) = writer.filter(|c| c.status().state == ComputeState::Running) else {
            return Ok(());
        };
        let flushed: Lsn =
            writer.control()?.row("select pg_current_wal_flush_lsn() as lsn")?.value("lsn")?;
        let mut control = self.control()?;
        let command = format!("timeline_show {timeline}");
        let mut received = Ok(Lsn::INVALID);
        let patience = Duration::from_secs(self.config().lsn_timeout_seconds);
        let caught_up = process::wait_until(patience, || {
            received = control.row(&command).and_then(|row| row.value("received_lsn"));
            received.as_ref().map_or(true, |lsn| *lsn >= flushed)
        });
        let received = received?;
        if caught_up {
            return Ok(());
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
