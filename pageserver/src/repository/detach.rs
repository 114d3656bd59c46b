//! Detaching branches: so that one no longer needs what it was made from.
//!
//! That a branch is to be detached is remembered in its timeline's manifest. A thread does it for all that
//! are, one after the other, and goes on after a restart; whoever wants to wait does it himself.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use pageserver_client::BranchName;
use postgres_formats::TimelineId;

use super::{Branch, Repository, RepositoryError};
use crate::error_text::with_causes;
use crate::leases::Lease;
use crate::timeline::FreezeError;

/// What did not succeed is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The thread that detaches.
pub(super) type Detacher = Sender<TimelineId>;

impl Repository {
    /// Detaches branches from now on, those included that were to be before, on a thread of its own that
    /// ends with the repository. To be called once.
    pub fn detach_in_background(self: &Arc<Repository>) {
        let (sender, receiver) = unbounded();
        let repository = Arc::downgrade(self);
        let thread = thread::Builder::new().name("detach".to_owned());
        match thread.spawn(move || detach_all(&repository, &receiver)) {
            Ok(_) => drop(self.detacher.set(sender)),
            Err(error) => {
                slog::error!(self.log, "cannot start a thread; no branch is detached by itself";
                    "error" => %error);
            }
        }
    }

    /// Has a branch detached soon: remembers it durably.
    ///
    /// # Errors
    /// `CannotDetach` if a tag, a compute or a branch needs what is before its beginning by its name; see
    /// `RepositoryError`.
    pub fn begin_detaching(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        let branch = self.mark_detaching(name)?;
        if let Some(detacher) = self.detacher.get().filter(|_| branch.detaching) {
            // It is there as long as we are.
            let _ = detacher.send(branch.timeline);
        }
        Ok(branch)
    }

    /// Detaches a branch.
    ///
    /// # Errors
    /// As above, and `StillRead`. If that happened on the way, it is gone on with in the background.
    pub fn detach(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        let branch = self.mark_detaching(name)?;
        if branch.detaching {
            let done = self.detach_timeline(branch.timeline);
            if let (Err(_), Some(detacher)) = (&done, self.detacher.get()) {
                let _ = detacher.send(branch.timeline);
            }
            done?;
        }
        self.branch_of(branch.timeline).ok_or(RepositoryError::NoSuchTimeline(branch.timeline))
    }

    fn mark_detaching(&self, name: &BranchName) -> Result<Branch, RepositoryError> {
        let timeline = self.timeline(self.branch(name)?.timeline)?;
        self.know_all()?;
        let changing = self.changing.lock();
        self.look_now(&changing);
        let branch = self.branch_now(name, &changing)?;
        if branch.timeline != timeline.id() {
            return Err(RepositoryError::NoSuchTimeline(timeline.id()));
        }
        if branch.ancestor.is_none() || branch.detaching {
            return Ok(branch);
        }
        self.refuse_if_attached(&branch)?;
        timeline.set_detaching(true)?;
        self.registry.write().set_detaching(branch.timeline, true);
        Ok(Branch { detaching: true, ..branch })
    }

    /// Does what was remembered.
    fn detach_timeline(&self, id: TimelineId) -> Result<(), RepositoryError> {
        let timeline = self.timeline(id)?;
        loop {
            timeline.prepare_detaching()?;
            // Nobody shall tag what is before its beginning, or make a branch there, just now.
            let changing = self.changing.lock();
            let branch = self.branch_of(id).ok_or(RepositoryError::NoSuchTimeline(id))?;
            if let Err(error) = self.refuse_if_attached(&branch) {
                timeline.set_detaching(false)?;
                self.registry.write().set_detaching(id, false);
                return Err(error);
            }
            if let Some(reader) = self.reads_before(&branch, Lease::ends_by_itself) {
                let (name, start) = (branch.name, branch.start);
                return Err(RepositoryError::StillRead { name, reader: reader.name, start });
            }
            if timeline.finish_detaching()? {
                self.registry.write().set_detached(id);
                slog::info!(self.log, "branch detached"; "branch" => %branch.name,
                    "timeline" => %id, "lsn" => %branch.start);
                // What it stood on may have been kept for it alone.
                self.remove_unneeded(&changing);
                return Ok(());
            }
            drop(changing);
            timeline.wait_for_layers();
        }
    }

    /// One of the leases of that kind for what is before the branch's beginning.
    fn reads_before(&self, branch: &Branch, kind: impl Fn(&Lease) -> bool) -> Option<Lease> {
        let is_before = |lease: &Lease| {
            let first = lease.lsns.first();
            lease.timeline == branch.timeline && first.is_some_and(|lsn| *lsn < branch.start)
        };
        self.leases.list().into_iter().find(|lease| is_before(lease) && kind(lease))
    }

    /// Whoever names what is before the branch's beginning by its name keeps it attached.
    fn refuse_if_attached(&self, branch: &Branch) -> Result<(), RepositoryError> {
        let refuse = |why| Err(RepositoryError::CannotDetach { name: branch.name.clone(), why });
        let (tags, unusable) = self.tags()?;
        let is_before =
            |tag: &&super::Tag| tag.timeline == branch.timeline && tag.lsn < branch.start;
        if let Some(tag) = tags.iter().find(is_before) {
            let (tag, start) = (&tag.name, branch.start);
            return refuse(format!(
                "tag \"{tag}\" is a place before {start}, where it was made; delete that first"
            ));
        }
        if let Some(tag) = unusable.into_iter().next() {
            return refuse(format!(
                "tag \"{}\" may be a place on it and cannot be read: {}",
                tag.name, tag.cause
            ));
        }
        if let Some(lease) = self.reads_before(branch, |lease| !lease.ends_by_itself()) {
            let (name, start) = (lease.name, branch.start);
            return refuse(format!(
                "\"{name}\" reads what is before {start}, where it was made; end that first"
            ));
        }
        let registry = self.registry.read();
        let children = registry.children(branch.timeline).filter_map(|name| registry.get(name));
        let early = |child: &&Branch| child.ancestor.is_some_and(|at| at.lsn < branch.start);
        match children.into_iter().find(early) {
            Some(child) => refuse(format!("branch \"{}\" begins before it does", child.name)),
            None => Ok(()),
        }
    }
}

/// The thread.
fn detach_all(repository: &Weak<Repository>, wanted: &Receiver<TimelineId>) {
    let mut due = Vec::new();
    if let Some(repository) = repository.upgrade() {
        match repository.branches() {
            Ok(branches) => {
                due.extend(branches.iter().filter(|b| b.detaching).map(|b| b.timeline));
            }
            Err(error) => slog::error!(
                repository.log,
                "it is not known which branches are to be detached: {}",
                with_causes(&error)
            ),
        }
    }
    loop {
        for id in std::mem::take(&mut due) {
            let Some(repository) = repository.upgrade() else { return };
            let log = &repository.log;
            match repository.detach_timeline(id) {
                // Deleted, perhaps.
                Ok(()) | Err(RepositoryError::NoSuchTimeline(_)) => {}
                Err(RepositoryError::Layers(FreezeError::ShutDown)) => {}
                Err(error @ RepositoryError::CannotDetach { .. }) => {
                    slog::warn!(log, "{}", error);
                }
                Err(
                    RepositoryError::Layers(FreezeError::GaveWay)
                    | RepositoryError::StillRead { .. },
                ) => due.push(id),
                Err(error) => {
                    slog::error!(log, "a branch cannot be detached, tried again soon: {}",
                        with_causes(&error); "timeline" => %id);
                    due.push(id);
                }
            }
        }
        match wanted.recv_timeout(RETRY_AFTER) {
            Ok(id) => due.push(id),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        due.extend(wanted.try_iter());
        due.dedup();
    }
}
