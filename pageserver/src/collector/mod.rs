//! `Collector`: removes in the background what nobody needs any more of history.
//!
//! Now and then it goes over all timelines (`Repository::sweep`), one at a time and those only of which something goes.
//! It works a part of the time only, and lets those go first who have more WAL than is written as layers. What it has found is
//! kept, for whoever asks what holds history back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slog::{Logger, error, info, warn};

use crate::background::{Background, Bell};
use crate::error_text::with_causes;
use crate::repository::{Repository, Sweep};

/// After a piece of work it rests for so many times as long as that took.
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(10);
/// How often is looked whether layers are still behind.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Then it goes on all the same: what slows may be a full disk, where only removing something helps.
const GIVE_WAY_MAX: Duration = Duration::from_secs(60);

/// Removes what nobody needs any more.
pub struct Collector {
    shared: Arc<Shared>,
    thread: Background,
}

/// What it has done and found.
#[derive(Clone, Default, Debug)]
pub struct Collections {
    /// Bytes of layers that were removed since the page server was started.
    pub removed_bytes: u64,
    /// What the last sweep over all timelines has found, or why there was none.
    pub last: Option<Result<Sweep, String>>,
}

struct Shared {
    repository: Arc<Repository>,
    every: Duration,
    log: Logger,
    /// Rings when more may go than was thought.
    bell: Bell,
    // LOCK ORDER: a leaf; held for a moment.
    found: Mutex<Collections>,
}

impl Collector {
    /// Starts the thread that does it `every` so often; never if that is zero.
    pub fn start(repository: Arc<Repository>, every: Duration, log: &Logger) -> Collector {
        let (bell, found) = (Bell::default(), Mutex::default());
        let shared = Arc::new(Shared { repository, every, log: log.clone(), bell, found });
        if every.is_zero() {
            return Collector { shared, thread: Background::default() };
        }
        let worker = shared.clone();
        let thread = Background::start("collector", move || worker.run()).inspect_err(
            |error| error!(log, "nothing is removed of history: no thread"; "error" => %error),
        );
        Collector { shared, thread: thread.unwrap_or_default() }
    }

    /// Looks again soon: less is to be kept than before.
    pub fn look_again(&self) {
        self.shared.bell.look_again();
    }

    /// What it has done and found so far.
    pub fn found(&self) -> Collections {
        self.shared.found.lock().clone()
    }

    /// Ends it. A collection that is under way is finished.
    pub fn stop(&self) {
        if !self.thread.stop(&self.shared.bell) {
            error!(self.shared.log, "the thread that removes history has panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        while self.bell.wait(self.every) {
            self.sweep();
        }
    }

    fn sweep(&self) {
        let found = match self.repository.sweep(&mut |took| self.rest(took)) {
            Ok(sweep) => {
                if sweep.layers > 0 {
                    info!(self.log, "history that nobody needs was removed";
                        "layers" => sweep.layers, "bytes" => sweep.bytes);
                }
                Ok(sweep)
            }
            Err(error) => Err(with_causes(&error)),
        };
        let problem = |found: &Result<Sweep, String>| match found {
            Ok(sweep) => sweep.problem.clone(),
            Err(error) => Some(error.clone()),
        };
        let now = problem(&found);
        let mut all = self.found.lock();
        let before = all.last.as_ref().and_then(problem);
        all.removed_bytes += found.as_ref().map_or(0, |sweep| sweep.bytes);
        all.last = Some(found);
        drop(all);
        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
            warn!(self.log, "not all of history can be removed that nobody needs: {}", now);
        }
    }

    /// Rests after a piece of work that took so long, and until WAL is taken in at full speed. `false`: it is over.
    fn rest(&self, took: Duration) -> bool {
        let began = Instant::now();
        let mut goes_on = self.bell.rest(took.saturating_mul(REST).min(REST_MAX));
        while goes_on && began.elapsed() < GIVE_WAY_MAX && self.repository.is_ingest_behind() {
            goes_on = self.bell.rest(LOOK_EVERY);
        }
        goes_on && !self.bell.is_stopped()
    }
}

impl Collections {
    /// Why nothing was removed, if that is so; for a person.
    pub fn problem(&self) -> Option<&str> {
        match self.last.as_ref()? {
            Ok(sweep) => sweep.problem.as_deref(),
            Err(error) => Some(error),
        }
    }

    /// What the last sweep has found.
    pub fn sweep(&self) -> Option<&Sweep> {
        self.last.as_ref()?.as_ref().ok()
    }
}
