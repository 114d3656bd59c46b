//! Fetches all pages from the page server and holds them against the stock server's. Those that are
//! not equal byte by byte are put aside, on disk, since there may be many.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

use pageserver_client::protocol::{RequestKind, ResponseBody};
use pageserver_client::{ClientTimeouts, ErrorCode, PageClient, PageClientError};
use postgres_formats::relpath::BLOCKS_PER_SEGMENT;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelTag, TimelineId};

use super::directory::DataDirectory;
use super::report::{Difference, Verification};
use super::scratch::Scratch;
use super::{VerifyStep, Watcher, free_space};
use crate::error::{IoContext, Result};
use crate::page::page_error;
use crate::repository::Repository;

/// Pages per request. Less than the protocol's limit, so that several are in work at once.
const CHUNK_PAGES: u32 = 128;
/// Requests sent ahead.
const WINDOW: usize = 6;
/// How long the page server may take for one answer: a page may have a long chain of records.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);
/// Size in bytes of the header of a page of a visibility map; its bits follow.
const PAGE_HEADER_BYTES: usize = 24;

/// Consecutive pages of a fork, all in one file.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub rel: RelTag,
    pub first: u32,
    pub count: u32,
}

/// Pages that are not equal, and where to find both versions.
pub(super) struct Suspects {
    pub pages: Vec<(RelTag, BlockNumber)>,
    path: PathBuf,
    file: BufWriter<File>,
}

impl Suspects {
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    fn add(&mut self, rel: RelTag, block: u32, ours: &[u8], theirs: &[u8]) -> Result<()> {
        self.pages.push((rel, BlockNumber(block)));
        let written = self.file.write_all(ours).and_then(|()| self.file.write_all(theirs));
        written.io("write", &self.path)
    }

    /// Gives the pages in order to `look`: the page server's, and the stock server's.
    pub fn each(
        mut self,
        mut look: impl FnMut(RelTag, BlockNumber, &PageImage, &PageImage) -> Result<()>,
    ) -> Result<()> {
        let rewound = self.file.flush().and_then(|()| self.file.get_mut().rewind());
        rewound.io("write", &self.path)?;
        let mut file = BufReader::with_capacity(1 << 18, self.file.get_ref());
        let mut next = || -> io::Result<PageImage> {
            let mut page = PageImage::zeroed();
            file.read_exact(&mut page[..])?;
            Ok(page)
        };
        for (rel, block) in &self.pages {
            let pair = next().and_then(|ours| Ok((ours, next()?)));
            let (ours, theirs) = pair.io("read", &self.path)?;
            look(*rel, *block, &ours, &theirs)?;
        }
        Ok(())
    }
}

/// The comparison under way.
pub(super) struct PageComparison<'d> {
    client: PageClient,
    lsn: Lsn,
    theirs: &'d DataDirectory,
    sent: HashMap<u64, Chunk>,
    suspects: Suspects,
}

impl<'d> PageComparison<'d> {
    pub fn begin(
        client: PageClient,
        lsn: Lsn,
        theirs: &'d DataDirectory,
        scratch: &Scratch,
    ) -> Result<PageComparison<'d>> {
        let path = scratch.path("suspects");
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = BufWriter::new(file.io("create", &path)?);
        let suspects = Suspects { pages: Vec::new(), path, file };
        Ok(PageComparison { client, lsn, theirs, sent: HashMap::new(), suspects })
    }

    /// Looks at the free space maps among the forks, each given with its size.
    pub fn check_maps(
        &mut self,
        forks: &BTreeMap<RelTag, u32>,
        watcher: &mut Watcher<'_>,
        report: &mut Verification,
    ) -> Result<()> {
        free_space::check(&mut self.client, self.lsn, forks, self.theirs, watcher, report)
    }

    /// Compares the first pages of each fork, as many as given.
    pub fn run(
        &mut self,
        forks: &[(RelTag, u32)],
        watcher: &mut Watcher<'_>,
        report: &mut Verification,
    ) -> Result<()> {
        let total = forks.iter().map(|(_, pages)| u64::from(*pages)).sum();
        let mut waiting: VecDeque<Chunk> =
            forks.iter().flat_map(|(rel, pages)| chunks(*rel, *pages)).collect();
        loop {
            while self.sent.len() < WINDOW
                && let Some(chunk) = waiting.pop_front()
            {
                let present = self.theirs.present_pages(chunk.rel, chunk.first, chunk.count)?;
                if present.is_some_and(|present| !present.contains(&true)) {
                    report.pages.absent += u64::from(chunk.count);
                    continue;
                }
                self.send(chunk)?;
            }
            if self.sent.is_empty() {
                return Ok(());
            }
            let response = self.client.recv().map_err(page_error)?;
            let chunk = self.sent.remove(&response.id);
            let chunk = chunk.ok_or_else(|| page_error(PageClientError::WrongAnswer))?;
            match response.body {
                ResponseBody::Pages(pages) if pages.len() == chunk.count as usize * BLCKSZ => {
                    self.compare(chunk, &pages, report)?;
                }
                ResponseBody::Error { code, message } => {
                    if let ErrorCode::ShuttingDown | ErrorCode::Busy = code {
                        return Err(page_error(PageClientError::Refused { code, message }));
                    }
                    if chunk.count > 1 {
                        // Which of them is it?
                        for first in (chunk.first..chunk.first + chunk.count).rev() {
                            waiting.push_front(Chunk { first, count: 1, ..chunk });
                        }
                    } else {
                        unreadable(chunk, &message, report);
                    }
                }
                _ => return Err(page_error(PageClientError::WrongAnswer)),
            }
            watcher.tell(VerifyStep::Comparing { done: report.pages.compared, total })?;
        }
    }

    pub fn into_suspects(self) -> Suspects {
        self.suspects
    }

    fn send(&mut self, chunk: Chunk) -> Result<()> {
        let kind = RequestKind::GetPages {
            rel: chunk.rel,
            first: BlockNumber(chunk.first),
            count: u16::try_from(chunk.count).unwrap_or(u16::MAX),
        };
        let id = self.client.send(self.lsn, kind).map_err(page_error)?;
        self.sent.insert(id, chunk);
        self.client.flush().map_err(page_error)
    }

    fn compare(&mut self, chunk: Chunk, ours: &[u8], report: &mut Verification) -> Result<()> {
        let mut theirs = self.theirs.read_pages(chunk.rel, chunk.first, chunk.count)?;
        let mut absent = 0;
        if let Some(present) = self.theirs.present_pages(chunk.rel, chunk.first, chunk.count)? {
            let pages = theirs.chunks_mut(BLCKSZ).zip(ours.chunks(BLCKSZ)).zip(present);
            for ((their, our), _) in pages.filter(|(_, present)| !present) {
                their.copy_from_slice(our);
                absent += 1;
            }
        }
        report.pages.absent += absent;
        report.pages.compared += u64::from(chunk.count) - absent;
        if ours == theirs {
            report.pages.equal += u64::from(chunk.count) - absent;
            return Ok(());
        }
        let mut equal = 0;
        let pairs = ours.chunks(BLCKSZ).zip(theirs.chunks(BLCKSZ));
        for (block, (our, their)) in (chunk.first..).zip(pairs) {
            if our == their {
                equal += 1;
            } else {
                self.suspects.add(chunk.rel, block, our, their)?;
            }
        }
        report.pages.equal += equal - absent;
        Ok(())
    }
}

/// Opens the page stream of `timeline`. Waits until the page server has the WAL up to `lsn`; an LSN
/// before the beginning of the history is refused.
pub(super) fn connect(
    repository: &Repository,
    server: &str,
    timeline: TimelineId,
    lsn: Lsn,
) -> Result<PageClient> {
    let patience = Duration::from_secs(repository.config().lsn_timeout_seconds);
    let response = RESPONSE_TIMEOUT.max(patience * 2);
    let timeouts = ClientTimeouts { response, ..ClientTimeouts::default() };
    let mut client = PageClient::connect(server, timeline, timeouts).map_err(page_error)?;
    let (spc, db) = (Oid::GLOBAL_TABLESPACE, Oid::INVALID);
    let any = RelTag { spc, db, rel: Oid(1), fork: ForkNumber::Main };
    client.rel_exists(any, lsn).map_err(page_error)?;
    Ok(client)
}

/// A fork's first pages in chunks, none of which goes over the end of a file.
pub(super) fn chunks(rel: RelTag, pages: u32) -> impl Iterator<Item = Chunk> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let first = next;
        let in_file = BLOCKS_PER_SEGMENT - first % BLOCKS_PER_SEGMENT;
        let count = (pages - first).min(CHUNK_PAGES).min(in_file);
        next += count;
        (count > 0).then_some(Chunk { rel, first, count })
    })
}

fn unreadable(chunk: Chunk, message: &str, report: &mut Verification) {
    report.pages.compared += 1;
    report.pages.different += 1;
    let detail = format!("the page server cannot give it: {message}");
    let mut difference = Difference::of_relation("page", chunk.rel, detail);
    difference.block = Some(BlockNumber(chunk.first));
    report.describe(difference);
}

/// Whether the pages of a visibility map from `first` up to `end` have no bit set.
pub(super) fn has_no_bit(
    theirs: &DataDirectory,
    rel: RelTag,
    first: u32,
    end: u32,
) -> Result<bool> {
    for block in first..end {
        let page = theirs.read_pages(rel, block, 1)?;
        if page.iter().skip(PAGE_HEADER_BYTES).any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the pages of a fork from `first` up to `end` were never written.
pub(super) fn are_zeros(theirs: &DataDirectory, rel: RelTag, first: u32, end: u32) -> Result<bool> {
    for block in first..end {
        if theirs.read_pages(rel, block, 1)?.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_where_files_end() {
        let rel = RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(9), fork: ForkNumber::Main };
        let of = |pages| chunks(rel, pages).map(|c| (c.first, c.count)).collect::<Vec<_>>();
        assert_eq!(of(0), []);
        assert_eq!(of(130), [(0, 128), (128, 2)]);
        let all = of(BLOCKS_PER_SEGMENT + 1);
        assert_eq!(all.last(), Some(&(BLOCKS_PER_SEGMENT, 1)));
    }
}
