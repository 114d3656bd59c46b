//! COPY OUT and COPY BOTH, the server's side.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use bytes::Bytes;

use crate::error::ConnectionError;
use crate::frame::{Frame, FrameReader};
use crate::limits;
use crate::server::error::QueryError;
use crate::socket::Deadline;
use crate::sqlstate::SqlState;
use crate::write::{FrameWriter, put_message};

/// Size of the CopyData messages of a COPY OUT, in bytes.
const COPY_OUT_CHUNK_BYTES: usize = 64 << 10;

/// Which COPY an answer contains, and how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CopyState {
    #[default]
    None,
    Out,
    OutFinished,
    Both(BothDone),
}

/// Which sides of a COPY BOTH have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BothDone {
    client: bool,
    server: bool,
}

impl CopyState {
    pub(crate) fn begun(self) -> bool {
        self != CopyState::None
    }
}

/// Sends bytes as a COPY OUT. Dropped without `finish`, it makes the statement fail, so that the
/// client never takes half of something for the whole.
pub struct CopyOutWriter<'a> {
    writer: &'a mut FrameWriter,
    state: &'a mut CopyState,
    chunk: Vec<u8>,
}

impl<'a> CopyOutWriter<'a> {
    pub(crate) fn begin(writer: &'a mut FrameWriter, state: &'a mut CopyState) -> Self {
        *state = CopyState::Out;
        CopyOutWriter { writer, state, chunk: Vec::new() }
    }

    /// Sends the rest and ends the COPY.
    pub fn finish(mut self) -> Result<(), QueryError> {
        self.send_chunk()?;
        put_message(self.writer.buffer(), b'c', |_| ());
        *self.state = CopyState::OutFinished;
        Ok(())
    }

    fn send_chunk(&mut self) -> Result<(), ConnectionError> {
        if !self.chunk.is_empty() {
            self.writer.copy_data(&[&self.chunk], &mut |_| Ok(false))?;
            self.chunk.clear();
        }
        Ok(())
    }
}

impl io::Write for CopyOutWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && bytes.len() >= COPY_OUT_CHUNK_BYTES {
            let whole = bytes.get(..COPY_OUT_CHUNK_BYTES).unwrap_or(bytes);
            self.writer.copy_data(&[whole], &mut |_| Ok(false))?;
            return Ok(whole.len());
        }
        let room = COPY_OUT_CHUNK_BYTES - self.chunk.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() == COPY_OUT_CHUNK_BYTES {
            self.send_chunk()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_chunk()?;
        Ok(self.writer.flush()?)
    }
}

/// A COPY BOTH with the client.
///
/// What is sent is gathered; it leaves with `flush`, with the next `recv` that has to wait, or when
/// there is enough. The halves may be used from two threads (`split`), then nobody but the writing
/// half flushes.
pub struct CopyBoth<'a> {
    reader: CopyBothReader<'a>,
    writer: CopyBothWriter<'a>,
    server_done: &'a mut bool,
}

/// The receiving half of a `CopyBoth`.
pub struct CopyBothReader<'a> {
    reader: &'a mut FrameReader,
    client_done: &'a mut bool,
}

/// The sending half of a `CopyBoth`.
pub struct CopyBothWriter<'a> {
    writer: &'a mut FrameWriter,
}

impl<'a> CopyBoth<'a> {
    pub(crate) fn begin(
        reader: &'a mut FrameReader,
        writer: &'a mut FrameWriter,
        done: &'a mut BothDone,
    ) -> CopyBoth<'a> {
        CopyBoth {
            reader: CopyBothReader { reader, client_done: &mut done.client },
            writer: CopyBothWriter { writer },
            server_done: &mut done.server,
        }
    }

    /// The next message of the client; `None` once the client has ended its side. Sends what was
    /// gathered before it waits.
    pub fn recv(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        if let Some(message) = self.reader.try_recv_buffered() {
            return Ok(Some(message));
        }
        self.writer.flush()?;
        self.reader.recv()
    }

    /// Before it sleeps, looks for more for a moment from now on, if the client has been quick: for clients
    /// that ask for one thing after the other.
    pub fn linger(&mut self) {
        self.reader.reader.linger();
    }

    /// The next message if all of it has been read from the socket already; never waits and makes
    /// no system call. `None` says nothing about what comes later.
    pub fn try_recv_buffered(&mut self) -> Option<Bytes> {
        self.reader.try_recv_buffered()
    }

    /// Sends one message, the concatenation of `parts`.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), ConnectionError> {
        self.writer.send(parts)
    }

    /// Sends messages, each the concatenation of a head and parts, at once and uncopied, but stops where the client
    /// takes nothing for as long as `patience`. Gives how many of them are on their way, so that what
    /// the others are made of need not be held for a client that is slow: `wait_for_room`, and send them again.
    pub fn send_together<H: AsRef<[u8]>, P: AsRef<[u8]>>(
        &mut self,
        messages: &[(H, &[P])],
        patience: Duration,
    ) -> Result<usize, ConnectionError> {
        self.writer.writer.copy_data_together(messages, patience)
    }

    /// Whether the client is on this machine, so that descriptors can be sent to it.
    pub fn is_local(&self) -> bool {
        self.writer.writer.socket().is_unix()
    }

    /// Sends one short message at once, and with it a descriptor, of which the client gets a copy. Only to one on
    /// this machine.
    pub fn send_with_descriptor(
        &mut self,
        message: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), ConnectionError> {
        self.writer.writer.copy_data_with_descriptor(message, descriptor)
    }

    /// Waits until the client takes more, for as long as a client may take nothing.
    pub fn wait_for_room(&mut self) -> Result<(), ConnectionError> {
        self.writer.writer.wait_for_room()
    }

    /// Sends everything gathered.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        self.writer.flush()
    }

    /// The two halves.
    pub fn split(&mut self) -> (&mut CopyBothReader<'a>, &mut CopyBothWriter<'a>) {
        (&mut self.reader, &mut self.writer)
    }

    /// Ends both sides: says so, and drops what the client still sends until it says so too.
    /// `QueryWriter::complete` does this by itself.
    pub fn finish(mut self) -> Result<(), ConnectionError> {
        if !*self.server_done {
            *self.server_done = true;
            put_message(self.writer.writer.buffer(), b'c', |_| ());
        }
        self.writer.writer.flush()?;
        while self.reader.recv()?.is_some() {}
        Ok(())
    }
}

impl CopyBothReader<'_> {
    /// The next message of the client; `None` once the client has ended its side.
    ///
    /// Waits for ever, unless the connection breaks or the server stops. A client that gives up
    /// (CopyFail) or leaves is `ConnectionError::Closed`.
    pub fn recv(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        while !*self.client_done {
            let within = Some(limits::MESSAGE_TIMEOUT);
            let frame = self
                .reader
                .next(Deadline::NEVER, within, "waiting for the rest of a message")?
                .ok_or(ConnectionError::Closed)?;
            if let Some(message) = self.take(frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// See `CopyBoth::try_recv_buffered`.
    pub fn try_recv_buffered(&mut self) -> Option<Bytes> {
        if *self.client_done {
            return None;
        }
        // Anything but data is left for `recv`, which can say what it means.
        match self.reader.peek_tag() {
            Ok(Some(b'd')) => self.reader.next_buffered().ok().flatten().map(Frame::into_body),
            _ => None,
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Bytes>, ConnectionError> {
        match frame.tag() {
            b'd' => Ok(Some(frame.into_body())),
            b'c' => {
                *self.client_done = true;
                Ok(None)
            }
            // Flush and Sync mean nothing here, as in PostgreSQL.
            b'H' | b'S' => Ok(None),
            // After CopyFail the client waits for an error; it gets the end of the connection,
            // which it has to be able to deal with anyway.
            b'f' | b'X' => Err(ConnectionError::Closed),
            other => Err(ConnectionError::protocol(format!(
                "message of type '{}' during a COPY",
                other.escape_ascii()
            ))),
        }
    }
}

impl CopyBothWriter<'_> {
    /// Sends one message, the concatenation of `parts`: gathered if short, directly if long.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), ConnectionError> {
        self.writer.copy_data(parts, &mut |_| Ok(false))
    }

    /// Sends everything gathered.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        self.writer.flush()
    }
}

/// What the client is told when its statement ends because the server does.
pub(crate) fn stopping() -> QueryError {
    QueryError::new(SqlState::ADMIN_SHUTDOWN, "terminating connection: the server is shutting down")
}
