//! `PageReader`: pages of an object as a stream of bytes, a chunk of pages at a time.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use postgres_formats::{BLCKSZ, BlockNumber, Lsn};

use crate::object::{ObjectPage, ObjectTag};
use crate::timeline::{GetPageError, PageRequest, Timeline};

/// Pages read together: this bounds the memory of a base backup, whatever the size of the object.
const CHUNK_PAGES_MAX: u32 = 64;

/// Reads consecutive pages of an object at an LSN that has been received.
pub(super) struct PageReader {
    timeline: Arc<Timeline>,
    lsn: Lsn,
    object: ObjectTag,
    next: u32,
    left: u32,
    chunk: Vec<u8>,
    /// How much of the chunk has been given out.
    given: usize,
    error: Option<GetPageError>,
}

impl PageReader {
    pub fn new(
        timeline: Arc<Timeline>,
        lsn: Lsn,
        object: ObjectTag,
        first: u32,
        count: u32,
    ) -> PageReader {
        let (next, left) = (first, count);
        PageReader { timeline, lsn, object, next, left, chunk: Vec::new(), given: 0, error: None }
    }

    /// Why reading failed, if it did: `io::Error` cannot carry it.
    pub fn into_error(self) -> Option<GetPageError> {
        self.error
    }

    fn read_chunk(&mut self) -> Result<(), GetPageError> {
        let count = self.left.min(CHUNK_PAGES_MAX);
        let requests: Vec<PageRequest> = (self.next..self.next + count)
            .map(|block| PageRequest {
                page: ObjectPage { object: self.object, block: BlockNumber(block) },
                lsn: self.lsn,
            })
            .collect();
        self.chunk.clear();
        self.given = 0;
        for page in self.timeline.get_pages(&requests, Duration::ZERO) {
            self.chunk.extend_from_slice(&page?[..]);
        }
        debug_assert_eq!(self.chunk.len(), requests.len() * BLCKSZ);
        self.next += count;
        self.left -= count;
        Ok(())
    }
}

impl Read for PageReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.chunk.len()
            && self.left > 0
            && let Err(error) = self.read_chunk()
        {
            self.error = Some(error);
            return Err(io::Error::other("a page cannot be read"));
        }
        let mut rest = self.chunk.get(self.given..).unwrap_or_default();
        let got = rest.read(buffer)?;
        self.given += got;
        Ok(got)
    }
}
