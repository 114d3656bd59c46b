//! `Page`: a page that is given out, wherever its bytes are.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use postgres_formats::{BLCKSZ, PageImage};

/// A page that is given out: shared with the cache of pages, or a part of a layer's block as that is in the cache of
/// blocks. Either stays in memory for as long as somebody holds the page.
#[derive(Clone, Debug)]
pub enum Page {
    /// One that was made.
    Made(Arc<PageImage>),
    /// One that a layer has.
    Kept(KeptPage),
}

/// The bytes of a page in a layer: exactly `BLCKSZ` of them.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptPage(Bytes);

impl KeptPage {
    /// `None` if these are not as many bytes as a page has.
    pub fn new(bytes: Bytes) -> Option<KeptPage> {
        (bytes.len() == BLCKSZ).then_some(KeptPage(bytes))
    }

    /// A copy of it.
    pub fn to_image(&self) -> PageImage {
        let mut image = PageImage::zeroed();
        image.copy_from_slice(&self.0);
        image
    }
}

impl Page {
    /// A page of zeros.
    pub fn zeros() -> Page {
        static ZEROS: OnceLock<Arc<PageImage>> = OnceLock::new();
        Page::Made(ZEROS.get_or_init(|| Arc::new(PageImage::zeroed())).clone())
    }

    /// The page by itself: copied, if it is a part of something larger.
    pub fn into_image(self) -> Arc<PageImage> {
        match self {
            Page::Made(image) => image,
            Page::Kept(page) => Arc::new(page.to_image()),
        }
    }
}

impl Deref for KeptPage {
    type Target = [u8; BLCKSZ];

    fn deref(&self) -> &[u8; BLCKSZ] {
        self.0.first_chunk().unwrap_or_else(|| unreachable!("it was made of so many bytes"))
    }
}

impl std::fmt::Debug for KeptPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptPage")
    }
}

impl Deref for Page {
    type Target = [u8; BLCKSZ];

    fn deref(&self) -> &[u8; BLCKSZ] {
        match self {
            Page::Made(image) => image,
            Page::Kept(page) => page,
        }
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self[..]
    }
}
