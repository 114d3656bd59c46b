//! The thread that drives one redo process: takes jobs from the pool's queues, writes them ahead of
//! the answers, replaces the process when it dies, and ends it when there is nothing to do.
//!
//! The process answers in order and each answer at once, so the process's end is the fault of the
//! oldest job without an answer, or of no job. That job is run again alone, at most
//! `DEATHS_PER_REQUEST_MAX` times; the others are run again as if nothing had happened. Whichever
//! process is free takes them, so that nobody waits for the new process where there is another.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use postgres_formats::Lsn;
use slog::Logger;

use crate::error::RedoError;
use crate::job::Job;
use crate::limits::{
    DEATHS_PER_REQUEST_MAX, FAILED_STARTS_MAX, IDLE_CHECK_INTERVAL, IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_REQUESTS_MAX, START_PAUSE_MAX, START_PAUSE_MIN,
};
use crate::poison::save_poisoned;
use crate::process::{Exchanged, RedoProcess, StartError};
use crate::protocol::Reply;
use crate::queues::{Group, Waited};
use crate::shared::Shared;

/// One process's driver.
pub struct Driver {
    /// What all drivers share.
    pub shared: Arc<Shared>,
    /// A message comes when a driver without a process is needed; disconnected when the pool is dropped.
    pub needed: Receiver<()>,
    /// Folder of the process's data directory.
    pub dir: PathBuf,
    /// Logger with the pool's name.
    pub log: Logger,
}

/// Why a process is used no longer.
enum Parting {
    Stopped,
    Died,
    Idle,
}

impl Driver {
    /// Serves until the pool is dropped.
    pub fn run(self) {
        let mut failed_starts = 0;
        let mut pause = START_PAUSE_MIN;
        loop {
            let shared = Arc::clone(&self.shared);
            match RedoProcess::start(&shared.config, &self.dir, &self.log, shared.stop.as_fd()) {
                Ok(process) => {
                    failed_starts = 0;
                    pause = START_PAUSE_MIN;
                    shared.counters.starts.fetch_add(1, Ordering::Relaxed);
                    let _ = shared.custom.set(process.custom_managers());
                    shared.ready.fetch_add(1, Ordering::SeqCst);
                    shared.set_failure(None);
                    let parting = self.serve(process);
                    shared.ready.fetch_sub(1, Ordering::SeqCst);
                    match parting {
                        Parting::Died => {}
                        Parting::Idle if self.needed.recv().is_ok() => {}
                        Parting::Idle | Parting::Stopped => return,
                    }
                }
                Err(StartError::Stopped) => return,
                Err(error) => {
                    let failure = shared.explain(&error);
                    slog::error!(self.log, "cannot start a redo process: {failure}";
                        "next_attempt_in" => ?pause);
                    failed_starts += 1;
                    if failed_starts >= FAILED_STARTS_MAX {
                        shared.set_failure(Some(failure.clone()));
                        self.fail_waiting(failure);
                    }
                    if self.is_stopped_within(pause) {
                        return;
                    }
                    pause = (pause * 2).min(START_PAUSE_MAX);
                }
            }
        }
    }

    /// Without a process of its own a driver leaves the queue to the others; if there are none,
    /// those who wait must be told.
    fn fail_waiting(&self, message: String) {
        let failure = RedoError::CannotStart { message };
        while self.shared.ready.load(Ordering::SeqCst) == 0 {
            let Some(jobs) = self.shared.queues.any() else { break };
            jobs.into_iter().for_each(|job| job.answer.give(Err(failure.clone())));
        }
    }

    fn is_stopped_within(&self, pause: Duration) -> bool {
        let mut fds = [PollFd::new(self.shared.stop.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    fn serve(&self, mut process: RedoProcess) -> Parting {
        let shared = Arc::clone(&self.shared);
        let mut in_flight: VecDeque<Job> = VecDeque::new();
        // When the oldest job in flight became the oldest; without any, when the last was done.
        let mut since = Instant::now();
        loop {
            if in_flight.is_empty() {
                match shared.queues.wait(IDLE_CHECK_INTERVAL) {
                    Waited::Jobs(jobs) => {
                        since = Instant::now();
                        self.send(&mut process, &mut in_flight, jobs);
                    }
                    Waited::Nothing => {
                        if since.elapsed() >= shared.config.idle_after && shared.retire() {
                            slog::debug!(process.log(), "a redo process has nothing to do");
                            return Parting::Idle;
                        }
                    }
                    Waited::Stopped => return Parting::Stopped,
                }
            }
            while let Some(jobs) = self.further_jobs(&in_flight) {
                self.send(&mut process, &mut in_flight, jobs);
            }
            process.write_requests();

            let limit = shared.config.request_timeout;
            let deadline = if in_flight.is_empty() { Instant::now() } else { since + limit };
            let exchanged = match process.exchange(deadline, shared.stop.as_fd()) {
                Ok(Exchanged::TimedOut) if in_flight.is_empty() => Exchanged::Progress,
                Ok(exchanged) => exchanged,
                Err(error) => {
                    slog::error!(process.log(), "cannot talk to redo process: {error}");
                    Exchanged::Ended
                }
            };
            if exchanged == Exchanged::Stopped {
                return Parting::Stopped;
            }
            match self.take_replies(&mut process, &mut in_flight) {
                Ok(0) => {}
                Ok(_) => {
                    since = Instant::now();
                    continue;
                }
                Err(message) => {
                    slog::error!(process.log(), "redo process makes no sense: {message}");
                    self.died(&mut process, in_flight);
                    return Parting::Died;
                }
            }
            match exchanged {
                Exchanged::Ended => {
                    self.died(&mut process, in_flight);
                    return Parting::Died;
                }
                Exchanged::TimedOut => {
                    self.timed_out(&mut process, in_flight);
                    return Parting::Died;
                }
                Exchanged::Progress | Exchanged::Stopped => {}
            }
        }
    }

    /// Jobs to be written behind those in flight, if there should be any.
    fn further_jobs(&self, in_flight: &VecDeque<Job>) -> Option<Group> {
        let alone = in_flight.front().is_none_or(|job| job.deaths > 0);
        if alone
            || in_flight.len() >= IN_FLIGHT_REQUESTS_MAX
            || in_flight.iter().map(Job::bytes).sum::<usize>() >= IN_FLIGHT_BYTES_MAX
        {
            return None;
        }
        self.shared.queues.further()
    }

    fn send(&self, process: &mut RedoProcess, in_flight: &mut VecDeque<Job>, jobs: Group) {
        for job in jobs {
            process.outbox.append_all(&job.messages);
            in_flight.push_back(job);
        }
    }

    /// Hands out the answers that have come; returns how many, or why they cannot be understood.
    fn take_replies(
        &self,
        process: &mut RedoProcess,
        in_flight: &mut VecDeque<Job>,
    ) -> Result<usize, String> {
        let mut count = 0;
        while let Some(reply) = process.next_reply().map_err(|error| error.to_string())? {
            let (id, result) = match reply {
                Reply::Page { id, page } => (id, Ok(page)),
                Reply::Error { id, record, message } => (id, Err((record, message))),
                Reply::Hello { .. } => return Err("it greeted twice".to_owned()),
            };
            let job = match in_flight.pop_front() {
                Some(job) if job.id == id => job,
                other => {
                    let expected = other.as_ref().map(|job| job.id);
                    in_flight.extend(other);
                    return Err(format!("answer to {id} instead of {expected:?}"));
                }
            };
            count += 1;
            match result {
                Ok(page) => {
                    self.count(&job);
                    job.answer.give(Ok(page));
                }
                Err((record, message)) => self.refused(process, job, record, message),
            }
        }
        Ok(count)
    }

    fn count(&self, job: &Job) {
        let counters = &self.shared.counters;
        if job.rel.is_some() {
            counters.pages.fetch_add(1, Ordering::Relaxed);
            counters.records.fetch_add(job.records, Ordering::Relaxed);
        }
    }

    fn refused(&self, process: &RedoProcess, job: Job, record: Lsn, message: String) {
        self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        let saved = self.save(&job);
        slog::warn!(process.log(), "redo refused: {message}";
            "record" => %record, "page" => job.name(), "saved" => ?saved);
        job.answer.give(Err(RedoError::Refused { record, message, saved }));
    }

    /// The process has ended: sees to its jobs.
    fn died(&self, process: &mut RedoProcess, mut in_flight: VecDeque<Job>) {
        self.shared.counters.deaths.fetch_add(1, Ordering::Relaxed);
        let message = process.end();
        slog::warn!(process.log(), "redo process died: {message}"; "unanswered" => in_flight.len());
        if let Some(mut job) = in_flight.pop_front() {
            job.deaths += 1;
            if job.deaths < DEATHS_PER_REQUEST_MAX {
                in_flight.push_front(job);
            } else {
                let saved = self.save(&job);
                slog::error!(process.log(), "redo processes die of this request";
                    "page" => job.name(), "saved" => ?saved);
                job.answer.give(Err(RedoError::Died { message, saved }));
            }
        }
        in_flight.into_iter().for_each(|job| self.shared.queues.put_back(job));
    }

    /// The process has not answered in time: sees to its end, and to its jobs.
    fn timed_out(&self, process: &mut RedoProcess, mut in_flight: VecDeque<Job>) {
        self.shared.counters.timeouts.fetch_add(1, Ordering::Relaxed);
        let message = process.end();
        let timeout = self.shared.config.request_timeout;
        if let Some(job) = in_flight.pop_front() {
            let saved = self.save(&job);
            slog::error!(process.log(), "redo took longer than {timeout:?}, process was killed";
                "page" => job.name(), "saved" => ?saved, "end" => message);
            job.answer.give(Err(RedoError::Timeout { timeout, saved }));
        }
        in_flight.into_iter().for_each(|job| self.shared.queues.put_back(job));
    }

    fn save(&self, job: &Job) -> Option<PathBuf> {
        save_poisoned(&self.shared.config.work_dir.join("poisoned"), job)
    }
}
