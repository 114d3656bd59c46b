//! The outgoing side of a connection: messages are gathered and written together.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};

use crate::error::ConnectionError;
use crate::limits;
use crate::socket::{Deadline, WireSocket};

/// What a writer does while the kernel takes no more; see `WireSocket::send_all`.
pub(crate) type WhileWaiting<'a> = &'a mut dyn FnMut(bool) -> Result<bool, ConnectionError>;

/// Gathers messages and writes them when there are enough, or when asked to.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    socket: Arc<WireSocket>,
    buffer: BytesMut,
    timeout: Option<Duration>,
    /// A write ended inside a message, so that nothing can follow it.
    torn: bool,
    /// Sent when dropped, if it can be without waiting: a client's goodbye.
    last_words: &'static [u8],
    /// The process that may say it. A forked child which drops its copy must not speak for its
    /// parent, whose connection it is.
    owner_pid: u32,
}

impl FrameWriter {
    /// `timeout` bounds how long the peer may take nothing of what is written.
    pub(crate) fn new(socket: Arc<WireSocket>, timeout: Option<Duration>) -> FrameWriter {
        FrameWriter {
            socket,
            buffer: BytesMut::new(),
            timeout,
            torn: false,
            last_words: &[],
            owner_pid: 0,
        }
    }

    pub(crate) fn set_last_words(&mut self, last_words: &'static [u8]) {
        self.last_words = last_words;
        self.owner_pid = std::process::id();
    }

    pub(crate) fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    pub(crate) fn socket(&self) -> &Arc<WireSocket> {
        &self.socket
    }

    /// Where `postgres-protocol` appends its messages.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// One CopyData message of all `parts`. Short ones are gathered, long ones go to the kernel at
    /// once together with what was gathered, uncopied.
    pub(crate) fn copy_data(
        &mut self,
        parts: &[&[u8]],
        while_waiting: WhileWaiting<'_>,
    ) -> Result<(), ConnectionError> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(size + 4).ok().filter(|&n| n <= i32::MAX as u32);
        let Some(length) = length else {
            return Err(ConnectionError::protocol(format!("CopyData of {size} bytes")));
        };
        self.buffer.put_u8(b'd');
        self.buffer.put_u32(length);
        if self.buffer.len() + size <= limits::WRITE_BUFFER_BYTES {
            for part in parts {
                self.buffer.put_slice(part);
            }
            return Ok(());
        }
        self.write_out(parts, while_waiting)
    }

    /// CopyData messages, each of a head and parts, together with what was gathered, all of it uncopied. Once the
    /// kernel has taken nothing for as long as `patience`, the rest of the message it is in is kept, to
    /// leave with the next flush, and those behind it are not sent. Gives how many were, or will be.
    pub(crate) fn copy_data_together<H: AsRef<[u8]>, P: AsRef<[u8]>>(
        &mut self,
        messages: &[(H, &[P])],
        patience: Duration,
    ) -> Result<usize, ConnectionError> {
        if self.torn {
            return Err(ConnectionError::Closed);
        }
        if self.socket.is_stopped() {
            return Err(ConnectionError::Stopped);
        }
        let gathered = self.buffer.len();
        let mut heads = Vec::with_capacity(messages.len());
        for (head, parts) in messages {
            let size =
                head.as_ref().len() + parts.iter().map(|part| part.as_ref().len()).sum::<usize>();
            let length = u32::try_from(size + 4).ok().filter(|&n| n <= i32::MAX as u32);
            let Some(length) = length else {
                self.buffer.truncate(gathered);
                return Err(ConnectionError::protocol(format!("CopyData of {size} bytes")));
            };
            self.buffer.put_u8(b'd');
            self.buffer.put_u32(length);
            self.buffer.put_slice(head.as_ref());
            heads.push(self.buffer.len());
        }
        // What was gathered leaves with the first head.
        let head_of = |number: usize| {
            let from = number.checked_sub(1).and_then(|before| heads.get(before));
            let upto = heads.get(number).copied().unwrap_or_default();
            self.buffer.get(from.copied().unwrap_or(0)..upto).unwrap_or_default()
        };
        let count = messages.iter().map(|(_, parts)| parts.len() + 1).sum();
        let mut slices = Vec::with_capacity(count);
        for (number, (_, parts)) in messages.iter().enumerate() {
            slices.push(IoSlice::new(head_of(number)));
            slices.extend(parts.iter().map(|part| IoSlice::new(part.as_ref())));
        }
        let sent = self.socket.send_within(&mut slices, patience);
        let mut behind = match sent {
            Ok(sent) => sent,
            Err(error) => {
                self.torn = true;
                self.buffer.clear();
                return Err(error);
            }
        };
        let (mut done, mut rest) = (0, BytesMut::new());
        for (number, (_, parts)) in messages.iter().enumerate() {
            if behind == 0 {
                break;
            }
            done += 1;
            let parts = parts.iter().map(|part| part.as_ref());
            for part in std::iter::once(head_of(number)).chain(parts) {
                let taken = behind.min(part.len());
                behind -= taken;
                rest.put_slice(part.get(taken..).unwrap_or_default());
            }
        }
        if done == 0 {
            rest.put_slice(self.buffer.get(..gathered).unwrap_or_default());
        }
        self.buffer = rest;
        Ok(done)
    }

    /// One short CopyData message that takes a descriptor along, behind everything gathered.
    pub(crate) fn copy_data_with_descriptor(
        &mut self,
        body: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), ConnectionError> {
        debug_assert!(body.len() < limits::WRITE_BUFFER_BYTES / 2, "a short message");
        self.flush()?;
        self.copy_data(&[body], &mut |_| Ok(false))?;
        let deadline = Deadline::after_option(self.timeout);
        let sent = loop {
            match self.socket.send_with_descriptor(&self.buffer, descriptor) {
                Ok(None) => match self.socket.wait(false, true, deadline, "sending") {
                    Ok(_) => {}
                    Err(error) => break Err(error),
                },
                Ok(Some(0)) => break Err(ConnectionError::Closed),
                Ok(Some(count)) => break Ok(count),
                Err(error) => break Err(error),
            }
        };
        match sent {
            // The descriptor has left with the first bytes.
            Ok(count) => {
                self.buffer.advance(count);
                self.flush()
            }
            Err(error) => {
                self.torn = true;
                self.buffer.clear();
                Err(error)
            }
        }
    }

    /// Writes everything gathered, and waits until the kernel takes more.
    pub(crate) fn wait_for_room(&mut self) -> Result<(), ConnectionError> {
        self.flush()?;
        let deadline = Deadline::after_option(self.timeout);
        self.socket.wait(false, true, deadline, "sending").map(drop)
    }

    /// Writes what was gathered if it is enough to be worth a call.
    pub(crate) fn flush_if_full(&mut self) -> Result<(), ConnectionError> {
        if self.buffer.len() >= limits::WRITE_BUFFER_BYTES / 2 { self.flush() } else { Ok(()) }
    }

    /// Writes everything gathered.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionError> {
        self.flush_with(&mut |_| Ok(false))
    }

    /// As `flush`; `while_waiting` may read meanwhile.
    pub(crate) fn flush_with(
        &mut self,
        while_waiting: WhileWaiting<'_>,
    ) -> Result<(), ConnectionError> {
        if self.buffer.is_empty() { Ok(()) } else { self.write_out(&[], while_waiting) }
    }

    fn write_out(
        &mut self,
        parts: &[&[u8]],
        while_waiting: WhileWaiting<'_>,
    ) -> Result<(), ConnectionError> {
        if self.torn {
            return Err(ConnectionError::Closed);
        }
        if self.socket.is_stopped() {
            // Without parts the buffer holds whole messages, to which a farewell can be added.
            self.torn = !parts.is_empty();
            return Err(ConnectionError::Stopped);
        }
        let mut slices = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&self.buffer));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let sent = self.socket.send_all(&mut slices, self.timeout, while_waiting);
        self.torn = sent.is_err();
        self.buffer.clear();
        sent
    }

    /// Whether an earlier write failed, so that the connection is of no more use.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Last words to a peer that may no longer listen: `fill` appends them.
    pub(crate) fn farewell(&mut self, fill: impl FnOnce(&mut BytesMut)) {
        if !self.torn {
            fill(&mut self.buffer);
            self.socket.send_farewell(&self.buffer);
            self.torn = true;
        }
        self.buffer.clear();
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        let speak = !self.last_words.is_empty() && !self.torn && self.buffer.is_empty();
        if speak && self.owner_pid == std::process::id() {
            // One attempt: whoever drops a connection does not want to be held up.
            let _ = self.socket.send(&[IoSlice::new(self.last_words)]);
        }
    }
}

/// Appends one message to `out`: type byte, length, and the body that `fill` writes.
pub(crate) fn put_message(out: &mut BytesMut, tag: u8, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    fill(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    assert!(length <= i32::MAX as u32, "a message of our own making fits its length word");
    if let Some(word) = out.get_mut(at..at + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a zero-terminated string; anything from an inner zero byte on is left out, for it would
/// be taken for the next field.
pub(crate) fn put_cstr(out: &mut BytesMut, text: &str) {
    let text = text.split('\0').next().unwrap_or_default();
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}
