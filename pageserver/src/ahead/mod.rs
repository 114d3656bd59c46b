//! Work ahead of demand: pages that took long to make, or are made again and again, are made anew when
//! more has happened to them, before somebody asks. So the next one who does finds a version to begin
//! with that is not old.
//!
//! Nobody waits for that, and so it is done only while no page is being read, while the machine has time
//! to spare, for a small part of that time, and by redo processes that have nothing else to do.

mod backlog;
mod spare_time;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slog::{Logger, debug, error};

use crate::background::{Background, Bell};
use crate::error_text::with_causes;
use crate::page_maker::PageMaker;
use crate::timeline::Timeline;
pub(crate) use backlog::Backlog;
use backlog::Due;
use spare_time::SpareTime;

/// How often is looked what there is to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often is looked whether pages are still being read.
const GIVE_WAY: Duration = Duration::from_millis(20);
/// Pages are forgotten that nobody had to make for so many rounds, or longer if they took long.
const ROUNDS_PER_AGING: u32 = 60;
/// Nobody waits for the thread.
const NICENESS: i32 = 10;
/// Records from which on it is worth making a page ahead of demand.
pub(crate) const RECORDS_MIN: usize = 8;

/// Settings of work ahead of demand.
#[derive(Clone, Debug, PartialEq)]
pub struct AheadOptions {
    /// For how much of the time it may be done, in percent of one processor; 0 for never, 100 for
    /// whenever no page is being read, whatever else the machine does.
    pub percent: u32,
    /// For how many bytes of pages: more are not remembered.
    pub bytes: u64,
}

impl Default for AheadOptions {
    fn default() -> AheadOptions {
        AheadOptions { percent: 5, bytes: 32 << 20 }
    }
}

/// What has been made ahead of demand.
#[derive(Default)]
pub struct AheadCounts {
    pages: AtomicU64,
    records: AtomicU64,
}

impl AheadCounts {
    /// Pages, since the page server was started.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Records applied for them.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// The thread that works ahead of demand.
pub struct Ahead {
    worker: Arc<Worker>,
    thread: Background,
}

struct Worker {
    maker: Arc<PageMaker>,
    percent: u32,
    log: Logger,
    bell: Bell,
}

impl Ahead {
    /// Starts it for the pages that `maker` makes; not if it is never to work.
    pub fn start(maker: Arc<PageMaker>, options: &AheadOptions, log: &Logger) -> Ahead {
        let percent = options.percent.min(100);
        let worker = Worker { maker, percent, log: log.clone(), bell: Bell::default() };
        let worker = Arc::new(worker);
        if percent == 0 {
            return Ahead { worker, thread: Background::default() };
        }
        worker.maker.backlog.remember(options.bytes);
        let own = worker.clone();
        let thread = Background::start("ahead", move || own.run()).inspect_err(
            |error| error!(log, "nothing is made ahead of demand: no thread"; "error" => %error),
        );
        Ahead { worker, thread: thread.unwrap_or_default() }
    }

    /// Ends it. A page that is being made is finished.
    pub fn stop(&self) {
        if !self.thread.stop(&self.worker.bell) {
            error!(self.worker.log, "the thread that works ahead of demand has panicked");
        }
    }
}

impl Worker {
    fn run(&self) {
        // Of this thread only, as Linux has it (setpriority(2)).
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            debug!(self.log, "pages are made ahead of demand at normal priority"; "error" => %error);
        }
        let mut spare_time = SpareTime::default();
        let mut rounds = 0;
        while self.bell.wait(LOOK_EVERY) {
            rounds += 1;
            if rounds % ROUNDS_PER_AGING == 0 {
                self.maker.backlog.age();
            }
            let is_free = spare_time.is_enough();
            if is_free || self.percent == 100 {
                self.work_off(self.maker.backlog.due(Timeline::last_record_lsn));
            }
        }
    }

    fn work_off(&self, due: Vec<Due>) {
        let until = Instant::now() + LOOK_EVERY;
        for Due { timeline, page } in due {
            while self.maker.is_read() {
                if !self.bell.rest(GIVE_WAY) {
                    return;
                }
            }
            // By then the machine may have got busy.
            if Instant::now() >= until || self.bell.is_stopped() {
                return;
            }
            let began = Instant::now();
            let upto = timeline.last_record_lsn();
            let made = timeline.make_ahead(page, upto);
            self.maker.backlog.made((timeline.id(), page), upto, matches!(made, Ok(Some(_))));
            match made {
                Ok(Some(records)) => {
                    let counts = &self.maker.ahead;
                    counts.pages.fetch_add(1, Ordering::Relaxed);
                    counts.records.fetch_add(records as u64, Ordering::Relaxed);
                }
                Ok(None) => {}
                // Whoever asks for it will be told.
                Err(error) => {
                    debug!(self.log, "a page is not made ahead of demand: {}", with_causes(&error));
                    self.maker.backlog.forget((timeline.id(), page));
                }
            }
            drop(timeline);
            if !self.bell.rest(began.elapsed() * (100 - self.percent) / self.percent) {
                return;
            }
        }
    }
}
