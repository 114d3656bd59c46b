//! Buffers of requests that were answered, for those to come: memory that is in the processor's cache
//! and need not be asked for again.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use crossbeam::queue::ArrayQueue;

use crate::limits::{SPARE_BUFFER_BYTES_MAX, SPARE_BUFFERS_MAX};

/// Shared by all pools of the program: whoever writes down a request need not know its pool yet.
static SPARE: LazyLock<ArrayQueue<BytesMut>> = LazyLock::new(|| ArrayQueue::new(SPARE_BUFFERS_MAX));

/// An empty buffer with room for so many bytes.
pub fn buffer(bytes: usize) -> BytesMut {
    let mut buffer = SPARE.pop().unwrap_or_default();
    buffer.clear();
    buffer.reserve(bytes);
    buffer
}

/// Gives a buffer back, if it is worth it and nobody else uses it.
pub fn give_back(bytes: Bytes) {
    if let Ok(buffer) = bytes.try_into_mut()
        && (1..=SPARE_BUFFER_BYTES_MAX).contains(&buffer.capacity())
    {
        let _ = SPARE.push(buffer);
    }
}
