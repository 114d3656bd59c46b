//! `SharedMemory`: how much memory things of one kind take together, as they say themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A sum of bytes.
#[derive(Debug, Default)]
pub struct SharedMemory {
    bytes: AtomicU64,
}

impl SharedMemory {
    /// The sum in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Something that takes so many bytes as long as there is what this gives.
    pub fn share(self: &Arc<SharedMemory>, bytes: u64) -> MemoryShare {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        MemoryShare { bytes, of: self.clone() }
    }

    /// The same, if the sum is at most `bytes_max` with it.
    pub fn share_within(
        self: &Arc<SharedMemory>,
        bytes: u64,
        bytes_max: u64,
    ) -> Option<MemoryShare> {
        let room = |taken: u64| Some(taken.saturating_add(bytes)).filter(|sum| *sum <= bytes_max);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(MemoryShare { bytes, of: self.clone() })
    }
}

/// A part of the sum.
#[derive(Debug)]
pub struct MemoryShare {
    bytes: u64,
    of: Arc<SharedMemory>,
}

impl MemoryShare {
    /// How large it is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_counts_as_long_as_it_is_there() {
        let all = Arc::new(SharedMemory::default());
        let first = all.share(3);
        let second = all.share(4);
        assert_eq!((all.bytes(), first.bytes()), (7, 3));
        drop(first);
        assert_eq!(all.bytes(), 4);
        drop(second);
        assert_eq!(all.bytes(), 0);
    }
}
