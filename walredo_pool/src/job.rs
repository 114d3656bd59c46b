//! `Job`: what a redo process is asked, and who waits for the answer.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use crossbeam::channel::Sender;
use postgres_formats::{BlockNumber, PageImage, RelTag};

use crate::error::RedoError;
use crate::outbox::Sealed;
use crate::protocol::{begin, encode_mask};
use crate::queues::Permit;
use crate::records::RedoRecords;
use crate::request::MaskKind;

/// What came of a job, and the number by which the one who waits knows it.
pub type Answered = (usize, Result<PageImage, RedoError>);

/// Messages for a process and who waits for its answer.
pub struct Job {
    /// Distinguishes all jobs.
    pub id: u64,
    /// Of which relation the page is; `None` for one that is to be masked.
    pub rel: Option<RelTag>,
    /// The page's block number.
    pub block: BlockNumber,
    /// Number of its records.
    pub records: u64,
    /// What the process is to read.
    pub messages: Sealed,
    /// Where the result goes.
    pub answer: Answer,
    /// Processes that died on it.
    pub deaths: u32,
    /// Held while a process works on it ahead of demand.
    pub ahead: Option<Permit>,
}

impl Job {
    /// A page to be made: from `base`, or from zeros, by `records`. `None`: the answer was given, for
    /// one of them is too large.
    pub fn redo(
        (rel, block): (RelTag, BlockNumber),
        base: Option<&PageImage>,
        records: RedoRecords,
        verify: bool,
        answer: Answer,
    ) -> Option<Job> {
        if let Some((record, bytes)) = records.too_large {
            answer.give(Err(RedoError::RecordTooLarge { record, bytes }));
            return None;
        }
        let (id, count) = (next_id(), records.count());
        let begin = begin(id, rel, block, base.is_some(), verify);
        let messages = records.finished(&begin, base);
        let job = Job {
            id,
            rel: Some(rel),
            block,
            records: count,
            messages,
            answer,
            deaths: 0,
            ahead: None,
        };
        Some(job)
    }

    /// A page to be masked.
    pub fn mask(kind: MaskKind, block: BlockNumber, page: &PageImage, answer: Answer) -> Job {
        let id = next_id();
        let mut out = BytesMut::new();
        encode_mask(&mut out, id, kind, block, page);
        let messages = Sealed::new(out.freeze(), None);
        Job { id, rel: None, block, records: 0, messages, answer, deaths: 0, ahead: None }
    }

    /// Bytes that the process is to read.
    pub fn bytes(&self) -> usize {
        self.messages.len()
    }

    /// The page, for messages.
    pub fn name(&self) -> String {
        match self.rel {
            Some(rel) => format!("{rel} block {}", self.block),
            None => format!("block {} to be masked", self.block),
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Who waits for a job. Told that the pool is shutting down when it is dropped unused.
pub struct Answer {
    to: Sender<Answered>,
    number: usize,
    given: bool,
}

impl Answer {
    /// The result goes to `to`, with that number.
    pub fn new(to: Sender<Answered>, number: usize) -> Answer {
        Answer { to, number, given: false }
    }

    /// Hands over the result. Nobody may wait any more, which is fine.
    pub fn give(mut self, result: Result<PageImage, RedoError>) {
        self.given = true;
        let _ = self.to.send((self.number, result));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            let _ = self.to.send((self.number, Err(RedoError::ShuttingDown)));
        }
    }
}
