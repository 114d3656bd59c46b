//! `Job`: what a redo process is asked, and who waits for the answer.

use crossbeam::channel::Sender;
use postgres_formats::{BlockNumber, PageImage};

use crate::error::RedoError;
use crate::request::{MaskKind, RedoRequest};

/// What a process can be asked.
pub enum Work {
    /// A page.
    Redo {
        /// Which, and from what.
        request: RedoRequest,
        /// Compare with images for consistency checking.
        verify: bool,
    },
    /// A masked page.
    Mask {
        /// The mask.
        kind: MaskKind,
        /// The page's block number.
        block: BlockNumber,
        /// The page.
        page: PageImage,
    },
}

/// Work and who waits for it.
pub struct Job {
    /// Distinguishes the jobs of a pool.
    pub id: u64,
    /// What to do.
    pub work: Work,
    /// Where the result goes. Sending fails if nobody waits any more, which is fine.
    pub result: Sender<Result<PageImage, RedoError>>,
    /// Processes that died on it.
    pub deaths: u32,
}

impl Job {
    /// The page, for messages.
    pub fn name(&self) -> String {
        match &self.work {
            Work::Redo { request, .. } => format!("{} block {}", request.rel, request.block),
            Work::Mask { block, .. } => format!("block {block} to be masked"),
        }
    }
}
