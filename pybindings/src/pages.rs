//! Reading pages of a branch without a compute.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use control_plane::Repository;
use pageserver_client::{
    ClientTimeouts, ErrorCode, MAX_PAGES_PER_REQUEST, PageClient, PageClientError,
};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, RelTag, TimelineId};
use pyo3::prelude::*;

use crate::error::exceptions::{
    BelowHorizon, ConnectionFailed, Corrupt, LsnTimeout, NotFound, PageServerError, Timeout,
};
use crate::error::raise;

/// A connection for page requests on one timeline, made when it is first needed and again when it
/// was lost.
pub struct PageReader {
    timeline: TimelineId,
    /// Held while a request is waited for: two threads that share a reader take turns. Never locked
    /// by a thread that holds the GIL.
    client: Mutex<Option<PageClient>>,
}

impl PageReader {
    /// A reader of `timeline`; does not connect yet.
    pub fn new(timeline: TimelineId) -> PageReader {
        PageReader { timeline, client: Mutex::new(None) }
    }

    /// `count` consecutive pages.
    pub fn get_pages(
        &self,
        repository: &Repository,
        rel: RelTag,
        first: BlockNumber,
        count: u32,
        lsn: Lsn,
    ) -> PyResult<Vec<Bytes>> {
        let mut pages = Vec::new();
        let mut done = 0;
        while done < count {
            let part = u16::try_from(count - done).unwrap_or(u16::MAX).min(MAX_PAGES_PER_REQUEST);
            let start = BlockNumber(first.0.saturating_add(done));
            let bytes = self.ask(repository, |client| client.get_pages(rel, start, part, lsn))?;
            pages.extend((0..usize::from(part)).map(|n| bytes.slice(n * BLCKSZ..(n + 1) * BLCKSZ)));
            done += u32::from(part);
        }
        Ok(pages)
    }

    /// The length of `rel` in blocks.
    pub fn rel_size(
        &self,
        repository: &Repository,
        rel: RelTag,
        lsn: Lsn,
    ) -> PyResult<Option<u32>> {
        self.ask(repository, |client| client.rel_size(rel, lsn))
    }

    /// Asks; once more over a new connection if the old one turns out to be lost.
    fn ask<T>(
        &self,
        repository: &Repository,
        request: impl Fn(&mut PageClient) -> Result<T, PageClientError>,
    ) -> PyResult<T> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = slot.as_mut() {
            match request(client) {
                Err(error) if error.is_connection_lost() => *slot = None,
                answer => return answer.map_err(raise_page_error),
            }
        }
        let address = repository.server_address().map_err(raise)?;
        let mut client =
            PageClient::connect(&address.unix, self.timeline, ClientTimeouts::default())
                .map_err(raise_page_error)?;
        let answer = request(&mut client);
        if !answer.as_ref().is_err_and(PageClientError::is_connection_lost) {
            *slot = Some(client);
        }
        answer.map_err(raise_page_error)
    }
}

fn raise_page_error(error: PageClientError) -> PyErr {
    let PageClientError::Refused { code, message } = error else {
        let text = causes(&error);
        return match error {
            PageClientError::TimedOut => Timeout::new_err(text),
            _ => ConnectionFailed::new_err(text),
        };
    };
    match code {
        ErrorCode::NotFound => NotFound::new_err(message),
        ErrorCode::LsnTimeout => LsnTimeout::new_err(message),
        ErrorCode::BelowHorizon => BelowHorizon::new_err(message),
        ErrorCode::Corrupt => Corrupt::new_err(message),
        ErrorCode::ShuttingDown | ErrorCode::Busy => ConnectionFailed::new_err(message),
        ErrorCode::Internal | ErrorCode::Fenced => PageServerError::new_err(message),
    }
}

/// The error and what lies behind it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
