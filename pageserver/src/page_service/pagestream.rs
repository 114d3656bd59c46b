//! `pagestream T`: binary page requests, many under way at once.
//!
//! All requests that are waiting in the connection's buffer are answered together as one batch;
//! while it is being made, the next one gathers. Requests whose LSN has not been received yet are
//! put behind all others, so that they delay only each other and what comes after the batch.
//!
//! What a client can make the server hold is bounded: a batch has at most `BATCH_PAGES_MAX` pages, or those of
//! one request more, and is sent before the next is read. Pages leave from where they are in the caches, uncopied.
//! For a client that takes nothing for a moment only the rest of one answer is kept, as a copy; the other
//! requests of the batch are answered anew when it takes more. `postgres_wire` disconnects it after a while.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pageserver_client::Generation;
use pageserver_client::protocol::{ErrorCode, Request, RequestKind, Response, ResponseBody};
use postgres_formats::slru::SlruKind;
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, RelTag};
use postgres_wire::server::{CopyBoth, QueryError};
use postgres_wire::{ConnectionError, SqlState};
use slog::{Logger, warn};

use super::counts::StreamCounts;
use super::windows::{Window, Windows};
use crate::error_text::with_causes;
use crate::key::PageKey;
use crate::leases::Stream;
use crate::object::{ObjectPage, ObjectTag};
use crate::page::Page;
use crate::seqwait::WaitError;
use crate::timeline::error::TimelineError;
use crate::timeline::{GetPageError, PageRequest, Timeline};
use crate::writer::WriterRole;

/// Pages at which a batch is full.
const BATCH_PAGES_MAX: usize = 512;
/// Requests at which a batch is full, whatever they ask for.
const BATCH_REQUESTS_MAX: usize = 1024;

/// How long pages are held for a client that takes nothing.
const SLOW_CLIENT_PATIENCE: Duration = Duration::from_millis(100);

/// The compute that asks, if it says so: one whose role has gone to another gets no page, so that it
/// is noticed there.
pub(super) struct Compute {
    pub(super) role: Arc<WriterRole>,
    pub(super) generation: Generation,
}

/// What all streams have in common.
pub(super) struct Common<'a> {
    pub(super) lsn_timeout: Duration,
    pub(super) counts: &'a StreamCounts,
    pub(super) windows: &'a Windows,
    pub(super) log: &'a Logger,
}

/// Answers the requests of one client until it ends its side.
pub(super) fn serve(
    timeline: &Arc<Timeline>,
    compute: Option<Compute>,
    reading: Stream,
    common: &Common<'_>,
    copy: &mut CopyBoth<'_>,
) -> Result<(), QueryError> {
    let mut stream = PageStream { timeline, compute, reading, common, window: None, copy };
    stream.copy.linger();
    while let Some(first) = stream.copy.recv()? {
        let batch = stream.gather(first)?;
        stream.answer(batch)?;
    }
    Ok(())
}

struct PageStream<'a, 'c> {
    timeline: &'a Arc<Timeline>,
    compute: Option<Compute>,
    /// What it reads is kept while it does.
    reading: Stream,
    common: &'a Common<'a>,
    /// Where the client wants pages to be put.
    window: Option<Window>,
    copy: &'a mut CopyBoth<'c>,
}

impl PageStream<'_, '_> {
    /// `first` and what else has come already, up to the size of a batch.
    fn gather(&mut self, first: Bytes) -> Result<Vec<Request>, QueryError> {
        let mut batch = Vec::new();
        let mut pages = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            // After nonsense nothing that follows can be trusted.
            let request = Request::decode(&message)
                .map_err(|e| QueryError::new(SqlState::PROTOCOL_VIOLATION, e.to_string()))?;
            pages += pages_of(&request);
            batch.push(request);
            let full = pages >= BATCH_PAGES_MAX || batch.len() >= BATCH_REQUESTS_MAX;
            next = if full { None } else { self.copy.try_recv_buffered() };
        }
        self.common.counts.add_batch(batch.len(), pages);
        Ok(batch)
    }

    fn answer(&mut self, mut batch: Vec<Request>) -> Result<(), QueryError> {
        let opens = |request: &mut Request| matches!(request.kind, RequestKind::OpenWindow { .. });
        for request in batch.extract_if(.., opens).collect::<Vec<_>>() {
            self.open_window(&request)?;
        }
        if let Some(text) = self.compute.as_ref().and_then(|c| c.role.fenced(c.generation)) {
            for request in batch {
                self.send(&Response::error(request.id, ErrorCode::Fenced, &*text))?;
            }
            self.copy.flush()?;
            return Ok(());
        }
        let arrived = Instant::now();
        let is_there =
            |request: &Request| self.timeline.wait_lsn(request.lsn, Duration::ZERO).is_ok();
        let (now, mut later): (Vec<Request>, Vec<Request>) = batch.into_iter().partition(is_there);
        self.answer_together(&now)?;
        later.sort_by_key(|request| request.lsn);
        for request in later {
            // Whoever has got an answer should not wait for those who have not.
            self.copy.flush()?;
            let left = self.common.lsn_timeout.saturating_sub(arrived.elapsed());
            match self.timeline.wait_lsn(request.lsn, left) {
                Ok(()) => self.answer_together(&[request])?,
                Err(error) => {
                    let refusal = self.refusal(&request, &error.into());
                    self.send(&refusal)?;
                }
            }
        }
        self.copy.flush()?;
        Ok(())
    }

    fn open_window(&mut self, request: &Request) -> Result<(), ConnectionError> {
        let RequestKind::OpenWindow { pages } = request.kind else { return Ok(()) };
        let refusal = match self.window.is_none() && self.copy.is_local() {
            true => match self.common.windows.open(pages) {
                Ok((window, descriptor)) => {
                    self.window = Some(window);
                    let body = ResponseBody::Window { pages };
                    let message = encoded(&Response { id: request.id, body });
                    return self.copy.send_with_descriptor(&message, descriptor.as_fd());
                }
                Err(error) => Response::error(request.id, ErrorCode::Busy, error.to_string()),
            },
            false => {
                let message = "a stream has one window, on the page server's own machine";
                Response::error(request.id, ErrorCode::Internal, message)
            }
        };
        self.send(&refusal)
    }

    /// What is answered when `pages` have been found: put into the window if they are to be there, otherwise they
    /// follow upon this.
    fn found(&self, request: &Request, pages: &mut Vec<Page>, before: usize) -> Vec<u8> {
        let RequestKind::PutPages { count, place, .. } = request.kind else {
            return Response::pages_header(request.id).to_vec();
        };
        let own = pages.get(before..).unwrap_or_default();
        let is_put = self.window.as_ref().is_some_and(|window| window.put(place, own));
        pages.truncate(before);
        encoded(&match is_put {
            true => Response { id: request.id, body: ResponseBody::PagesPut { count } },
            false => {
                let message = "the pages are to be put outside of the stream's window";
                Response::error(request.id, ErrorCode::Internal, message)
            }
        })
    }

    /// Answers requests whose LSNs have been received. Where the client is slow, no page is held while it is
    /// waited for: those that were not sent are asked for again.
    fn answer_together(&mut self, requests: &[Request]) -> Result<(), ConnectionError> {
        let mut left = requests;
        while !left.is_empty() {
            let sent = self.answer_some(left)?;
            left = left.get(sent..).unwrap_or_default();
            if !left.is_empty() {
                self.copy.wait_for_room()?;
            }
        }
        Ok(())
    }

    /// Answers all pages in one go, then the rest. Gives how many of the requests are answered.
    fn answer_some(&mut self, requests: &[Request]) -> Result<usize, ConnectionError> {
        requests.iter().for_each(|request| self.reading.reads(request.lsn));
        let wanted: Vec<PageRequest> = requests.iter().flat_map(page_requests).collect();
        let mut found = self.timeline.get_pages(&wanted, Duration::ZERO).into_iter();
        let mut pages: Vec<Page> = Vec::with_capacity(wanted.len());
        // Of each answer the beginning, and where its pages end.
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let head = match request.kind {
                RequestKind::GetPages { count, .. }
                | RequestKind::PutPages { count, .. }
                | RequestKind::GetSlruPages { count, .. }
                    if page_keys(request).is_some() =>
                {
                    let (before, mut failed) = (pages.len(), None);
                    for page in found.by_ref().take(usize::from(count)) {
                        match page {
                            Ok(page) => pages.push(page),
                            Err(error) => {
                                failed.get_or_insert(error);
                            }
                        }
                    }
                    match failed {
                        None => self.found(request, &mut pages, before),
                        Some(error) => {
                            pages.truncate(before);
                            encoded(&self.refusal(request, &error))
                        }
                    }
                }
                _ => encoded(&match self.look_up(request) {
                    Ok(body) => Response { id: request.id, body },
                    Err(error) => self.refusal(request, &error),
                }),
            };
            answers.push((head, pages.len()));
        }
        let mut from = 0;
        let message = |(head, upto): (Vec<u8>, usize)| {
            let own = pages.get(from..upto).unwrap_or_default();
            from = upto;
            (head, own)
        };
        let messages: Vec<(Vec<u8>, &[Page])> = answers.into_iter().map(message).collect();
        self.copy.send_together(&messages, SLOW_CLIENT_PATIENCE)
    }

    fn look_up(&self, request: &Request) -> Result<ResponseBody, GetPageError> {
        let lsn = request.lsn;
        self.timeline.check_lsn(lsn)?;
        Ok(match request.kind {
            RequestKind::RelSize { rel } => {
                ResponseBody::RelSize(self.timeline.rel_size(rel, lsn)?.map(|size| size.0))
            }
            RequestKind::RelExists { rel } => {
                ResponseBody::RelExists(self.timeline.rel_size(rel, lsn)?.is_some())
            }
            RequestKind::DbSize { db } => {
                ResponseBody::DbSize(self.timeline.database_size(db, lsn)?)
            }
            RequestKind::SlruSegment { kind, segment } => self.slru_segment(kind, segment, lsn)?,
            RequestKind::GetPages { .. } | RequestKind::PutPages { .. } => {
                unreachable!("pages are answered together")
            }
            RequestKind::OpenWindow { .. } => unreachable!("windows are opened before"),
            // Of a kind that there is not.
            RequestKind::GetSlruPages { kind, .. } => ResponseBody::Error {
                code: ErrorCode::NotFound,
                message: format!("there is no SLRU {kind}"),
            },
        })
    }

    fn slru_segment(&self, kind: u8, segment: u32, lsn: Lsn) -> Result<ResponseBody, GetPageError> {
        let object = SlruKind::from_u8(kind).map(|kind| ObjectTag::Slru { kind, segment });
        let size = match object {
            Some(object) => self.timeline.object_size(object, lsn)?,
            None => None,
        };
        let (Some(object), Some(size)) = (object, size) else {
            return Ok(ResponseBody::Error {
                code: ErrorCode::NotFound,
                message: format!("there is no segment {segment} of SLRU {kind} at {lsn}"),
            });
        };
        let requests: Vec<_> = (0..size)
            .map(|n| PageRequest { page: ObjectPage { object, block: BlockNumber(n) }, lsn })
            .collect();
        let mut bytes = Vec::with_capacity(requests.len() * BLCKSZ);
        for page in self.timeline.get_pages(&requests, Duration::ZERO) {
            bytes.extend_from_slice(&page?[..]);
        }
        Ok(ResponseBody::SlruSegment(bytes.into()))
    }

    fn refusal(&self, request: &Request, error: &GetPageError) -> Response {
        let code = code_of(error);
        let message = with_causes(error);
        // A stop has been logged when it was found.
        let is_stop = matches!(error, GetPageError::Wait(WaitError::Stopped { .. }));
        if matches!(code, ErrorCode::Corrupt | ErrorCode::Internal) && !is_stop {
            warn!(self.common.log, "a page request failed: {}", message;
                "timeline" => %self.timeline.id(), "request" => ?request.kind);
        }
        Response::error(request.id, code, message)
    }

    fn send(&mut self, response: &Response) -> Result<(), ConnectionError> {
        self.copy.send(&[&encoded(response)])
    }
}

fn encoded(response: &Response) -> Vec<u8> {
    let mut message = Vec::new();
    response.encode(&mut message);
    message
}

fn pages_of(request: &Request) -> usize {
    match request.kind {
        RequestKind::GetPages { count, .. }
        | RequestKind::PutPages { count, .. }
        | RequestKind::GetSlruPages { count, .. } => usize::from(count),
        RequestKind::SlruSegment { .. } => 32,
        _ => 0,
    }
}

/// The pages that a request asks for; `None` if it asks for something else.
fn page_keys(request: &Request) -> Option<impl Iterator<Item = PageKey> + use<>> {
    // Decoding has checked that the number of the last page exists.
    let (object, first, count) = match request.kind {
        RequestKind::GetPages { rel, first, count }
        | RequestKind::PutPages { rel, first, count, .. } => (Asked::Rel(rel), first.0, count),
        RequestKind::GetSlruPages { kind, first, count } => {
            (Asked::Slru(SlruKind::from_u8(kind)?), first, count)
        }
        _ => return None,
    };
    Some((first..first.saturating_add(u32::from(count))).map(move |page| match object {
        Asked::Rel(rel) => PageKey::Rel { rel, block: BlockNumber(page) },
        Asked::Slru(kind) => PageKey::Slru { kind, page },
    }))
}

/// Whose pages are asked for.
#[derive(Clone, Copy)]
enum Asked {
    Rel(RelTag),
    Slru(SlruKind),
}

fn page_requests(request: &Request) -> impl Iterator<Item = PageRequest> + use<> {
    let lsn = request.lsn;
    page_keys(request).into_iter().flatten().map(move |page| PageRequest { page: page.into(), lsn })
}

/// What the client can do about an error.
fn code_of(error: &GetPageError) -> ErrorCode {
    match error {
        GetPageError::NotFound { .. } => ErrorCode::NotFound,
        GetPageError::Wait(WaitError::Timeout { .. }) => ErrorCode::LsnTimeout,
        GetPageError::Wait(WaitError::ShuttingDown { .. }) => ErrorCode::ShuttingDown,
        GetPageError::Timeline(TimelineError::BeforeBeginning { .. }) => ErrorCode::BelowHorizon,
        error if error.is_corruption() => ErrorCode::Corrupt,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests;
