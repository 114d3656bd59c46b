//! `PageClient`, one page stream as its client sees it.
//!
//! Requests may be sent ahead of the responses. Nothing is retried here: after an error for which
//! [`PageClientError::is_connection_lost`] holds, drop the client and connect again.
//! There are no threads and there is no global state, so a client may live in a process that forks;
//! but it belongs to the process that made it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, Oid, PageImage, RelTag, TimelineId};
use postgres_wire::ConnectionError;
use postgres_wire::client::{ClientCopyBoth, ClientError, ConnectParams, Connection, Timeouts};

use crate::protocol::{
    DecodeError, ErrorCode, Request, RequestKind, Response, ResponseBody, WINDOWS_PARAMETER,
};
use crate::window::{ClientWindow, Room, WINDOW_PAGES_MAX};
use crate::writer::Generation;

/// How long a client waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientTimeouts {
    /// For the connection, the login and the start of the stream.
    pub connect: Duration,
    /// For one response in the calls that ask and wait.
    pub response: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> ClientTimeouts {
        ClientTimeouts { connect: Duration::from_secs(10), response: Duration::from_secs(60) }
    }
}

/// Why a request could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum PageClientError {
    /// No connection, or not any more.
    #[error("no connection to the page server")]
    Connection(#[from] ClientError),
    /// The server has ended the stream.
    #[error("the page server has ended the stream")]
    Ended,
    /// The server speaks nonsense.
    #[error("the page server sent nonsense")]
    Protocol(#[from] DecodeError),
    /// The response is not one to that request.
    #[error("the page server answered something that was not asked")]
    WrongAnswer,
    /// No response in time. It may come yet, so the connection is not at fault.
    #[error("no answer from the page server in time")]
    TimedOut,
    /// The server has understood and refused.
    #[error("{code}: {message}")]
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
}

impl PageClientError {
    /// Whether the client is of no further use and another must be connected.
    pub fn is_connection_lost(&self) -> bool {
        !matches!(self, PageClientError::Refused { .. } | PageClientError::TimedOut)
    }
}

/// A connection on which a page stream of one timeline is open.
#[derive(Debug)]
pub struct PageClient {
    stream: ClientCopyBoth,
    timeouts: ClientTimeouts,
    next_id: u64,
    /// Responses that came while another one was waited for.
    early: VecDeque<Response>,
    window: WindowState,
    /// Where the server puts pages that were asked for, by request.
    rooms: Vec<(u64, Room)>,
}

/// Whether pages come through memory that is shared with the server.
#[derive(Debug)]
enum WindowState {
    /// They do not: nobody has asked, or it was refused.
    None,
    /// This request asks for it.
    Asked(u64),
    Open(ClientWindow),
}

impl PageClient {
    /// Connects to the page server at `connstr` (as libpq's) and opens the stream of `timeline`.
    pub fn connect(
        connstr: &str,
        timeline: TimelineId,
        timeouts: ClientTimeouts,
    ) -> Result<PageClient, PageClientError> {
        PageClient::connect_as(connstr, timeline, None, timeouts)
    }

    /// As `connect`, for a compute that has become the timeline's writer as `generation`: once another
    /// one has taken over, all its requests are refused as [`ErrorCode::Fenced`].
    pub fn connect_as(
        connstr: &str,
        timeline: TimelineId,
        generation: Option<Generation>,
        timeouts: ClientTimeouts,
    ) -> Result<PageClient, PageClientError> {
        let params: ConnectParams = connstr.parse().map_err(ClientError::from)?;
        let wire = Timeouts {
            connect: timeouts.connect,
            read: Some(timeouts.connect),
            write: Some(timeouts.response),
        };
        let connection = Connection::connect(&params, wire)?;
        let command = match generation {
            None => format!("pagestream {timeline}"),
            Some(generation) => format!("pagestream {timeline} {generation}"),
        };
        let mut stream = connection.copy_both(&command)?;
        stream.linger();
        Ok(PageClient {
            stream,
            timeouts,
            next_id: 1,
            early: VecDeque::new(),
            window: WindowState::None,
            rooms: Vec::new(),
        })
    }

    /// From when the server has agreed on, lets pages come through memory that both share, as far as `pages` of them
    /// fit into it at a time; the others come as ever. That memory is there for as long as the client, and what is
    /// given out is a part of it as long as anybody has that. To be asked for once.
    pub fn open_window(&mut self, pages: u16) -> Result<(), PageClientError> {
        if self.stream.parameter(WINDOWS_PARAMETER).is_some() {
            self.stream.await_descriptor();
            let pages = pages.clamp(1, WINDOW_PAGES_MAX);
            let id = self.send(Lsn::INVALID, RequestKind::OpenWindow { pages })?;
            self.window = WindowState::Asked(id);
        }
        Ok(())
    }

    /// Whether pages come through shared memory.
    pub fn has_window(&self) -> bool {
        matches!(self.window, WindowState::Open(_))
    }

    /// Queues a request and gives its id. It leaves with the next receive that has to wait, or with
    /// [`PageClient::flush`].
    pub fn send(&mut self, lsn: Lsn, kind: RequestKind) -> Result<u64, PageClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut message = Vec::with_capacity(64);
        let kind = self.by_window(id, kind);
        Request { id, lsn, kind }.encode(&mut message);
        self.stream.send(&[&message])?;
        Ok(id)
    }

    /// How pages are asked for: by way of the window if there is one with room for them.
    fn by_window(&mut self, id: u64, kind: RequestKind) -> RequestKind {
        let (WindowState::Open(window), RequestKind::GetPages { rel, first, count }) =
            (&self.window, kind)
        else {
            return kind;
        };
        let Some(room) = window.room(count) else { return kind };
        let place = room.place();
        self.rooms.push((id, room));
        RequestKind::PutPages { rel, first, count, place }
    }

    /// What a message of the server is to who asked; `None` if it is nothing to anybody.
    fn take_in(&mut self, message: &Bytes) -> Result<Option<Response>, PageClientError> {
        let Response { id, body } = Response::decode(message)?;
        if matches!(self.window, WindowState::Asked(asked) if asked == id) {
            let descriptor = self.stream.take_descriptor();
            self.window = match (body, descriptor) {
                // What cannot be mapped here is done without.
                (ResponseBody::Window { pages }, Some(descriptor)) => {
                    ClientWindow::open(descriptor, pages)
                        .map_or(WindowState::None, WindowState::Open)
                }
                (ResponseBody::Error { .. }, _) => WindowState::None,
                _ => return Err(PageClientError::WrongAnswer),
            };
            return Ok(None);
        }
        let own = self.rooms.iter().position(|(of, _)| *of == id);
        let room = own.map(|at| self.rooms.swap_remove(at).1);
        let body = match (body, room) {
            (ResponseBody::PagesPut { count }, Some(room))
                if usize::from(count) == room.count() =>
            {
                ResponseBody::Pages(room.filled())
            }
            (body @ ResponseBody::Error { .. }, _) => body,
            (ResponseBody::PagesPut { .. } | ResponseBody::Window { .. }, _) | (_, Some(_)) => {
                return Err(PageClientError::WrongAnswer);
            }
            (body, None) => body,
        };
        Ok(Some(Response { id, body }))
    }

    /// Sends all that is queued.
    pub fn flush(&mut self) -> Result<(), PageClientError> {
        Ok(self.stream.flush()?)
    }

    /// The next response, to whichever request. Waits at most as long as the timeout for responses;
    /// after [`PageClientError::TimedOut`] it can be waited for again.
    pub fn recv(&mut self) -> Result<Response, PageClientError> {
        self.recv_timeout(self.timeouts.response)
    }

    /// As `recv` with another timeout.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Response, PageClientError> {
        match self.early.pop_front() {
            Some(response) => Ok(response),
            None => self.recv_new(timeout),
        }
    }

    /// The next response if it has arrived.
    pub fn try_recv(&mut self) -> Result<Option<Response>, PageClientError> {
        if let Some(response) = self.early.pop_front() {
            return Ok(Some(response));
        }
        while let Some(message) = self.stream.try_recv()? {
            if let Some(response) = self.take_in(&message)? {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }

    fn recv_new(&mut self, timeout: Duration) -> Result<Response, PageClientError> {
        loop {
            let message = match self.stream.recv_timeout(timeout) {
                Ok(Some(message)) => message,
                Ok(None) => return Err(PageClientError::Ended),
                Err(ClientError::Connection(ConnectionError::TimedOut(_))) => {
                    return Err(PageClientError::TimedOut);
                }
                Err(error) => return Err(error.into()),
            };
            // What is nothing to anybody comes once, so that this waits twice as long at most.
            if let Some(response) = self.take_in(&message)? {
                return Ok(response);
            }
        }
    }

    /// Asks and waits for the answer; a refusal is an error. Other responses that come meanwhile
    /// are kept for `recv`.
    pub fn call(&mut self, lsn: Lsn, kind: RequestKind) -> Result<ResponseBody, PageClientError> {
        let id = self.send(lsn, kind)?;
        let deadline = Instant::now() + self.timeouts.response;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let response = self.recv_new(left)?;
            if response.id != id {
                self.early.push_back(response);
            } else if let ResponseBody::Error { code, message } = response.body {
                return Err(PageClientError::Refused { code, message });
            } else {
                return Ok(response.body);
            }
        }
    }

    /// `count` pages of `rel` from `first` on as they were at `lsn`, one after the other.
    pub fn get_pages(
        &mut self,
        rel: RelTag,
        first: BlockNumber,
        count: u16,
        lsn: Lsn,
    ) -> Result<Bytes, PageClientError> {
        match self.call(lsn, RequestKind::GetPages { rel, first, count })? {
            ResponseBody::Pages(pages) if pages.len() == usize::from(count) * BLCKSZ => Ok(pages),
            _ => Err(PageClientError::WrongAnswer),
        }
    }

    /// `count` pages of an SLRU from `first` on as they were at `lsn`, one after the other.
    pub fn get_slru_pages(
        &mut self,
        kind: u8,
        first: u32,
        count: u16,
        lsn: Lsn,
    ) -> Result<Bytes, PageClientError> {
        match self.call(lsn, RequestKind::GetSlruPages { kind, first, count })? {
            ResponseBody::Pages(pages) if pages.len() == usize::from(count) * BLCKSZ => Ok(pages),
            _ => Err(PageClientError::WrongAnswer),
        }
    }

    /// One page of `rel` as it was at `lsn`.
    pub fn get_page(
        &mut self,
        rel: RelTag,
        block: BlockNumber,
        lsn: Lsn,
    ) -> Result<PageImage, PageClientError> {
        let pages = self.get_pages(rel, block, 1, lsn)?;
        PageImage::from_slice(&pages).ok_or(PageClientError::WrongAnswer)
    }

    /// The length of `rel` in blocks at `lsn`; `None` if it did not exist.
    pub fn rel_size(&mut self, rel: RelTag, lsn: Lsn) -> Result<Option<u32>, PageClientError> {
        match self.call(lsn, RequestKind::RelSize { rel })? {
            ResponseBody::RelSize(size) => Ok(size),
            _ => Err(PageClientError::WrongAnswer),
        }
    }

    /// Whether `rel` existed at `lsn`.
    pub fn rel_exists(&mut self, rel: RelTag, lsn: Lsn) -> Result<bool, PageClientError> {
        match self.call(lsn, RequestKind::RelExists { rel })? {
            ResponseBody::RelExists(exists) => Ok(exists),
            _ => Err(PageClientError::WrongAnswer),
        }
    }

    /// The size in bytes of database `db` at `lsn`.
    pub fn db_size(&mut self, db: Oid, lsn: Lsn) -> Result<u64, PageClientError> {
        match self.call(lsn, RequestKind::DbSize { db })? {
            ResponseBody::DbSize(bytes) => Ok(bytes),
            _ => Err(PageClientError::WrongAnswer),
        }
    }

    /// One segment file of an SLRU as it was at `lsn`.
    pub fn slru_segment(
        &mut self,
        kind: u8,
        segment: u32,
        lsn: Lsn,
    ) -> Result<Bytes, PageClientError> {
        match self.call(lsn, RequestKind::SlruSegment { kind, segment })? {
            ResponseBody::SlruSegment(bytes) => Ok(bytes),
            _ => Err(PageClientError::WrongAnswer),
        }
    }
}
