//! The bytes that a decoder has been fed and not used yet, as a queue of chunks.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// A queue of bytes whose chunks are handed out without copying where that is possible.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The chunk that bytes are taken from. Kept apart from the others because it is looked at
    /// several times for every record.
    front: Bytes,
    /// The chunks behind it, none of them empty.
    behind: VecDeque<Bytes>,
    /// Bytes in all chunks together.
    len: usize,
}

impl Input {
    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if self.front.is_empty() {
            self.front = bytes;
        } else if !bytes.is_empty() {
            self.behind.push_back(bytes);
        }
    }

    /// The next four bytes as a number; they stay.
    pub fn peek_u32(&self) -> Option<u32> {
        if let Some(bytes) = self.front.first_chunk() {
            return Some(u32::from_le_bytes(*bytes));
        }
        let mut bytes = [0; 4];
        let mut next = self.front.iter().chain(self.behind.iter().flatten());
        for byte in &mut bytes {
            *byte = *next.next()?;
        }
        Some(u32::from_le_bytes(bytes))
    }

    /// Takes the next `len` bytes in one piece, or nothing if there are fewer.
    pub fn take(&mut self, len: usize) -> Option<Bytes> {
        if len > self.len {
            return None;
        }
        if len <= self.front.len() {
            self.len -= len;
            let taken = self.front.split_to(len);
            self.refill();
            return Some(taken);
        }
        let mut joined = BytesMut::with_capacity(len);
        self.append_to(&mut joined, len as u64);
        Some(joined.freeze())
    }

    /// Moves the next `len` bytes, or as many as there are, to the end of `out`. Returns how many.
    pub fn append_to(&mut self, out: &mut BytesMut, len: u64) -> u64 {
        let mut left = len.min(self.len as u64) as usize;
        let moved = left;
        while left > 0 {
            let some = self.front.split_to(left.min(self.front.len()));
            out.extend_from_slice(&some);
            left -= some.len();
            self.len -= some.len();
            self.refill();
        }
        moved as u64
    }

    /// Drops the next `len` bytes, or as many as there are. Returns how many.
    pub fn skip(&mut self, len: u64) -> u64 {
        let mut left = len.min(self.len as u64) as usize;
        let skipped = left;
        while left > 0 {
            let some = left.min(self.front.len());
            self.front.advance(some);
            left -= some;
            self.len -= some;
            self.refill();
        }
        skipped as u64
    }

    /// Keeps the rule that `front` is empty only if there are no bytes at all.
    fn refill(&mut self) {
        if self.front.is_empty() {
            self.front = self.behind.pop_front().unwrap_or_default();
        }
    }
}
