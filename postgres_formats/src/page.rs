//! A page image and the header fields that storage has to know.
//!
//! Source: PostgreSQL `storage/bufpage.h`.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::Lsn;

/// Size in bytes of a page (PostgreSQL's `BLCKSZ`, fixed at its default).
pub const BLCKSZ: usize = 8192;

/// Size in bytes of a page's header.
const HEADER_BYTES: usize = 24;

/// The bytes of one page, on the heap, exactly `BLCKSZ` of them.
#[derive(Clone, PartialEq, Eq)]
pub struct PageImage(Box<[u8; BLCKSZ]>);

impl PageImage {
    /// A page of zeros, which is how PostgreSQL leaves a page that was never written.
    pub fn zeroed() -> PageImage {
        PageImage(vec![0; BLCKSZ].into_boxed_slice().try_into().expect("length is BLCKSZ"))
    }

    /// A copy of `bytes`, or `None` if there are not exactly `BLCKSZ` of them.
    pub fn from_slice(bytes: &[u8]) -> Option<PageImage> {
        let boxed: Box<[u8]> = bytes.into();
        boxed.try_into().ok().map(PageImage)
    }

    /// Whether PostgreSQL takes the page for one never initialised (`PageIsNew`).
    pub fn is_new(&self) -> bool {
        is_new(self)
    }

    /// `pd_lsn`: the end of the last WAL record that changed the page.
    pub fn lsn(&self) -> Lsn {
        let half = |at: usize| {
            u64::from(u32::from_le_bytes([
                self.0[at],
                self.0[at + 1],
                self.0[at + 2],
                self.0[at + 3],
            ]))
        };
        Lsn::new(half(0) << 32 | half(4))
    }

    /// Makes the header that of a page without rows and without special space (`PageInit`).
    pub fn init_header(&mut self) {
        self.0[..HEADER_BYTES].fill(0);
        let mut field = |at: usize, value: usize| {
            self.0[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        };
        // pd_lower, pd_upper, pd_special, and the size with the version of the layout.
        field(12, HEADER_BYTES);
        field(14, BLCKSZ);
        field(16, BLCKSZ);
        field(18, BLCKSZ | 4);
    }

    /// Sets `pd_lsn`.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        let n = lsn.as_u64();
        self.0[0..4].copy_from_slice(&((n >> 32) as u32).to_le_bytes());
        self.0[4..8].copy_from_slice(&(n as u32).to_le_bytes());
    }
}

/// Whether `pd_upper` is zero.
pub(crate) fn is_new(page: &[u8; BLCKSZ]) -> bool {
    page[14] == 0 && page[15] == 0
}

impl Deref for PageImage {
    type Target = [u8; BLCKSZ];
    fn deref(&self) -> &[u8; BLCKSZ] {
        &self.0
    }
}

impl DerefMut for PageImage {
    fn deref_mut(&mut self) -> &mut [u8; BLCKSZ] {
        &mut self.0
    }
}

impl fmt::Debug for PageImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageImage(lsn {})", self.lsn())
    }
}
