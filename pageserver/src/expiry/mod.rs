//! `Expiry`: deletes branches whose time has come.
//!
//! A branch that has expired is deleted as by hand, if that is possible: not while it is protected, has
//! children or tags, while a compute runs on it or anybody reads pages of it. Then the reason is told
//! (`branch_list`), and it is tried again. When a branch expires stands in its file (`refs/branches`), so
//! that nothing here has to survive a restart.

mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use postgres_formats::TimelineId;
use slog::{Logger, error, info, warn};

use crate::background::{Background, Bell};
use crate::error_text::with_causes;
use crate::repository::{Branch, Repository, RepositoryError};
use crate::wal::followers::{FollowError, Followers};
use watch::{Moment, Watch};

/// How often it is looked at what has expired and is still there.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long nothing is looked at if nothing is about to expire: the clock may be set meanwhile.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Deletes branches whose time has come.
pub struct Expiry {
    shared: Arc<Shared>,
    thread: Background,
}

struct Shared {
    repository: Arc<Repository>,
    followers: Arc<Followers>,
    grace: Duration,
    log: Logger,
    /// Rings when something may expire sooner than was thought.
    bell: Bell,
    /// Why branches that have expired are still there.
    // LOCK ORDER: a leaf; held for a moment.
    kept: Mutex<BTreeMap<TimelineId, String>>,
}

/// Why a branch that has expired is not deleted.
enum Kept {
    /// It is in use: when it is so no longer, it gets its time of grace.
    Used(String),
    /// Something else.
    Refused(String),
}

impl Expiry {
    /// Starts the thread that does it. What has expired goes when nobody has used it for `grace`.
    pub fn start(
        repository: Arc<Repository>,
        followers: Arc<Followers>,
        grace: Duration,
        log: &Logger,
    ) -> Expiry {
        let shared = Arc::new(Shared {
            repository,
            followers,
            grace,
            log: log.clone(),
            bell: Bell::default(),
            kept: Mutex::default(),
        });
        let worker = shared.clone();
        let thread = Background::start("expiry", move || worker.run())
            .inspect_err(|error| error!(log, "no branch expires: no thread"; "error" => %error));
        Expiry { shared, thread: thread.unwrap_or_default() }
    }

    /// Looks again at once: an expiry has been set or taken back.
    pub fn look_again(&self) {
        self.shared.bell.look_again();
    }

    /// Why a branch that has expired is still there.
    pub fn kept_because(&self, timeline: TimelineId) -> Option<String> {
        self.shared.kept.lock().get(&timeline).cloned()
    }

    /// Ends it. A deletion that is under way is finished.
    pub fn stop(&self) {
        if !self.thread.stop(&self.shared.bell) {
            error!(self.shared.log, "the thread that deletes expired branches has panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut watch = Watch::default();
        while self.bell.wait(self.look(&mut watch)) {}
    }

    /// Deletes what is due, and says when to look again.
    fn look(&self, watch: &mut Watch) -> Duration {
        let expiring = match self.repository.expiring() {
            Ok(expiring) => expiring,
            Err(error) => {
                warn!(self.log, "branches cannot expire: {}", with_causes(&error));
                return IDLE_MAX;
            }
        };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = Moment { steady: Instant::now(), wall };
        let left = |branch: &Branch| {
            Duration::from_secs(branch.expires.unwrap_or(u64::MAX)).saturating_sub(wall)
        };
        let (expired, later): (Vec<Branch>, Vec<Branch>) =
            expiring.into_iter().partition(|branch| left(branch).is_zero());
        let ids: Vec<TimelineId> = expired.iter().map(|branch| branch.timeline).collect();
        let due = watch.look(moment, &ids, self.grace);
        self.kept.lock().retain(|id, _| ids.contains(id));
        let mut remain = false;
        for branch in expired {
            if self.bell.is_stopped() {
                break;
            }
            let id = branch.timeline;
            let outcome = match due.contains(&id) {
                true => self.delete(&branch),
                // The reason why it did not go before is the better one.
                false if self.kept.lock().contains_key(&id) => {
                    remain = true;
                    continue;
                }
                false => Err(Kept::Refused("it has expired, and will be deleted soon".to_owned())),
            };
            match outcome {
                Ok(()) => {
                    info!(self.log, "branch has expired"; "branch" => %branch.name,
                        "timeline" => %id);
                    self.kept.lock().remove(&id);
                }
                Err(kept) => {
                    remain = true;
                    let text = match kept {
                        Kept::Used(text) => {
                            watch.begin_anew(id);
                            text
                        }
                        Kept::Refused(text) => text,
                    };
                    let before = self.kept.lock().insert(id, text.clone());
                    if before.as_ref() != Some(&text) {
                        info!(self.log, "branch has expired and is still there: {}", text;
                            "branch" => %branch.name);
                    }
                }
            }
        }
        let next = later.iter().map(left).min().unwrap_or(IDLE_MAX).min(IDLE_MAX);
        if remain { next.min(LOOK_AGAIN_AFTER) } else { next }
    }

    fn delete(&self, branch: &Branch) -> Result<(), Kept> {
        let id = branch.timeline;
        let refused = |error: RepositoryError| Kept::Refused(with_causes(&error));
        self.repository.check_deletable(&branch.name).map_err(refused)?;
        if self.repository.readings().is_read(id) {
            return Err(Kept::Used("it has expired, but pages of it are being read".to_owned()));
        }
        self.followers.leave_if_gone(id).map_err(|error| match error {
            FollowError::Alive(name) => {
                Kept::Used(format!("it has expired, but compute \"{name}\" runs on it"))
            }
            other => Kept::Refused(with_causes(&other)),
        })?;
        self.repository.delete_branch(&branch.name).map_err(refused)?;
        self.followers.writers().forget(id);
        Ok(())
    }
}
