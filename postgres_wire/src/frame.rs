//! Messages as they come out of a socket: one type byte, a length word, the body.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ConnectionError;
use crate::limits;
use crate::linger::Linger;
use crate::socket::{Deadline, WireSocket};

/// Type byte and length word, in bytes.
pub(crate) const HEADER_BYTES: usize = 5;
/// Free space below which a read is not worth its call, in bytes.
const READ_BYTES_MIN: usize = 4 << 10;

/// One whole message.
#[derive(Debug)]
pub(crate) struct Frame {
    raw: BytesMut,
}

impl Frame {
    pub(crate) fn tag(&self) -> u8 {
        self.raw.first().copied().unwrap_or_default()
    }

    /// The message without type and length, sharing memory with the read buffer.
    pub(crate) fn into_body(mut self) -> Bytes {
        self.raw.advance(HEADER_BYTES.min(self.raw.len()));
        self.raw.freeze()
    }

    /// Type, length and body, as `postgres-protocol` wants to parse them.
    pub(crate) fn into_raw(self) -> BytesMut {
        self.raw
    }
}

/// Cuts the incoming bytes of a socket into messages.
#[derive(Debug)]
pub(crate) struct FrameReader {
    socket: Arc<WireSocket>,
    buffer: BytesMut,
    frame_bytes_max: usize,
    at_end: bool,
    linger: Linger,
    /// Whether a message may bring a descriptor, and the one that has come.
    awaits_descriptor: bool,
    descriptor: Option<OwnedFd>,
}

impl FrameReader {
    pub(crate) fn new(socket: Arc<WireSocket>, frame_bytes_max: usize) -> FrameReader {
        FrameReader {
            socket,
            buffer: BytesMut::new(),
            frame_bytes_max,
            at_end: false,
            linger: Linger::default(),
            awaits_descriptor: false,
            descriptor: None,
        }
    }

    /// From now on a descriptor that comes with a message is kept, until `take_descriptor`. Otherwise the kernel
    /// drops it.
    pub(crate) fn await_descriptor(&mut self) {
        self.awaits_descriptor = true;
    }

    /// The descriptor that has come, if one has; none is awaited any more.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.awaits_descriptor = false;
        self.descriptor.take()
    }

    /// From now on looks for more for a moment before it sleeps, where the peer has been quick.
    pub(crate) fn linger(&mut self) {
        self.linger.switch_on();
    }

    /// Bytes received and not yet taken.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the peer has ended its side.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Size in bytes of the message at the front, if its header is there.
    fn front_size(&self) -> Result<Option<usize>, ConnectionError> {
        let Some(&[tag, a, b, c, d]) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        // The length counts itself, but not the type byte.
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length < 4 {
            let tag = tag.escape_ascii();
            return Err(ConnectionError::protocol(format!(
                "message of type '{tag}' has the impossible length {length}"
            )));
        }
        if length > self.frame_bytes_max {
            return Err(ConnectionError::MessageTooLong {
                tag,
                length,
                limit: self.frame_bytes_max,
            });
        }
        Ok(Some(length + 1))
    }

    /// The type of the message at the front of the buffer, if the whole message is there.
    pub(crate) fn peek_tag(&self) -> Result<Option<u8>, ConnectionError> {
        Ok(match self.front_size()? {
            Some(size) if self.buffer.len() >= size => self.buffer.first().copied(),
            _ => None,
        })
    }

    /// The next message if all of it is in the buffer; never touches the socket.
    pub(crate) fn next_buffered(&mut self) -> Result<Option<Frame>, ConnectionError> {
        match self.front_size()? {
            Some(size) if self.buffer.len() >= size => {
                Ok(Some(Frame { raw: self.buffer.split_to(size) }))
            }
            _ => Ok(None),
        }
    }

    /// The next message. `idle` bounds the wait for its first byte, `within` each further wait; if
    /// that is none, `idle` bounds them all. A message that did not arrive in time can be waited for
    /// again. `None` means that the peer ended the connection between two messages.
    pub(crate) fn next(
        &mut self,
        idle: Deadline,
        within: Option<Duration>,
        doing: &'static str,
    ) -> Result<Option<Frame>, ConnectionError> {
        loop {
            if let Some(frame) = self.next_buffered()? {
                return Ok(Some(frame));
            }
            if self.at_end {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(ConnectionError::Closed)
                };
            }
            let deadline = match within {
                Some(timeout) if !self.buffer.is_empty() => Deadline::after(timeout),
                _ => idle,
            };
            if !deadline.is_over() && self.look_for_more()? {
                continue;
            }
            let began = Instant::now();
            self.socket.wait(true, false, deadline, doing)?;
            self.linger.waited(began.elapsed());
            self.fill()?;
        }
    }

    fn look_for_more(&mut self) -> Result<bool, ConnectionError> {
        let mut linger = std::mem::take(&mut self.linger);
        let found = linger.look(|| self.fill());
        self.linger = linger;
        found
    }

    /// Exactly `count` bytes, for the startup packet, which has no type byte.
    pub(crate) fn take_exact(
        &mut self,
        count: usize,
        deadline: Deadline,
    ) -> Result<Option<BytesMut>, ConnectionError> {
        while self.buffer.len() < count {
            if self.at_end {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(ConnectionError::Closed)
                };
            }
            self.socket.wait(true, false, deadline, "waiting for the startup packet")?;
            self.fill()?;
        }
        Ok(Some(self.buffer.split_to(count)))
    }

    /// Reads once without waiting. Says whether anything (or the end) arrived.
    pub(crate) fn fill(&mut self) -> Result<bool, ConnectionError> {
        let missing = self.front_size()?.map_or(0, |size| size.saturating_sub(self.buffer.len()));
        let room = missing.clamp(READ_BYTES_MIN, limits::READ_AHEAD_BYTES_MAX);
        if self.buffer.capacity() - self.buffer.len() < room {
            // Asking for no more than is needed would copy the buffer's tail time and again.
            self.buffer.reserve(room.max(limits::READ_CHUNK_BYTES));
        }
        let read = match self.awaits_descriptor {
            true => self.socket.recv_with_descriptor(&mut self.buffer, &mut self.descriptor)?,
            false => self.socket.recv(&mut self.buffer)?,
        };
        match read {
            Some(0) => {
                self.at_end = true;
                Ok(true)
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }
}
