//! Bytes on their way to a process.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes, BytesMut};

use crate::spare;

/// Shorter pieces are copied together: one system call for many beats a call's argument for each.
pub const COPY_BYTES_MAX: usize = 4096;

/// Pieces given to one `writev`; the system's limit is higher, more do not help.
const WRITE_PIECES_MAX: usize = 64;

/// What messages are written to.
pub trait Out {
    /// Appends a copy of `bytes`.
    fn copy(&mut self, bytes: &[u8]);

    /// Appends `bytes`, perhaps without copying them if they are many.
    fn append(&mut self, bytes: &Bytes);
}

impl Out for BytesMut {
    fn copy(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn append(&mut self, bytes: &Bytes) {
        self.extend_from_slice(bytes);
    }
}

/// A queue of bytes: short pieces are copied, long ones shared.
#[derive(Default)]
pub struct Outbox {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Outbox {
    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends all that is in `other`, without copying it where it is much.
    pub fn append_all(&mut self, other: &Sealed) {
        other.0.iter().for_each(|piece| self.append(piece));
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// Writes as much as `to` takes at once.
    pub fn write_to(&mut self, to: &mut impl Write) -> io::Result<()> {
        while self.len > 0 {
            self.seal();
            let slices: Vec<IoSlice<'_>> = self
                .pieces
                .iter()
                .take(WRITE_PIECES_MAX)
                .map(|piece| IoSlice::new(piece))
                .collect();
            match to.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.len = self.len.saturating_sub(written);
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
    }
}

impl Out for Outbox {
    fn copy(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    fn append(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_BYTES_MAX {
            self.copy(bytes);
        } else {
            self.seal();
            self.len += bytes.len();
            self.pieces.push_back(bytes.clone());
        }
    }
}

/// Bytes that do not change any more. Their memory is used again afterwards.
pub struct Sealed(Vec<Bytes>);

impl Sealed {
    /// A piece, and what comes behind it.
    pub fn new(first: Bytes, rest: Option<Outbox>) -> Sealed {
        let mut pieces = vec![first];
        if let Some(mut rest) = rest {
            rest.seal();
            pieces.extend(rest.pieces);
        }
        Sealed(pieces)
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// A copy as one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.0.drain(..).for_each(spare::give_back);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Takes a few bytes at a time, then would block.
    struct Narrow(Vec<u8>, usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.extend_from_slice(&bytes[..count]);
            self.1 -= count;
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_in_order_through_a_narrow_pipe() {
        let mut out = Outbox::default();
        let mut expected = Vec::new();
        let mut pipe = Narrow(Vec::new(), 0);
        for n in 0..200usize {
            let bytes = Bytes::from(vec![n as u8; (n * 37) % 9000]);
            out.append(&bytes);
            expected.extend_from_slice(&bytes);
            pipe.1 = 1000;
            out.write_to(&mut pipe).unwrap();
            assert_eq!(pipe.0.len() + out.len(), expected.len());
        }
        pipe.1 = usize::MAX;
        out.write_to(&mut pipe).unwrap();
        assert!(out.is_empty());
        assert_eq!(pipe.0, expected);
    }
}
