//! `Follower`: the thread that keeps one timeline supplied with its server's WAL, through all
//! restarts and failures of either.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use postgres_formats::{Lsn, TimelineId};
use postgres_wire::StopSignal;
use postgres_wire::client::ConnectParams;
use slog::{Logger, error, info, warn};

use super::receiver::{ReceiveError, Receiver};
use crate::error_text::with_causes;
use crate::repository::Repository;
use crate::writer::WriterRole;

/// First and longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The same where only somebody else can help: the server at that address may be exchanged, or a
/// file mended.
const PAUSE_BROKEN: Duration = Duration::from_secs(10);
/// The same failure is logged again only after this long.
const REPEAT_LOG_AFTER: Duration = Duration::from_secs(300);

/// What a follower is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowState {
    /// Connecting, or agreeing where to begin.
    Connecting,
    /// Receiving WAL.
    Streaming,
    /// Waiting a moment before the next attempt; the message says what went wrong.
    Retrying,
    /// The server is there, but it is not the one whose WAL the timeline takes; the message says what
    /// it is. Looked at again now and then.
    Fenced,
    /// Somebody has to change something; it looks now and then whether that has happened.
    Broken,
}

impl FollowState {
    /// The word for it in `compute_list`.
    pub fn name(self) -> &'static str {
        match self {
            FollowState::Connecting => "connecting",
            FollowState::Streaming => "streaming",
            FollowState::Retrying => "retrying",
            FollowState::Fenced => "fenced",
            FollowState::Broken => "broken",
        }
    }
}

/// How a follower does, for `compute_list`.
#[derive(Debug, Clone)]
pub struct FollowStatus {
    /// Whose WAL it receives.
    pub timeline: TimelineId,
    /// From where.
    pub connstr: String,
    /// What it is doing.
    pub state: FollowState,
    /// End of what was received since the page server runs.
    pub received: Option<Lsn>,
    /// End of what it has reported as durable.
    pub flushed: Option<Lsn>,
    /// What went wrong last, unless all is well again.
    pub message: Option<String>,
}

/// A running follower. It goes on until `stop` and `join`; dropping it does not end the thread.
pub(super) struct Follower {
    connstr: String,
    link: Arc<Link>,
    thread: JoinHandle<()>,
}

/// What the thread and its owner share.
pub(super) struct Link {
    timeline: TimelineId,
    address: String,
    /// Ends whatever the thread waits for on the network.
    stop: StopSignal,
    // LOCK ORDER: leaf, held for a moment only.
    state: Mutex<LinkState>,
    changed: Condvar,
}

struct LinkState {
    /// Somebody knows that the server is there now: do not wait any longer.
    hurry: bool,
    state: FollowState,
    received: Option<Lsn>,
    flushed: Option<Lsn>,
    message: Option<String>,
}

impl Follower {
    /// Starts to follow the server at `params` (the text of which is `connstr`).
    pub(super) fn start(
        repository: Arc<Repository>,
        timeline: TimelineId,
        writer: Arc<WriterRole>,
        connstr: String,
        params: ConnectParams,
        log: &Logger,
    ) -> io::Result<Follower> {
        let link = Arc::new(Link {
            timeline,
            address: format!("{} user={}", params.address(), params.user),
            stop: StopSignal::new()?,
            state: Mutex::new(LinkState {
                hurry: false,
                state: FollowState::Connecting,
                received: None,
                flushed: None,
                message: None,
            }),
            changed: Condvar::new(),
        });
        let log = log.new(slog::o!(
            "timeline" => timeline.to_string(),
            "server" => link.address.clone(),
        ));
        let receiver =
            Receiver::new(repository, timeline, writer, params, link.clone(), log.clone());
        let name = format!("wal-{}", timeline.to_string().get(..8).unwrap_or_default());
        let thread_link = link.clone();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || follow(&receiver, &thread_link, &log))?;
        Ok(Follower { connstr, link, thread })
    }

    /// The connection string it was started with.
    pub(super) fn connstr(&self) -> &str {
        &self.connstr
    }

    /// Ends a pause between attempts.
    pub(super) fn hurry(&self) {
        let mut state = self.link.state.lock();
        state.hurry = true;
        // What it said before has nothing to say of what is there now.
        if state.state != FollowState::Streaming {
            state.state = FollowState::Connecting;
        }
        self.link.changed.notify_all();
    }

    /// Tells the thread to end, which it does at once.
    pub(super) fn stop(&self) {
        self.link.stop.fire();
        // Taken so that the thread is either before its look at the signal or already waiting.
        let _state = self.link.state.lock();
        self.link.changed.notify_all();
    }

    /// Waits until the thread has ended.
    pub(super) fn join(self) {
        // A panic of the thread has been reported by the panic hook; there is no more to say.
        let _ = self.thread.join();
    }

    pub(super) fn status(&self) -> FollowStatus {
        let state = self.link.state.lock();
        FollowStatus {
            timeline: self.link.timeline,
            connstr: self.link.address.clone(),
            state: state.state,
            received: state.received,
            flushed: state.flushed,
            message: state.message.clone(),
        }
    }
}

impl Link {
    pub(super) fn stop_signal(&self) -> &StopSignal {
        &self.stop
    }

    /// The connection is made and WAL will come.
    pub(super) fn set_streaming(&self) {
        let mut state = self.state.lock();
        state.state = FollowState::Streaming;
        state.message = None;
    }

    /// How far it has come.
    pub(super) fn set_progress(&self, received: Lsn, flushed: Lsn) {
        let mut state = self.state.lock();
        state.received = Some(received);
        state.flushed = Some(flushed);
    }

    /// Another attempt begins. A server that was refused stays so until something else is known.
    fn set_connecting(&self) {
        let mut state = self.state.lock();
        if state.state != FollowState::Fenced {
            state.state = FollowState::Connecting;
        }
    }

    fn set_state(&self, new: FollowState, message: Option<String>) {
        let mut state = self.state.lock();
        state.state = new;
        if message.is_some() {
            state.message = message;
        }
    }

    /// Waits until told to stop or to hurry, at most for `pause`.
    fn wait(&self, pause: Duration) -> Wake {
        let deadline = Instant::now() + pause;
        let mut state = self.state.lock();
        while !self.stop.is_fired() && !state.hurry {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        match (self.stop.is_fired(), std::mem::take(&mut state.hurry)) {
            (true, _) => Wake::Stop,
            (false, true) => Wake::Hurry,
            (false, false) => Wake::Time,
        }
    }
}

/// Why a pause is over.
enum Wake {
    Stop,
    Hurry,
    Time,
}

/// The thread: receives, and after a failure waits and receives again.
fn follow(receiver: &Receiver, link: &Link, log: &Logger) {
    let mut pause = PAUSE_MIN;
    let mut logged = Logged::default();
    loop {
        link.set_connecting();
        let error = match receiver.run() {
            Ok(()) => return,
            Err(_) if link.stop.is_fired() => return,
            Err(failure) => failure,
        };
        if error.had_settled {
            pause = PAUSE_MIN;
            logged = Logged::default();
        }
        let text = with_causes(&error.reason);
        let wake = if error.reason.needs_somebody() {
            if logged.is_news(&text) {
                error!(log, "cannot follow the server: {}", text);
            }
            link.set_state(FollowState::Broken, Some(text));
            link.wait(PAUSE_BROKEN)
        } else {
            if logged.is_news(&text) {
                warn_or_info(log, &error.reason, &text);
            }
            let state = match error.reason.is_fenced() {
                true => FollowState::Fenced,
                false => FollowState::Retrying,
            };
            link.set_state(state, Some(text));
            link.wait(pause)
        };
        match wake {
            Wake::Stop => return,
            Wake::Hurry => pause = PAUSE_MIN,
            Wake::Time => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// A server that is not there is everyday life; anything else somebody should look at.
fn warn_or_info(log: &Logger, reason: &ReceiveError, text: &str) {
    if reason.is_absence() {
        info!(log, "the server cannot be followed now, trying again: {}", text);
    } else {
        warn!(log, "receiving WAL failed, trying again: {}", text);
    }
}

/// What was logged last, so that an outage of hours is not logged every two seconds.
#[derive(Default)]
struct Logged(Option<(String, Instant)>);

impl Logged {
    fn is_news(&mut self, text: &str) -> bool {
        let old = self
            .0
            .as_ref()
            .is_some_and(|(last, when)| last == text && when.elapsed() < REPEAT_LOG_AFTER);
        if !old {
            self.0 = Some((text.to_owned(), Instant::now()));
        }
        !old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once() {
        let mut logged = Logged::default();
        assert!(logged.is_news("refused"));
        assert!(!logged.is_news("refused"));
        assert!(logged.is_news("disk full"));
        assert!(logged.is_news("refused"));
    }
}
