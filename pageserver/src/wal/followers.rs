//! `Followers`: which timelines follow which servers, kept over restarts of the page server.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pageserver_client::{BranchName, Generation, InstanceId};
use parking_lot::{Mutex, MutexGuard};
use postgres_formats::TimelineId;
use postgres_wire::client::ConnectParams;
use slog::{Logger, error, info};

pub use super::follow_error::FollowError;
use super::follow_file::FollowFile;
use super::follower::{FollowState, FollowStatus, Follower};
use super::receiver::{drop_slot, is_writer};
use crate::error_text::with_causes;
use crate::repository::{Repository, UNNAMED};
use crate::timeline::{IngestError, Timeline};
use crate::writer::{WriterFact, WriterRole, Writers};

/// All followers of a page server.
pub struct Followers {
    repository: Arc<Repository>,
    timelines_dir: PathBuf,
    writers: Writers,
    log: Logger,
    /// Makes one change after the other: two receivers must never write one timeline.
    // LOCK ORDER: 1. Held while files are written and threads end.
    change: Mutex<Change>,
    /// Whether those that were running when the page server ended have been started again. Set under
    /// the lock of `change`.
    resumed: AtomicBool,
    // LOCK ORDER: 2, after `change`. Held for a moment only.
    running: Mutex<BTreeMap<TimelineId, Follower>>,
    /// Those that could not be resumed, and why.
    // LOCK ORDER: 2, after `change`. Held for a moment only.
    damaged: Mutex<BTreeMap<TimelineId, String>>,
}

struct Change {
    shut_down: bool,
}

/// A compute that wants to write a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which compute.
    pub instance: InstanceId,
    /// What it is called.
    pub name: BranchName,
    /// The generation it wants to follow upon, so that of two who ask at once one is refused.
    pub after: Generation,
}

/// As whom a server is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowAs {
    /// Which compute.
    pub instance: InstanceId,
    /// The generation in which it got the role.
    pub generation: Generation,
}

impl Followers {
    /// None at first; those remembered are started by `resume`, or before anything else is done.
    pub fn new(repository: Arc<Repository>, repository_dir: &Path, log: &Logger) -> Followers {
        Followers {
            repository,
            writers: Writers::new(&repository_dir.join("timelines")),
            timelines_dir: repository_dir.join("timelines"),
            log: log.clone(),
            change: Mutex::new(Change { shut_down: false }),
            resumed: AtomicBool::new(false),
            running: Mutex::default(),
            damaged: Mutex::default(),
        }
    }

    /// Starts every follower that was running when the page server ended, unless that has been done.
    /// One that cannot be started is logged and left out; it must not keep the others from running.
    /// Looks into every timeline's folder.
    ///
    /// # Errors
    /// `Io`, if the folder of all timelines cannot be read.
    pub fn resume(&self) -> Result<(), FollowError> {
        if self.resumed.load(Ordering::Acquire) { Ok(()) } else { self.change().map(drop) }
    }

    /// For the one who changes something.
    fn change(&self) -> Result<MutexGuard<'_, Change>, FollowError> {
        let change = self.change.lock();
        if !change.shut_down && !self.resumed.load(Ordering::Acquire) {
            self.resume_all(&change)?;
        }
        Ok(change)
    }

    /// For those who only look.
    fn resume_or_log(&self) {
        if let Err(error) = self.resume() {
            error!(self.log, "cannot go on following: {}", with_causes(&error));
        }
    }

    fn resume_all(&self, change: &Change) -> Result<(), FollowError> {
        let path = &self.timelines_dir;
        let io = |source| FollowError::Io { path: path.clone(), source };
        let list = || -> Result<Vec<_>, FollowError> {
            fs::read_dir(path).and_then(Iterator::collect).map_err(io)
        };
        let mut entries = list()?;
        let is_unnamed = |entry: &DirEntry| entry.path().extension() == Some(OsStr::new(UNNAMED));
        if entries.iter().any(is_unnamed) {
            // After a crash it may be one that has a name, and gets its folder back now.
            if let Err(error) = self.repository.know_all() {
                error!(self.log, "the branches cannot be read: {}", with_causes(&error));
            }
            entries = list()?;
        }
        for entry in entries {
            let Some(timeline) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if let Err(error) = self.resume_one(change, timeline) {
                let text = with_causes(&error);
                error!(self.log, "cannot go on following: {}", text; "timeline" => %timeline);
                self.damaged.lock().insert(timeline, text);
            }
        }
        self.resumed.store(true, Ordering::Release);
        Ok(())
    }

    fn resume_one(&self, change: &Change, timeline: TimelineId) -> Result<(), FollowError> {
        FollowFile::remove_unfinished(&self.timeline_dir(timeline))?;
        match FollowFile::read(&self.timeline_dir(timeline))? {
            Some(file) => self.start(change, timeline, file.connstr),
            None => Ok(()),
        }
    }

    /// Tries again those that could not be resumed.
    pub fn resume_damaged(&self) {
        let damaged = self.damaged();
        if damaged.is_empty() {
            return;
        }
        // Whoever changes something has not waited for us either.
        let Some(change) = self.change.try_lock().filter(|change| !change.shut_down) else {
            return;
        };
        for timeline in damaged.into_keys() {
            if self.running.lock().contains_key(&timeline) {
                self.damaged.lock().remove(&timeline);
                continue;
            }
            match self.resume_one(&change, timeline) {
                Ok(()) => drop(self.damaged.lock().remove(&timeline)),
                Err(error) => drop(self.damaged.lock().insert(timeline, with_causes(&error))),
            }
        }
    }

    /// The timelines whose followers could not be resumed, and why.
    pub fn damaged(&self) -> BTreeMap<TimelineId, String> {
        self.resume_or_log();
        self.damaged.lock().clone()
    }

    /// Who writes which timeline.
    pub fn writers(&self) -> &Writers {
        &self.writers
    }

    /// Makes a compute the writer of `timeline` and says where its WAL is to begin. Whoever had
    /// the role before is fenced from then on: nothing of it is taken any more. What was received of
    /// a record that is not complete is given up.
    ///
    /// Durable before it returns. Asked again by the same compute, it says the same.
    ///
    /// # Errors
    /// `Alive` if the present writer can be reached, `Taken` if it is not the one expected.
    pub fn claim(&self, timeline: &Timeline, claim: Claim) -> Result<WriterFact, FollowError> {
        let change = self.change()?;
        if change.shut_down {
            return Err(FollowError::ShuttingDown);
        }
        let id = timeline.id();
        let role = self.writers.role(id)?;
        let present = role.fact();
        if let Some(fact) = &present
            && fact.held
            && fact.instance == claim.instance
        {
            return Ok(fact.clone());
        }
        if role.generation() != claim.after {
            return Err(FollowError::Taken { expected: claim.after, found: role.generation() });
        }
        self.refuse_if_alive(id, present.as_ref())?;
        // No compute begins where more had been durable than can be read now.
        if let Some(stop) = timeline.damage_on_disk() {
            return Err(IngestError::Stopped(stop).into());
        }
        FollowFile::remove(&self.timeline_dir(id))?;
        self.end(id);
        // Nobody writes now, so that this is where history ends. It must not end earlier after a
        // crash: the compute begins here.
        timeline.sync_wal()?;
        timeline.restart_receiving()?;
        timeline.source_is_gone();
        let fact = WriterFact {
            generation: claim.after.next(),
            instance: claim.instance,
            name: claim.name,
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            lsn: timeline.last_record_lsn(),
            held: true,
        };
        role.set(fact.clone())?;
        info!(self.log, "the timeline has another writer"; "timeline" => %id,
            "compute" => %fact.name, "instance" => %fact.instance,
            "generation" => %fact.generation, "lsn" => %fact.lsn);
        Ok(fact)
    }

    /// Takes the role from a compute that is being removed, and lets the timeline follow nobody. If
    /// it does not have the role, nothing changes. Gives who has it then, or had it last.
    pub fn release(
        &self,
        timeline: TimelineId,
        instance: &InstanceId,
    ) -> Result<Option<WriterFact>, FollowError> {
        let change = self.change()?;
        if change.shut_down {
            return Err(FollowError::ShuttingDown);
        }
        let role = self.writers.role(timeline)?;
        let Some(fact) = role.fact() else { return Ok(None) };
        if fact.instance != *instance {
            return Ok(Some(fact));
        }
        // The role last: a crash in between leaves a compute that can be started or removed again.
        self.forget_locked(timeline)?;
        let fact = WriterFact { held: false, ..fact };
        role.set(fact.clone())?;
        Ok(Some(fact))
    }

    /// Lets `timeline`, which is to be deleted, follow nobody.
    ///
    /// # Errors
    /// `Alive` if the server that it follows can be reached.
    pub fn leave_if_gone(&self, timeline: TimelineId) -> Result<(), FollowError> {
        let change = self.change.lock();
        if change.shut_down {
            return Err(FollowError::ShuttingDown);
        }
        let present = self.writers.role(timeline)?.fact();
        self.refuse_if_alive(timeline, present.as_ref())?;
        self.forget_locked(timeline).map(drop)
    }

    /// Whoever can be reached at the address of the present writer and is it must be stopped first.
    fn refuse_if_alive(
        &self,
        timeline: TimelineId,
        present: Option<&WriterFact>,
    ) -> Result<(), FollowError> {
        let Some((connstr, status)) = self
            .running
            .lock()
            .get(&timeline)
            .map(|follower| (follower.connstr().to_owned(), follower.status()))
        else {
            return Ok(());
        };
        let alive = status.state == FollowState::Streaming || {
            let params: ConnectParams = connstr.parse()?;
            match is_writer(&params, timeline, &self.repository, present) {
                Ok(writer) => writer,
                // Something is there that answers, though not what it was asked.
                Err(error) if error.is_answer() => true,
                // Who cannot be asked is taken to be gone: that is what a takeover is for.
                Err(_) => false,
            }
        };
        if !alive {
            return Ok(());
        }
        Err(FollowError::Alive(present.map_or(status.connstr, |fact| fact.name.to_string())))
    }

    /// Lets `timeline`, which exists, follow the server at `connstr`, from now on and after every
    /// restart. If it does so already, it tries to connect at once. Once a timeline has had a
    /// writer, only the present one is followed; a server that is no compute has no name.
    ///
    /// # Errors
    /// `Fenced` if another compute has the role by now.
    pub fn follow(
        &self,
        timeline: TimelineId,
        connstr: &str,
        follow_as: Option<&FollowAs>,
    ) -> Result<(), FollowError> {
        // Checked first, so that nonsense changes nothing.
        connstr.parse::<ConnectParams>()?;
        let change = self.change()?;
        if change.shut_down {
            return Err(FollowError::ShuttingDown);
        }
        admit(&*self.writers.role(timeline)?, follow_as)?;
        {
            let running = self.running.lock();
            if let Some(follower) = running.get(&timeline)
                && follower.connstr() == connstr
            {
                follower.hurry();
                return Ok(());
            }
        }
        FollowFile { connstr: connstr.to_owned() }.write(&self.timeline_dir(timeline))?;
        self.end(timeline);
        self.start(&change, timeline, connstr.to_owned())
    }

    /// Lets `timeline` follow nobody. Says how it did until now; `None`: it followed nobody.
    ///
    /// The server's slot is dropped if the server can be reached, for otherwise it would keep its
    /// WAL for ever.
    pub fn forget(&self, timeline: TimelineId) -> Result<Option<FollowStatus>, FollowError> {
        let change = self.change()?;
        if change.shut_down {
            return Err(FollowError::ShuttingDown);
        }
        self.forget_locked(timeline)
    }

    fn forget_locked(&self, timeline: TimelineId) -> Result<Option<FollowStatus>, FollowError> {
        FollowFile::remove(&self.timeline_dir(timeline))?;
        let connstr = self.running.lock().get(&timeline).map(|f| f.connstr().to_owned());
        let status = self.end(timeline);
        if let Some(connstr) = connstr {
            self.drop_slot(timeline, &connstr);
        }
        Ok(status)
    }

    /// How all followers do, by timeline.
    pub fn list(&self) -> Vec<FollowStatus> {
        self.resume_or_log();
        self.running.lock().values().map(Follower::status).collect()
    }

    /// How one timeline's follower does.
    pub fn status(&self, timeline: TimelineId) -> Option<FollowStatus> {
        self.resume_or_log();
        self.running.lock().get(&timeline).map(Follower::status)
    }

    /// Ends all followers, with everything they received made durable, and refuses new ones. They
    /// go on when the page server is started again.
    pub fn shut_down(&self) {
        let mut change = self.change.lock();
        change.shut_down = true;
        let running = std::mem::take(&mut *self.running.lock());
        // All are told before the first is waited for.
        running.values().for_each(Follower::stop);
        running.into_values().for_each(Follower::join);
    }

    fn drop_slot(&self, timeline: TimelineId, connstr: &str) {
        let drop = || -> Result<bool, String> {
            let params: ConnectParams = connstr.parse().map_err(text_of)?;
            let system = self.repository.timeline(timeline).map_err(text_of)?.cluster().system_id;
            drop_slot(&params, timeline, system).map_err(text_of)
        };
        // Whether the server still is there is not our affair: most often it has just been removed.
        match drop() {
            Ok(true) => info!(self.log, "slot dropped"; "timeline" => %timeline),
            Ok(false) => info!(self.log, "slot left alone, the server is another one";
                "timeline" => %timeline),
            Err(text) => info!(self.log, "slot not dropped: {}", text; "timeline" => %timeline),
        }
    }

    fn start(
        &self,
        _change: &Change,
        timeline: TimelineId,
        connstr: String,
    ) -> Result<(), FollowError> {
        let params: ConnectParams = connstr.parse()?;
        let writer = self.writers.role(timeline)?;
        let repository = self.repository.clone();
        let follower = Follower::start(repository, timeline, writer, connstr, params, &self.log)
            .map_err(FollowError::Thread)?;
        self.running.lock().insert(timeline, follower);
        Ok(())
    }

    /// Ends a follower, if there is one, and says how it did.
    fn end(&self, timeline: TimelineId) -> Option<FollowStatus> {
        let follower = self.running.lock().remove(&timeline)?;
        follower.stop();
        let status = follower.status();
        follower.join();
        info!(self.log, "no longer following"; "timeline" => %timeline);
        Some(status)
    }

    fn timeline_dir(&self, timeline: TimelineId) -> PathBuf {
        self.timelines_dir.join(timeline.to_string())
    }
}

/// Whether a server may be followed under that name. A writer that has given the role back and comes
/// again before anybody else has taken it gets it back.
fn admit(role: &WriterRole, follow_as: Option<&FollowAs>) -> Result<(), FollowError> {
    match (role.fact(), follow_as) {
        (None, None) => Ok(()),
        (None, Some(claimed)) => Err(FollowError::Unknown(claimed.generation)),
        (Some(fact), None) => Err(FollowError::Unnamed(fact.name)),
        (Some(fact), Some(claimed)) if claimed.generation > fact.generation => {
            Err(FollowError::Unknown(claimed.generation))
        }
        (Some(fact), Some(claimed))
            if claimed.generation == fact.generation && claimed.instance == fact.instance =>
        {
            if fact.held { Ok(()) } else { Ok(role.set(WriterFact { held: true, ..fact })?) }
        }
        (Some(fact), Some(_)) => Err(FollowError::Fenced(fact.fenced())),
    }
}

fn text_of(error: impl std::error::Error + 'static) -> String {
    with_causes(&error)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use postgres_formats::Lsn;

    use super::*;

    #[test]
    fn only_the_present_writer_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let role = WriterRole::read(dir.path()).unwrap();
        let writer = |instance: &str, generation| FollowAs {
            instance: instance.parse().unwrap(),
            generation: Generation(generation),
        };
        let admit = |follow_as: Option<FollowAs>| admit(&role, follow_as.as_ref());
        assert!(admit(None).is_ok());
        assert!(matches!(admit(Some(writer("a", 1))), Err(FollowError::Unknown(_))));
        role.set(WriterFact {
            generation: Generation(2),
            instance: "b".parse().unwrap(),
            name: "main".parse().unwrap(),
            since: 0,
            lsn: Lsn::new(0x16B3748),
            held: true,
        })
        .unwrap();
        assert!(matches!(admit(None), Err(FollowError::Unnamed(_))));
        assert!(matches!(admit(Some(writer("a", 1))), Err(FollowError::Fenced(_))));
        assert!(matches!(admit(Some(writer("a", 2))), Err(FollowError::Fenced(_))));
        assert!(matches!(admit(Some(writer("b", 3))), Err(FollowError::Unknown(_))));
        assert!(admit(Some(writer("b", 2))).is_ok());
        // Given back, and wanted again before anybody else has taken it.
        role.set(WriterFact { held: false, ..role.fact().unwrap() }).unwrap();
        assert!(admit(Some(writer("b", 2))).is_ok());
        assert!(role.fact().unwrap().held);
    }
}
