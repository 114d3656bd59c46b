//! `Followers`: which timelines follow which servers, kept over restarts of the page server.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use postgres_formats::TimelineId;
use postgres_wire::client::{ConnectParams, ParamsError};
use slog::{Logger, error, info};

use super::follow_file::{FollowFile, FollowFileError};
use super::follower::{FollowStatus, Follower};
use super::receiver::drop_slot;
use crate::error_text::with_causes;
use crate::repository::Repository;

/// Why a timeline cannot be made to follow a server, or to stop.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The connection string makes no sense.
    #[error("invalid connection string: {0}")]
    Params(#[from] ParamsError),
    /// What is to be followed cannot be remembered, or forgotten.
    #[error(transparent)]
    File(#[from] FollowFileError),
    /// The timelines' folders cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There cannot be another thread.
    #[error("cannot start a thread for receiving WAL")]
    Thread(#[source] io::Error),
    /// Nothing new is begun now.
    #[error("the page server is shutting down")]
    ShuttingDown,
}

/// All followers of a page server.
pub struct Followers {
    repository: Arc<Repository>,
    timelines_dir: PathBuf,
    log: Logger,
    /// Makes one change after the other: two receivers must never write one timeline.
    // LOCK ORDER: 1. Held while files are written and threads end.
    change: Mutex<Change>,
    // LOCK ORDER: 2, after `change`. Held for a moment only.
    running: Mutex<BTreeMap<TimelineId, Follower>>,
}

struct Change {
    shut_down: bool,
}

impl Followers {
    /// None at first; `resume` starts those remembered.
    pub fn new(repository: Arc<Repository>, repository_dir: &Path, log: &Logger) -> Followers {
        Followers {
            repository,
            timelines_dir: repository_dir.join("timelines"),
            log: log.clone(),
            change: Mutex::new(Change { shut_down: false }),
            running: Mutex::default(),
        }
    }

    /// Starts every follower that was running when the page server ended. One that cannot be
    /// started is logged and left out; it must not keep the others from running.
    pub fn resume(&self) -> Result<(), FollowError> {
        let path = &self.timelines_dir;
        let io = |source| FollowError::Io { path: path.clone(), source };
        let change = self.change.lock();
        for entry in fs::read_dir(path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Some(timeline) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let resumed = match FollowFile::read(&entry.path()) {
                Ok(None) => continue,
                Ok(Some(file)) => self.start(&change, timeline, file.connstr),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = resumed {
                let text = with_causes(&error);
                error!(self.log, "cannot go on following: {}", text; "timeline" => %timeline);
            }
        }
        Ok(())
    }

    /// Lets `timeline`, which exists, follow the server at `connstr`, from now on and after every
    /// restart. If it does so already, it tries to connect at once.
    pub fn follow(&self, timeline: TimelineId, connstr: &str) -> Result<(), FollowError> {
        // Checked first, so that nonsense changes nothing.
        connstr.parse::<ConnectParams>()?;
        let change = self.change.lock();
        if change.shut_down {
            return Err(FollowError::ShuttingDown);
        }
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
        let change = self.change.lock();
        if change.shut_down {
            return Err(FollowError::ShuttingDown);
        }
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
        self.running.lock().values().map(Follower::status).collect()
    }

    /// How one timeline's follower does.
    pub fn status(&self, timeline: TimelineId) -> Option<FollowStatus> {
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
        let follower =
            Follower::start(self.repository.clone(), timeline, connstr, params, &self.log)
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

fn text_of(error: impl std::error::Error + 'static) -> String {
    with_causes(&error)
}
