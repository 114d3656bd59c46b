//! `ReplicationStream`: WAL that flows.

use std::time::Duration;

use postgres_formats::lsn::Lsn;

use crate::client::CopyEnd;
use crate::client::{ClientCopyBoth, ClientError};
use crate::error::ConnectionError;
use crate::replication::client::{ReplicationClient, next_timeline};
use crate::replication::error::ReplicationError;
use crate::replication::message::{ReplicationMessage, status_update};

/// WAL that flows. Dropped, it disconnects.
#[derive(Debug)]
pub struct ReplicationStream {
    copy: ClientCopyBoth,
    /// Where the next piece must begin.
    next: Lsn,
    start: Lsn,
    status: Status,
}

/// What the server was told last.
#[derive(Clone, Copy, Debug, Default)]
struct Status {
    write: Lsn,
    flush: Lsn,
    apply: Lsn,
}

/// How a stream ended that both sides have agreed to end.
#[derive(Debug)]
pub struct StreamEnd {
    /// For further commands; `None` if the server is shutting down.
    pub client: Option<ReplicationClient>,
    /// If the PostgreSQL timeline is over: the next one, and where it begins.
    pub next_timeline: Option<(u32, Lsn)>,
}

impl ReplicationStream {
    pub(crate) fn new(copy: ClientCopyBoth, start: Lsn) -> ReplicationStream {
        ReplicationStream { copy, next: start, start, status: Status::default() }
    }

    /// The next message, or `None` if none came in time.
    ///
    /// WAL comes without gaps, which is checked. A keep-alive that asks for a reply is answered here
    /// with the last status given to `send_status`, so that a receiver which is busy for a while is
    /// not taken for dead; so call this at least every few seconds.
    pub fn next(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<ReplicationMessage>, ReplicationError> {
        let body = match self.copy.recv_timeout(timeout) {
            Ok(Some(body)) => body,
            Ok(None) if self.copy.ended() == Some(CopyEnd::Complete) => {
                return Err(ReplicationError::ServerStopping);
            }
            Ok(None) => return Err(ReplicationError::TimelineEnded { next: None }),
            Err(ClientError::Connection(ConnectionError::TimedOut(_))) => return Ok(None),
            Err(error) => return Err(ReplicationError::classify(error, None, self.start)),
        };
        self.accept(body).map(Some)
    }

    /// The next message if it has been read from the socket already; never waits. For taking all that
    /// has come before syncing once.
    pub fn next_buffered(&mut self) -> Result<Option<ReplicationMessage>, ReplicationError> {
        self.copy.try_recv_buffered().map(|body| self.accept(body)).transpose()
    }

    fn accept(&mut self, body: bytes::Bytes) -> Result<ReplicationMessage, ReplicationError> {
        let message = ReplicationMessage::decode(body)?;
        match &message {
            ReplicationMessage::XLogData { start, bytes, .. } => {
                if *start != self.next {
                    return Err(ConnectionError::protocol(format!(
                        "the server sent WAL at {start}, expected was {}",
                        self.next
                    ))
                    .into());
                }
                self.next = start.saturating_add(bytes.len() as u64);
            }
            ReplicationMessage::KeepAlive { reply_requested: true, .. } => {
                let Status { write, flush, apply } = self.status;
                self.send_status(write, flush, apply, false)?;
            }
            ReplicationMessage::KeepAlive { .. } => {}
        }
        Ok(message)
    }

    /// Tells the server how far its WAL is written, flushed to disk and applied here. What is flushed
    /// the server may forget; synchronous commits wait for it. `Lsn::INVALID` stands for "unknown".
    ///
    /// That the server has closed the connection is no error here: `next` tells, after everything that
    /// was sent before, so that an orderly stop is not taken for a lost connection.
    pub fn send_status(
        &mut self,
        write: Lsn,
        flush: Lsn,
        apply: Lsn,
        reply_requested: bool,
    ) -> Result<(), ReplicationError> {
        self.status = Status { write, flush, apply };
        Ok(self.copy.tell(&[&status_update(write, flush, apply, reply_requested)])?)
    }

    /// Where the next piece of WAL will begin: everything before it has been given out.
    pub fn position(&self) -> Lsn {
        self.next
    }

    /// Ends the stream in agreement with the server, dropping WAL that is still on its way.
    pub fn finish(self) -> Result<StreamEnd, ReplicationError> {
        let (mut connection, ended) = self.copy.end()?;
        if ended == CopyEnd::Complete {
            return Ok(StreamEnd { client: None, next_timeline: None });
        }
        // At the end of a timeline comes a row about the next one; else only the command's end.
        let next_timeline = next_timeline(&connection.receive_rows()?)?;
        let client = Some(ReplicationClient::from_connection(connection));
        Ok(StreamEnd { client, next_timeline })
    }
}
