//! Leases: what computes and readers need of history, known to the page server, which removes none of that.
//!
//! A compute has a lease from before its first byte is laid out until its directory is gone. A reader's lasts for
//! a time and is renewed by a thread for as long as the reader lives (`ReadLease`).

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use pageserver_client::InstanceId;
use postgres_formats::{Lsn, TimelineId};

use crate::branch::{UNDEFINED_OBJECT, check_name};
use crate::compute::{Compute, new_instance};
use crate::control::{Row, quote};
use crate::error::{Error, Result};
use crate::repository::Repository;

/// SQLSTATE of an LSN whose history was removed.
const BELOW_HORIZON: &str = "22023";
/// How long a reader's lease lasts without being renewed.
const READER_LASTS: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEWED_EVERY: Duration = Duration::from_secs(15);

/// What somebody needs of a branch's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Who: a compute, or a reader.
    pub holder: InstanceId,
    /// What that is called.
    pub name: String,
    /// What is read.
    pub timeline: TimelineId,
    /// At which LSNs.
    pub lsns: Vec<Lsn>,
    /// Whether it is a reader, whose lease ends when it is not renewed.
    pub is_reader: bool,
}

impl Lease {
    fn of(row: &Row) -> Result<Lease> {
        Ok(Lease {
            holder: row.value("holder")?,
            name: row.value("name")?,
            timeline: row.value("timeline")?,
            lsns: row.text("lsns")?.split(' ').filter_map(|lsn| lsn.parse().ok()).collect(),
            is_reader: row.optional("lasts_seconds").is_some(),
        })
    }
}

impl Repository {
    /// What computes and readers need of history.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        self.control()?.rows("lease_list")?.iter().map(Lease::of).collect()
    }

    /// Ends the lease of a compute.
    pub(crate) fn drop_lease(&self, holder: &InstanceId) -> Result<()> {
        self.control()?.rows(&format!("lease_drop {holder}")).map(drop)
    }

    /// Ends the leases of computes called `name` but for that of `but`: computes that are not there any more.
    /// The caller has the lock for making computes. Gives how many there were.
    pub(crate) fn drop_leases_of_lost(
        &self,
        name: &str,
        but: Option<&InstanceId>,
    ) -> Result<usize> {
        let leases = self.leases()?.into_iter();
        let lost = leases
            .filter(|lease| !lease.is_reader && lease.name == name && Some(&lease.holder) != but);
        let lost: Vec<Lease> = lost.collect();
        lost.iter().try_for_each(|lease| self.drop_lease(&lease.holder))?;
        Ok(lost.len())
    }

    /// Sees to it that every compute has a lease, also one that an earlier release has made, and tells the
    /// page server, which before that removes nothing.
    pub fn register_computes(&self) -> Result<()> {
        let _lock = self.lock_computes()?;
        self.remove_leftovers();
        let known: BTreeSet<InstanceId> =
            self.leases()?.into_iter().map(|lease| lease.holder).collect();
        for compute in self.computes()? {
            if !known.contains(compute.instance()) {
                compute.hold_if_possible()?;
            }
        }
        self.control()?.rows("lease_all_known").map(drop)
    }

    /// Has the history at `lsn` of `timeline` kept for a reader, for as long as the result lives; with `since`
    /// also all that follows. `what` it does can be read where the page server tells what holds history back.
    ///
    /// # Errors
    /// The history is not there any more: the answer says from where on it is.
    pub fn read_lease(
        &self,
        what: &str,
        timeline: TimelineId,
        lsn: Lsn,
        since: bool,
    ) -> Result<ReadLease> {
        ReadLease::begin(self, &new_instance()?, what, timeline, lsn, since)
    }
}

impl Compute {
    /// Has the page server keep what this compute reads at `lsn`, besides what it keeps for it already.
    ///
    /// # Errors
    /// It is not there any more, among others.
    pub(crate) fn hold(&self, lsn: Lsn) -> Result<()> {
        let name = check_name(self.name().trim_start_matches('.'))?;
        let command =
            format!("lease_set {} {} {} {lsn}", self.instance(), quote(&name), self.timeline());
        self.repository().control()?.rows(&command).map(drop)
    }

    /// The same at its base LSN and nothing else. Where history is gone already it is not held: what the
    /// compute has itself can be used all the same, and reading more is refused.
    pub(crate) fn hold_if_possible(&self) -> Result<()> {
        let base = self.base_lsn();
        match self.hold(base).and_then(|()| self.hold_only(base)) {
            Err(Error::PageServer { sqlstate, .. })
                if sqlstate == BELOW_HORIZON || sqlstate == UNDEFINED_OBJECT =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Lets the page server keep nothing for this compute any more but what it reads at `lsn`.
    pub(crate) fn hold_only(&self, lsn: Lsn) -> Result<()> {
        let command = format!("lease_narrow {} {lsn}", self.instance());
        self.repository().control()?.rows(&command).map(drop)
    }
}

/// A reader's lease, which ends with this value.
#[derive(Debug)]
pub struct ReadLease {
    repository: Repository,
    holder: InstanceId,
    /// Ends the thread when it is dropped.
    _stop: Sender<()>,
}

impl ReadLease {
    pub(crate) fn begin(
        repository: &Repository,
        holder: &InstanceId,
        what: &str,
        timeline: TimelineId,
        lsn: Lsn,
        since: bool,
    ) -> Result<ReadLease> {
        let seconds = READER_LASTS.as_secs();
        let since = if since { " since" } else { "" };
        let what = quote(&check_name(what)?);
        let set = format!("lease_set {holder} {what} {timeline} {lsn} {seconds}{since}");
        repository.control()?.rows(&set)?;
        let (stop, stopped) = channel::<()>();
        let lease =
            ReadLease { repository: repository.clone(), holder: holder.clone(), _stop: stop };
        let (repository, renew) = (repository.clone(), format!("lease_renew {holder}"));
        let work = move || {
            while stopped.recv_timeout(RENEWED_EVERY) == Err(RecvTimeoutError::Timeout) {
                // A page server that is away for a moment has it still when it is back.
                let renewed = repository.control().and_then(|mut control| control.rows(&renew));
                if let Err(Error::PageServer { sqlstate, .. }) = renewed
                    && sqlstate == UNDEFINED_OBJECT
                {
                    // We were too late, after a sleep of the machine, say. If what we read is gone, reading
                    // says so.
                    let _ = repository.control().and_then(|mut control| control.rows(&set));
                }
            }
        };
        let thread = thread::Builder::new().name("lease".to_owned()).spawn(work);
        match thread {
            Ok(_) => Ok(lease),
            Err(source) => Err(Error::Io {
                action: "start a thread for",
                path: lease.repository.dir().to_owned(),
                source,
            }),
        }
    }
}

impl Drop for ReadLease {
    fn drop(&mut self) {
        // If it cannot be ended it ends by itself.
        let _ = self.repository.drop_lease(&self.holder);
    }
}
