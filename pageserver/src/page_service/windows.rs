//! The windows of all page streams: memory shared with clients on this machine (`pageserver_client::window`).
//!
//! What clients make the server hold by them is bounded. Who finds no room gets its pages over its socket.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pageserver_client::window::ServerWindow;
use postgres_formats::BLCKSZ;

use crate::memory::{MemoryShare, SharedMemory};
use crate::page::Page;

/// The most bytes that all windows have together. A compute's process has one of 2.5 MiB once it has read 64 pages.
const BYTES_MAX: u64 = 128 << 20;

/// How much memory all windows take.
#[derive(Debug, Default)]
pub(super) struct Windows {
    memory: Arc<SharedMemory>,
}

/// One window, for as long as its stream.
#[derive(Debug)]
pub(super) struct Window {
    // First gone, then not counted.
    memory: ServerWindow,
    _share: MemoryShare,
}

impl Windows {
    /// One of `pages` pages, with the descriptor for the client.
    ///
    /// # Errors
    /// There is no more room, or the system refuses.
    pub(super) fn open(&self, pages: u16) -> io::Result<(Window, OwnedFd)> {
        let share = self.memory.share_within(bytes_of(pages), BYTES_MAX).ok_or_else(|| {
            io::Error::new(io::ErrorKind::OutOfMemory, "there are enough windows")
        })?;
        let (memory, descriptor) = ServerWindow::create(pages)?;
        Ok((Window { memory, _share: share }, descriptor))
    }
}

fn bytes_of(pages: u16) -> u64 {
    u64::from(pages) * BLCKSZ as u64
}

impl Window {
    /// Puts pages from `place` on; `false` if that is not within the window.
    pub(super) fn put(&self, place: u16, pages: &[Page]) -> bool {
        self.memory.put(place, pages)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use pageserver_client::window::WINDOW_PAGES_MAX;

    use super::*;

    #[test]
    fn all_together_have_a_bound() {
        let windows = Windows::default();
        let count = BYTES_MAX / bytes_of(WINDOW_PAGES_MAX);
        let mut open: Vec<_> =
            (0..count).map(|_| windows.open(WINDOW_PAGES_MAX).unwrap().0).collect();
        assert!(windows.open(1).is_err());
        drop(open.pop());
        open.push(windows.open(WINDOW_PAGES_MAX).unwrap().0);
        drop(open);
        assert_eq!(windows.memory.bytes(), 0);
    }
}
