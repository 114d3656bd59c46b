//! Leases: what computes and readers need of history.

use std::time::Duration;

use pageserver_client::{BranchName, InstanceId};
use postgres_formats::{Lsn, TimelineId};

use super::{Repository, RepositoryError, now};
use crate::leases::{Lease, Leases, Readings};
use crate::seqwait::WaitError;
use crate::timeline::Timeline;
use crate::timeline::error::TimelineError;

/// Who wants a lease, and for what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRequest {
    /// Who.
    pub holder: InstanceId,
    /// What it is called.
    pub name: BranchName,
    /// What it is going to read.
    pub timeline: TimelineId,
    /// At which LSN.
    pub lsn: Lsn,
    /// Whether at all LSNs from there on.
    pub since: bool,
    /// How long the lease lasts unless it is renewed; `None`: until it is given up.
    pub lasts: Option<Duration>,
}

impl Repository {
    /// The leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// What is being read on connections.
    pub fn readings(&self) -> &std::sync::Arc<Readings> {
        &self.readings
    }

    /// Gives out a lease, besides what the same holder has one for on that timeline already. What it needs is
    /// there from then on for as long as it has the lease, whatever crashes. Waits up to `timeout` for the
    /// LSN to be received; one behind a stop is a compute's to have.
    ///
    /// # Errors
    /// `BeforeBeginning` if it is not there any more; see `RepositoryError`.
    pub fn lease(
        &self,
        request: &LeaseRequest,
        timeout: Duration,
    ) -> Result<Lease, RepositoryError> {
        let LeaseRequest { timeline: id, lsn, since, lasts, .. } = *request;
        let timeline = self.timeline(id)?;
        timeline.check_lsn(lsn)?;
        let lsns = match timeline.wait_lsn(lsn, timeout) {
            // A compute stands behind a stop, and may be the one that has what is missing. Nothing there is removed
            // while it is not there; and a compute's base is where a record ends.
            Err(WaitError::Stopped { .. }) if lasts.is_none() => vec![lsn],
            Err(error) => return Err(error.into()),
            Ok(()) => {
                if timeline.flushed_lsn() < lsn {
                    timeline.sync_wal().map_err(TimelineError::from)?;
                }
                needed_for(&timeline, lsn)?
            }
        };
        // What stands on what is asked by whoever removes history.
        let _changing = self.changing.lock();
        for lsn in &lsns {
            timeline.check_lsn(*lsn)?;
        }
        // Its timeline may have been deleted meanwhile.
        if !super::scan::timeline_dir(&self.dir, id).exists() {
            return Err(RepositoryError::NoSuchTimeline(id));
        }
        self.leases.drop_over()?;
        let had = self.leases.get(&request.holder).filter(|had| had.timeline == id);
        let had_lsns = had.as_ref().map(|had| had.lsns.clone()).unwrap_or_default();
        let lease = Lease {
            holder: request.holder.clone(),
            name: request.name.clone(),
            timeline: id,
            lsns: had_lsns,
            since: since || had.as_ref().is_some_and(|had| had.since),
            lasts,
            created: had.as_ref().map_or_else(now, |had| had.created),
        };
        let lease = lease.and(&lsns);
        if had.as_ref() != Some(&lease) {
            self.leases.set(lease.clone())?;
            slog::info!(self.log, "lease given out"; "name" => %lease.name, "lsn" => %lsn,
                "timeline" => %id, "holder" => %lease.holder);
        }
        self.leases.renew(&lease.holder);
        Ok(lease)
    }

    /// Lets a lease be for one of its LSNs only.
    ///
    /// # Errors
    /// `NoSuchLease`; `BeforeBeginning` if it was not for that LSN and that is gone.
    pub fn narrow_lease(&self, holder: &InstanceId, lsn: Lsn) -> Result<Lease, RepositoryError> {
        let no_lease = || RepositoryError::NoSuchLease(holder.clone());
        let lease = self.leases.get(holder).ok_or_else(no_lease)?;
        let timeline = self.timeline(lease.timeline)?;
        let lsns = needed_for(&timeline, lsn)?;
        let _changing = self.changing.lock();
        for lsn in &lsns {
            timeline.check_lsn(*lsn)?;
        }
        let lease = self.leases.get(holder).ok_or_else(no_lease)?;
        let narrow = Lease { lsns: Vec::new(), ..lease.clone() }.and(&lsns);
        if narrow != lease {
            self.leases.set(narrow.clone())?;
        }
        Ok(narrow)
    }

    /// Lets a lease last for its time from now on.
    ///
    /// # Errors
    /// `NoSuchLease`: what it was for may be gone.
    pub fn renew_lease(&self, holder: &InstanceId) -> Result<Lease, RepositoryError> {
        let no_lease = || RepositoryError::NoSuchLease(holder.clone());
        // With the lock, it would wait for whoever changes something, and be over.
        match self.leases.renew(holder) {
            true => self.leases.get(holder).ok_or_else(no_lease),
            false => Err(no_lease()),
        }
    }

    /// Ends a lease, if there is one.
    ///
    /// # Errors
    /// See `RepositoryError`.
    pub fn drop_lease(&self, holder: &InstanceId) -> Result<Option<Lease>, RepositoryError> {
        let _changing = self.changing.lock();
        let lease = self.leases.get(holder);
        self.leases.drop(holder)?;
        if let Some(lease) = &lease {
            slog::info!(self.log, "lease ended"; "name" => %lease.name, "holder" => %holder);
        }
        Ok(lease)
    }

    /// Takes note that there is no compute without a lease. Before that no history is removed.
    ///
    /// # Errors
    /// See `RepositoryError`.
    pub fn all_computes_known(&self) -> Result<(), RepositoryError> {
        let _changing = self.changing.lock();
        Ok(self.leases.set_all_known()?)
    }
}

/// What a reader at `lsn` asks for: that, and where the last record before it ends.
fn needed_for(timeline: &Timeline, lsn: Lsn) -> Result<Vec<Lsn>, TimelineError> {
    Ok(vec![timeline.state_at(lsn)?.base.min(lsn), lsn])
}
