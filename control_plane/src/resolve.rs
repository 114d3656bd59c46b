//! From a point to an LSN.

use std::time::{Duration, SystemTime};

use postgres_formats::{Lsn, TimelineId, Timestamp};

use crate::branch::Branch;
use crate::compute::ComputeState;
use crate::control::quote;
use crate::error::{Error, Result};
use crate::point::{At, Point};
use crate::process;
use crate::repository::Repository;

/// SQLSTATE of a command that the page server does not have.
const SYNTAX_ERROR: &str = "42601";

impl Repository {
    /// The LSN that `point` means; it is on `branch`.
    pub fn lsn_of(&self, branch: &Branch, point: &Point) -> Result<Lsn> {
        match point.at {
            At::End => {
                self.catch_up(branch.timeline)?;
                self.last_record_lsn(branch.timeline)
            }
            At::Lsn(lsn) => Ok(lsn),
            At::Time(time) => self.lsn_at(branch, point, time),
            At::Ago(ago) => {
                let now = SystemTime::now();
                let time = now.checked_sub(ago).ok_or_else(|| {
                    Error::InvalidArgument(format!("{point} is before the beginning of time"))
                })?;
                self.lsn_at(branch, point, time.into())
            }
        }
    }

    /// End of the last record that the page server has of `timeline`.
    pub fn last_record_lsn(&self, timeline: TimelineId) -> Result<Lsn> {
        self.control()?.row(&format!("timeline_show {timeline}"))?.value("last_record_lsn")
    }

    fn lsn_at(&self, branch: &Branch, point: &Point, time: Timestamp) -> Result<Lsn> {
        let command = format!("lsn_at {} {}", branch.timeline, quote(&time.to_string()));
        match self.control()?.row(&command) {
            Err(Error::PageServer { sqlstate, .. }) if sqlstate == SYNTAX_ERROR => {
                Err(Error::InvalidArgument(format!(
                    "{point}: this page server does not know which LSN belongs to a time; give the \
                     LSN, as in {}@0/16B3748",
                    point.branch
                )))
            }
            row => row?.value("lsn"),
        }
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
