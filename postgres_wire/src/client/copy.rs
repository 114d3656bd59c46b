//! COPY OUT and COPY BOTH, the client's side.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Buf, Bytes};
use postgres_protocol::message::backend::Message;

use crate::client::connection::{Connection, last_words, parse, unexpected};
use crate::client::error::{ClientError, ServerError};
use crate::error::ConnectionError;
use crate::frame::{Frame, FrameReader};
use crate::limits;
use crate::socket::Deadline;
use crate::write::{FrameWriter, put_message};

/// The bytes of a COPY OUT. Read to its end, it leaves the connection ready for the next command;
/// dropped before, it leaves the connection unusable.
#[derive(Debug)]
pub struct CopyOutReader<'c> {
    connection: &'c mut Connection,
    chunk: Bytes,
    ended: bool,
}

impl<'c> CopyOutReader<'c> {
    pub(crate) fn begin(connection: &'c mut Connection) -> Self {
        CopyOutReader { connection, chunk: Bytes::new(), ended: false }
    }

    /// The next piece as the server cut it; `None` at the end, when the server has confirmed that
    /// the command succeeded.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        if !self.chunk.is_empty() {
            return Ok(Some(std::mem::take(&mut self.chunk)));
        }
        while !self.ended {
            let frame = self.connection.receive_frame()?;
            if frame.tag() == b'd' {
                return Ok(Some(frame.into_body()));
            }
            match self.connection.parse(frame)? {
                Message::CopyDone => {
                    // Only CommandComplete says that nothing went wrong at the very end.
                    match self.connection.receive_expected()? {
                        Message::CommandComplete(_) => {}
                        _ => return Err(unexpected("no end of the command after a COPY OUT")),
                    }
                    self.connection.skip_to_ready()?;
                    self.ended = true;
                }
                _ => return Err(unexpected("something else than data in a COPY OUT")),
            }
        }
        Ok(None)
    }
}

impl Read for CopyOutReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.next_chunk()? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        self.chunk.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

/// How the server ended its side of a COPY BOTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyEnd {
    /// With CopyDone: it goes on once our side has ended too.
    Done,
    /// With the end of the command at once; a WAL sender does that when its server shuts down.
    Complete,
}

/// A COPY BOTH with the server.
///
/// For one thread that sends many requests before it reads the replies: while the server does not
/// take what is sent, what it replies is read and kept, so that the two never wait for each other.
/// For two threads: `split`.
#[derive(Debug)]
pub struct ClientCopyBoth {
    connection: Connection,
    ended: Option<CopyEnd>,
}

impl ClientCopyBoth {
    pub(crate) fn begin(connection: Connection) -> ClientCopyBoth {
        ClientCopyBoth { connection, ended: None }
    }

    /// Queues one message, the concatenation of `parts`. It leaves with `flush`, with a receive that
    /// has to wait, or when there is enough.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), ClientError> {
        let (reader, writer) = self.connection.halves();
        writer
            .copy_data(parts, &mut |readable| read_meanwhile(reader, readable))
            .map_err(|error| last_words(reader, error))
    }

    /// Sends everything queued.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let (reader, writer) = self.connection.halves();
        writer
            .flush_with(&mut |readable| read_meanwhile(reader, readable))
            .map_err(|error| last_words(reader, error))
    }

    /// Sends one message at once, if anybody is left to hear it. To a server that has closed its side
    /// it is not sent, and that is no error: what the server said before is still to be received, and
    /// then the end of the connection.
    pub(crate) fn tell(&mut self, parts: &[&[u8]]) -> Result<(), ClientError> {
        let (reader, writer) = self.connection.halves();
        if writer.is_torn() {
            return Ok(());
        }
        let told = writer
            .copy_data(parts, &mut |readable| read_meanwhile(reader, readable))
            .and_then(|()| writer.flush_with(&mut |readable| read_meanwhile(reader, readable)));
        match told {
            Err(ConnectionError::Closed) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Before it sleeps, looks for more for a moment from now on, if the server has been quick: for those
    /// that ask for one thing after the other.
    pub fn linger(&mut self) {
        self.connection.reader().linger();
    }

    /// From now on a descriptor that comes with a message is kept, until `take_descriptor`; otherwise it would be
    /// dropped. To be called before whatever makes the server send one.
    pub fn await_descriptor(&mut self) {
        self.connection.reader().await_descriptor();
    }

    /// The descriptor that has come with the messages received so far, if one has. None is awaited any more.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.connection.reader().take_descriptor()
    }

    /// A parameter that the server has reported at login.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.connection.parameter(name)
    }

    /// The next message; `None` once the server has ended its side. Flushes before it waits, for as
    /// long as `Timeouts::read` says.
    pub fn recv(&mut self) -> Result<Option<Bytes>, ClientError> {
        let timeout = self.connection.read_timeout();
        if let Some(message) = self.try_recv_buffered() {
            return Ok(Some(message));
        }
        self.flush()?;
        receive(self.connection.reader(), &mut self.ended, Wait::Silence(timeout))
    }

    /// As `recv`, but all waiting together takes at most `timeout`; then the error is
    /// `ConnectionError::TimedOut`, and the message can be waited for again.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Bytes>, ClientError> {
        let deadline = Deadline::after(timeout);
        self.flush()?;
        receive(self.connection.reader(), &mut self.ended, Wait::Until(deadline))
    }

    /// The next message if all of it has been read from the socket already; no system call.
    pub fn try_recv_buffered(&mut self) -> Option<Bytes> {
        take_buffered(self.connection.reader(), self.ended)
    }

    /// The next message if it is in our or the kernel's buffer; never waits.
    pub fn try_recv(&mut self) -> Result<Option<Bytes>, ClientError> {
        if let Some(message) = self.try_recv_buffered() {
            return Ok(Some(message));
        }
        self.connection.reader().fill()?;
        let message = self.try_recv_buffered();
        if message.is_none() && self.connection.reader().is_at_end() {
            return Err(ConnectionError::Closed.into());
        }
        Ok(message)
    }

    /// Ends both sides, dropping what the server still sends, and gives the connection back.
    pub fn finish(self) -> Result<Connection, ClientError> {
        let (mut connection, ended) = self.end()?;
        if ended == CopyEnd::Done {
            match connection.receive_expected()? {
                Message::CommandComplete(_) => {}
                _ => return Err(unexpected("no end of the command after a COPY BOTH")),
            }
        }
        connection.skip_to_ready()?;
        Ok(connection)
    }

    /// Ends both sides; what follows the COPY is left to be read.
    pub(crate) fn end(mut self) -> Result<(Connection, CopyEnd), ClientError> {
        put_message(self.connection.writer().buffer(), b'c', |_| ());
        loop {
            match (self.recv()?, self.ended) {
                (Some(_), _) => {}
                (None, Some(ended)) => return Ok((self.connection, ended)),
                (None, None) => return Err(ConnectionError::Closed.into()),
            }
        }
    }

    /// How the server ended its side, if it did.
    pub(crate) fn ended(&self) -> Option<CopyEnd> {
        self.ended
    }

    /// Two halves for two threads. Each connection end stays open until both are dropped.
    pub fn split(self) -> (CopyReceiver, CopySender) {
        let timeout = self.connection.read_timeout();
        let (reader, writer) = self.connection.into_halves();
        (CopyReceiver { reader, timeout, ended: self.ended }, CopySender { writer })
    }
}

/// The receiving half of a COPY BOTH.
#[derive(Debug)]
pub struct CopyReceiver {
    reader: FrameReader,
    timeout: Option<Duration>,
    ended: Option<CopyEnd>,
}

impl CopyReceiver {
    /// The next message; `None` once the server has ended its side. Waits as `Timeouts::read` says.
    pub fn recv(&mut self) -> Result<Option<Bytes>, ClientError> {
        receive(&mut self.reader, &mut self.ended, Wait::Silence(self.timeout))
    }

    /// See `ClientCopyBoth::recv_timeout`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Bytes>, ClientError> {
        let deadline = Deadline::after(timeout);
        receive(&mut self.reader, &mut self.ended, Wait::Until(deadline))
    }

    /// See `ClientCopyBoth::try_recv_buffered`.
    pub fn try_recv_buffered(&mut self) -> Option<Bytes> {
        take_buffered(&mut self.reader, self.ended)
    }
}

/// The sending half of a COPY BOTH. Somebody must be receiving meanwhile.
#[derive(Debug)]
pub struct CopySender {
    writer: FrameWriter,
}

impl CopySender {
    /// Queues one message, the concatenation of `parts`.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), ClientError> {
        Ok(self.writer.copy_data(parts, &mut |_| Ok(false))?)
    }

    /// Sends everything queued.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        Ok(self.writer.flush()?)
    }

    /// Says that nothing more will be sent; the receiver then gets the rest and the end.
    pub fn done(mut self) -> Result<(), ClientError> {
        put_message(self.writer.buffer(), b'c', |_| ());
        self.flush()
    }

    /// Ends the connection for both halves at once, waking the other.
    pub fn disconnect(&self) {
        self.writer.socket().shutdown();
    }
}

/// How long to wait for a message.
enum Wait {
    /// As long as something arrives every so often.
    Silence(Option<Duration>),
    /// Until a moment.
    Until(Deadline),
}

fn receive(
    reader: &mut FrameReader,
    ended: &mut Option<CopyEnd>,
    wait: Wait,
) -> Result<Option<Bytes>, ClientError> {
    let (idle, within) = match wait {
        Wait::Silence(timeout) => (Deadline::after_option(timeout), timeout),
        Wait::Until(deadline) => (deadline, None),
    };
    while ended.is_none() {
        let frame =
            reader.next(idle, within, "waiting for the server")?.ok_or(ConnectionError::Closed)?;
        match frame.tag() {
            b'd' => return Ok(Some(frame.into_body())),
            b'c' => *ended = Some(CopyEnd::Done),
            b'C' => *ended = Some(CopyEnd::Complete),
            // Notices, notifications and changed parameters do not matter in here.
            b'N' | b'A' | b'S' => {}
            b'E' => {
                if let Message::ErrorResponse(body) = parse(frame)? {
                    return Err(Box::new(ServerError::parse(body.fields())?).into());
                }
            }
            other => {
                return Err(ConnectionError::protocol(format!(
                    "message of type '{}' in a COPY BOTH",
                    other.escape_ascii()
                ))
                .into());
            }
        }
    }
    Ok(None)
}

fn take_buffered(reader: &mut FrameReader, ended: Option<CopyEnd>) -> Option<Bytes> {
    // Anything but data is left for the receive that can say what it means.
    match (ended, reader.peek_tag()) {
        (None, Ok(Some(b'd'))) => reader.next_buffered().ok().flatten().map(Frame::into_body),
        _ => None,
    }
}

/// Reads replies while the server is not taking requests, within bounds.
fn read_meanwhile(reader: &mut FrameReader, readable: bool) -> Result<bool, ConnectionError> {
    if readable {
        reader.fill()?;
    }
    Ok(reader.buffered_bytes() < limits::UNREAD_REPLIES_BYTES_MAX && !reader.is_at_end())
}
