//! Pages from the page server, with patience.
//!
//! A server that cannot be reached, or that says "later", is asked again until the time is up.
//! What cannot heal fails at once. Either way one line goes to the log.

use std::process;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pageserver_client::client::{ClientTimeouts, PageClient, PageClientError};
use pageserver_client::{ErrorCode, Generation, RequestKind, ResponseBody};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, TimelineId};

use crate::base::BaseLsn;
use crate::hints::{Admission, Hinted, Hints};
use crate::page_check::{self, BadPage};
use crate::read_ahead::{BLOCKS_AHEAD_MAX, BLOCKS_PER_FETCH_MAX};
use crate::report;
use crate::segment_file::Object;
use crate::settings::Settings;
use crate::source::{FetchError, PageSource};
use crate::start_profile::Recorder;

/// The first pause between two attempts; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a waiting process looks whether it is still to wait.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many hints are kept back at most for others to leave with.
const HINTS_TOGETHER_MAX: u32 = 16;
/// A process that has demanded so many pages is going to ask for many more: then memory is shared with the page
/// server, where both are on one machine, through which they come uncopied.
const WINDOW_FROM: u16 = 64;
/// How many answers of the kind that time does not mend are accepted: there may be two kinds of
/// trouble at once, and a second connection may meet a better server.
const HOPELESS_ATTEMPTS_MAX: u32 = 3;

/// The page server as the source of a process's pages.
pub struct RemotePages {
    connstr: String,
    timeline: TimelineId,
    generation: Option<Generation>,
    base: BaseLsn,
    timeout: Duration,
    /// Whether this process is to stop what it does.
    is_canceled: Box<dyn Fn() -> bool + Send>,
    /// Whether the cluster's pages carry checksums.
    checksums: bool,
    connection: Option<Link>,
    /// Whether nothing is told to the log, because there are others who tell.
    is_quiet: bool,
    /// Whether the log has been told that this compute is fenced. It will be refused everything from
    /// then on.
    fenced_told: bool,
    ahead: Ahead,
    /// Where it is noted what was fetched, if it is.
    recorder: Option<Recorder>,
}

/// How pages are asked for ahead of who demands them.
#[derive(Clone, Copy)]
struct Ahead {
    pages_max: usize,
    /// Whether a hint makes a connection if there is none yet.
    may_connect: bool,
}

impl Ahead {
    const OF_SERVER_PROCESS: Ahead =
        Ahead { pages_max: BLOCKS_AHEAD_MAX as usize, may_connect: false };
}

/// A connection.
struct Link {
    /// The process that it belongs to.
    owner: u32,
    client: PageClient,
    hints: Hints,
    /// Requests that wait in the client for others to leave with.
    unflushed: u32,
    /// How many pages were demanded until memory was asked for that this process and the page server share.
    demanded: u16,
}

impl Link {
    /// Asks for pages that were hinted at.
    fn ask(
        &mut self,
        (object, first, count): (Object, u32, u16),
        base_lsn: Lsn,
        flush: bool,
    ) -> Result<(), PageClientError> {
        let id = self.client.send(base_lsn, request(object, first, count))?;
        self.hints.asked(id, object, first, count);
        self.unflushed += 1;
        if flush { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PageClientError> {
        self.unflushed = 0;
        self.client.flush()
    }
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Client(#[from] PageClientError),
    #[error("the page server sent a bad page for block {block}: {reason}")]
    BadPage { block: u32, reason: BadPage },
    #[error("canceled")]
    Canceled,
}

/// What to do about a failed attempt.
enum Remedy {
    /// Time may mend it.
    Wait,
    /// Hardly anything mends it: try a few times.
    FewAttempts,
    /// Nothing mends it, but at a later LSN the answer may be another.
    AskLater,
    /// There is no such page at the LSN.
    NotThere,
    /// Nothing mends it.
    GiveUp,
}

impl AttemptError {
    fn remedy(&self) -> Remedy {
        let AttemptError::Client(error) = self else { return Remedy::FewAttempts };
        match error {
            PageClientError::Refused { code, .. } => match code {
                ErrorCode::LsnTimeout | ErrorCode::ShuttingDown | ErrorCode::Busy => Remedy::Wait,
                ErrorCode::BelowHorizon => Remedy::AskLater,
                ErrorCode::NotFound => Remedy::NotThere,
                ErrorCode::Corrupt | ErrorCode::Fenced => Remedy::GiveUp,
                ErrorCode::Internal => Remedy::FewAttempts,
            },
            PageClientError::Protocol(_) | PageClientError::WrongAnswer => Remedy::FewAttempts,
            PageClientError::Connection(_) | PageClientError::Ended | PageClientError::TimedOut => {
                Remedy::Wait
            }
        }
    }

    fn spoils_connection(&self) -> bool {
        match self {
            AttemptError::Client(PageClientError::Refused { code, .. }) => {
                *code == ErrorCode::ShuttingDown
            }
            _ => true,
        }
    }
}

impl RemotePages {
    /// The page server of `settings`, whose pages are to carry checksums or not, asked at the LSN
    /// where `base` is at the moment; connects when first asked. `is_canceled` is looked at while
    /// waiting.
    pub fn new(
        settings: &Settings,
        base: BaseLsn,
        checksums: bool,
        is_canceled: impl Fn() -> bool + Send + 'static,
    ) -> RemotePages {
        RemotePages {
            connstr: settings.pageserver.clone(),
            timeline: settings.timeline,
            generation: settings.generation,
            base,
            timeout: settings.timeout,
            is_canceled: Box::new(is_canceled),
            checksums,
            connection: None,
            is_quiet: false,
            fenced_told: false,
            ahead: Ahead::OF_SERVER_PROCESS,
            recorder: settings.profile.as_deref().map(Recorder::new),
        }
    }

    /// For a process that reads many pages in a row, says by hints which ones, up to `pages_max` ahead,
    /// and tells itself what went wrong.
    pub fn for_many(self, pages_max: usize) -> RemotePages {
        let ahead = Ahead { pages_max, may_connect: true };
        RemotePages { is_quiet: true, ahead, ..self }
    }

    fn report(&self, line: &str) {
        if !self.is_quiet {
            report::line(line);
        }
    }

    /// To be called before anything is asked for by a process that may have been forked since. Lets go of
    /// a connection that belongs to the parent of this process. It may still be in use
    /// there, and closing it would say goodbye to the server in the parent's name; so the descriptor
    /// stays open, once per process at most.
    pub fn forget_parents_connection(&mut self) {
        if self.connection.as_ref().is_some_and(|link| link.owner != process::id()) {
            std::mem::forget(self.connection.take());
        }
    }

    /// This process's connection, made if there is none.
    fn link(&mut self, deadline: Instant) -> Result<&mut Link, PageClientError> {
        let link = match self.connection.take() {
            Some(link) => link,
            None => {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeouts = ClientTimeouts {
                    connect: CONNECT_TIMEOUT.min(left.max(LOOK_EVERY)),
                    response: self.timeout,
                };
                let (connstr, timeline) = (&self.connstr, self.timeline);
                let client = PageClient::connect_as(connstr, timeline, self.generation, timeouts)?;
                let hints = Hints::new(self.ahead.pages_max);
                Link { owner: process::id(), client, hints, unflushed: 0, demanded: 0 }
            }
        };
        Ok(self.connection.insert(link))
    }

    fn attempt(
        &mut self,
        object: Object,
        first: u32,
        count: u16,
        base_lsn: Lsn,
        deadline: Instant,
    ) -> Result<Bytes, AttemptError> {
        let checksums = self.checksums;
        self.link(deadline)?;
        // Both are there now.
        let (Some(link), is_canceled) = (&mut self.connection, &self.is_canceled) else {
            return Err(PageClientError::Ended.into());
        };
        if link.demanded < WINDOW_FROM {
            link.demanded = link.demanded.saturating_add(count);
            if link.demanded >= WINDOW_FROM {
                let pages = self.ahead.pages_max + BLOCKS_PER_FETCH_MAX as usize;
                link.client.open_window(u16::try_from(pages).unwrap_or(u16::MAX))?;
            }
        }
        if let Some(hint) = link.hints.unsent() {
            link.ask(hint, base_lsn, false)?;
        }
        // Whatever waits leaves before an answer is waited for.
        link.unflushed = 0;
        let Link { client, hints, .. } = link;
        let mut own_id = None;
        let pages = loop {
            let expected = match (hints.take(object, first), own_id) {
                (Hinted::Here(pages), _) => break pages,
                (Hinted::OnItsWay(id), _) | (Hinted::No, Some(id)) => id,
                (Hinted::No, None) => {
                    *own_id.insert(client.send(base_lsn, request(object, first, count))?)
                }
            };
            let response = match client.recv_timeout(LOOK_EVERY) {
                Ok(response) => response,
                Err(PageClientError::TimedOut) if is_canceled() => {
                    return Err(AttemptError::Canceled);
                }
                Err(PageClientError::TimedOut) if Instant::now() < deadline => continue,
                Err(error) => return Err(error.into()),
            };
            if hints.arrived(response.id, &response.body) {
                continue;
            }
            match response.body {
                // The stream is confused.
                _ if response.id != expected => return Err(PageClientError::WrongAnswer.into()),
                ResponseBody::Pages(pages) if pages.len() == usize::from(count) * BLCKSZ => {
                    break pages;
                }
                ResponseBody::Error { code, message } => {
                    return Err(PageClientError::Refused { code, message }.into());
                }
                _ => return Err(PageClientError::WrongAnswer.into()),
            }
        };
        check(object, first, &pages, base_lsn, checksums)?;
        Ok(pages)
    }

    /// Waits before the next attempt; `false` if PostgreSQL does not want us to.
    fn pause(&self, length: Duration) -> bool {
        let end = Instant::now() + length;
        loop {
            if (self.is_canceled)() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

/// Checks pages as they came.
fn check(
    object: Object,
    first: u32,
    pages: &[u8],
    base_lsn: Lsn,
    checksums: bool,
) -> Result<(), AttemptError> {
    // Pages of an SLRU have neither header nor checksum.
    if let Object::Rel(_) = object {
        for (block, page) in (first..).zip(pages.chunks(BLCKSZ)) {
            page_check::check(page, BlockNumber(block), base_lsn, checksums)
                .map_err(|reason| AttemptError::BadPage { block, reason })?;
        }
    }
    Ok(())
}

/// How pages are asked for.
fn request(object: Object, first: u32, count: u16) -> RequestKind {
    match object {
        Object::Rel(rel) => RequestKind::GetPages { rel, first: BlockNumber(first), count },
        Object::Slru(kind) => RequestKind::GetSlruPages { kind: kind as u8, first, count },
    }
}

impl PageSource for RemotePages {
    fn pages(&mut self, object: Object, first: u32, count: u16) -> Result<Bytes, FetchError> {
        let begin = Instant::now();
        let deadline = begin + self.timeout;
        let mut pause = PAUSE_MIN;
        let mut hopeless_attempts = 0;
        let mut not_there = false;
        let mut may_be_stale = true;
        let (error, base_lsn) = loop {
            let base_lsn = self.base.get();
            // One that nobody has used for long may have been closed at the other end.
            let may_be_stale = std::mem::take(&mut may_be_stale) && self.connection.is_some();
            let error = match self.attempt(object, first, count, base_lsn, deadline) {
                Ok(pages) => {
                    if let Some(recorder) = &mut self.recorder {
                        recorder.note(object, first, (pages.len() / BLCKSZ) as u32);
                    }
                    return Ok(pages);
                }
                Err(error) => error,
            };
            if error.spoils_connection() {
                self.connection = None;
            }
            match error.remedy() {
                _ if matches!(error, AttemptError::Canceled) => return Err(FetchError::Canceled),
                Remedy::Wait if may_be_stale && self.connection.is_none() => continue,
                Remedy::Wait => {}
                Remedy::FewAttempts => {
                    hopeless_attempts += 1;
                    if hopeless_attempts == HOPELESS_ATTEMPTS_MAX {
                        break (error, base_lsn);
                    }
                }
                // The base may have moved since, and history before it is gone.
                Remedy::AskLater if self.base.get() > base_lsn => continue,
                Remedy::NotThere => {
                    not_there = base_lsn > self.base.made_at();
                    break (error, base_lsn);
                }
                Remedy::AskLater | Remedy::GiveUp => break (error, base_lsn),
            }
            if Instant::now() + pause > deadline {
                break (error, base_lsn);
            }
            if !self.pause(pause) {
                return Err(FetchError::Canceled);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        };
        if let AttemptError::Client(PageClientError::Refused { code: ErrorCode::Fenced, message }) =
            &error
        {
            let message = format!("fenced: {message}");
            if !std::mem::replace(&mut self.fenced_told, true) {
                self.report(&message);
            }
            return Err(FetchError::Failed(message));
        }
        let message = format!(
            "could not get block {first} of {object} at LSN {} from the page server, gave \
             up after {:.1} s: {}",
            base_lsn,
            begin.elapsed().as_secs_f64(),
            report::chain(&error),
        );
        if not_there {
            return Err(FetchError::NotThere(message));
        }
        self.report(&message);
        Err(FetchError::Failed(message))
    }

    fn hint(&mut self, object: Object, first: u32, count: u16) -> u32 {
        // Once: whoever then demands a page has the patience to try again.
        if std::mem::take(&mut self.ahead.may_connect) {
            let _ = self.link(Instant::now() + CONNECT_TIMEOUT);
        }
        let Some(link) = &mut self.connection else { return first };
        let before = match link.hints.admit(object, first, count) {
            Admission::NoRoom => return first,
            Admission::AskedUpTo(end) => return end,
            Admission::Ask(before) => before,
        };
        if let Some(before) = before {
            let flush = link.unflushed >= HINTS_TOGETHER_MAX;
            // Whoever demands a page connects again.
            if link.ask(before, self.base.get(), flush).is_err() {
                self.connection = None;
                return first;
            }
        }
        first.saturating_add(u32::from(count))
    }

    fn is_hinted(&self, object: Object, page: u32) -> bool {
        self.connection.as_ref().is_some_and(|link| link.hints.has(object, page))
    }

    fn take_hinted(&mut self, object: Object, first: u32) -> Option<Bytes> {
        let link = self.connection.as_mut()?;
        let pages = loop {
            match link.hints.take(object, first) {
                Hinted::Here(pages) => break pages,
                Hinted::No => return None,
                Hinted::OnItsWay(_) => {}
            }
            match link.client.try_recv() {
                Ok(Some(response)) if link.hints.arrived(response.id, &response.body) => {}
                Ok(None) => return None,
                // Whoever demands a page connects again.
                Ok(Some(_)) | Err(_) => {
                    self.connection = None;
                    return None;
                }
            }
        };
        if check(object, first, &pages, self.base.get(), self.checksums).is_err() {
            // It is asked for again, and then told.
            self.connection = None;
            return None;
        }
        Some(pages)
    }

    fn send_hints(&mut self) {
        let Some(link) = &mut self.connection else { return };
        let sent = match link.hints.unsent() {
            Some(hint) => link.ask(hint, self.base.get(), true),
            None if link.unflushed > 0 => link.flush(),
            None => Ok(()),
        };
        if sent.is_err() {
            self.connection = None;
        }
    }
}
