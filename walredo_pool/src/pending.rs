//! Pages that are being made, as those see it who asked for them.

use crossbeam::channel::{self, Receiver, Sender};
use postgres_formats::{BlockNumber, PageImage, RelTag};

use crate::error::RedoError;
use crate::job::{Answer, Answered, Job};
use crate::limits::{GROUP_BYTES_MAX, GROUP_REQUESTS_MAX};
use crate::pool::WalRedoPool;
use crate::queues::Group;
use crate::records::RedoRecords;

/// A page that is being made.
pub struct PendingRedo(Receiver<Answered>);

impl PendingRedo {
    /// One, and who is to answer it.
    pub(crate) fn new() -> (Answer, PendingRedo) {
        let (to, answered) = channel::bounded(1);
        (Answer::new(to, 0), PendingRedo(answered))
    }

    /// Waits for the page. Bounded by the pool's timeouts, not by the caller.
    pub fn wait(self) -> Result<PageImage, RedoError> {
        self.0.recv().map_or(Err(RedoError::ShuttingDown), |(_, result)| result)
    }
}

/// Pages that are asked for together, by one thread that takes them as they come.
pub struct RedoBatch {
    answers: Sender<Answered>,
    answered: Receiver<Answered>,
    unanswered: usize,
    /// Asked for, and not handed to the pool yet.
    group: Group,
    group_bytes: usize,
    ahead: bool,
}

impl Default for RedoBatch {
    fn default() -> RedoBatch {
        let (answers, answered) = channel::unbounded();
        let group = Group::new();
        RedoBatch { answers, answered, unanswered: 0, group, group_bytes: 0, ahead: false }
    }
}

impl RedoBatch {
    /// Pages that nobody waits for: made by processes that have nothing else to do, and not by all of
    /// them at once, so that requests are not kept waiting.
    pub fn ahead_of_demand() -> RedoBatch {
        RedoBatch { ahead: true, ..RedoBatch::default() }
    }

    /// Asks for the page that `records` make of `base`, or of zeros. `number` is the caller's name for
    /// it. Some are collected before a process gets them; `hand_over` says that no more come. Waits only
    /// when very many requests wait already.
    pub fn submit(
        &mut self,
        pool: &WalRedoPool,
        number: usize,
        page: (RelTag, BlockNumber),
        base: Option<&PageImage>,
        records: RedoRecords,
    ) {
        self.unanswered += 1;
        let answer = Answer::new(self.answers.clone(), number);
        let Some(job) = Job::redo(page, base, records, false, answer) else { return };
        self.group_bytes += job.bytes();
        self.group.push(job);
        if self.group.len() >= GROUP_REQUESTS_MAX || self.group_bytes >= GROUP_BYTES_MAX {
            self.hand_over(pool);
        }
    }

    /// Lets the pool have all that was asked for.
    pub fn hand_over(&mut self, pool: &WalRedoPool) {
        if !self.group.is_empty() {
            self.group_bytes = 0;
            pool.send(std::mem::take(&mut self.group), self.ahead);
        }
    }

    /// Waits for any of the pages asked for and not yet taken; `None` if there is none. Hand over all
    /// before. Bounded by the pool's timeouts, but for pages that nobody waits for, which are made when
    /// there is time.
    pub fn take(&mut self) -> Option<(usize, Result<PageImage, RedoError>)> {
        debug_assert!(self.group.is_empty(), "a request that no process gets is waited for");
        // Then it ends all the same.
        self.group.clear();
        if self.unanswered == 0 {
            return None;
        }
        self.unanswered -= 1;
        // Each request is answered, be it by its end.
        self.answered.recv().ok()
    }
}
