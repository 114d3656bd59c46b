//! Where absent blocks come from.

use crate::errno::Errno;
use crate::segment_file::Object;
use bytes::Bytes;

/// Why pages could not be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchError {
    /// It was tried, and there is no hope or no time left.
    #[error("{0}")]
    Failed(String),
    /// The state at the base LSN has no such pages, although there were some when the compute was made:
    /// they were cut off or dropped in between.
    #[error("{0}")]
    NotThere(String),
    /// PostgreSQL wants the process to stop what it is doing.
    #[error("canceled while waiting for the page server")]
    Canceled,
}

impl FetchError {
    /// What the system call that needed the pages is to return.
    pub fn errno(&self) -> Errno {
        match self {
            FetchError::Failed(_) | FetchError::NotThere(_) => Errno(libc::EIO),
            // Not EINTR, upon which PostgreSQL would try again at once.
            FetchError::Canceled => Errno(libc::ECANCELED),
        }
    }
}

/// Gives pages as they were at the compute's base LSN.
pub trait PageSource {
    /// Pages from `first` on, one after the other, at least one: normally `count` of them, but what
    /// was hinted at may be fewer or more. Blocks until they are there. Not there if any of `count`
    /// is not.
    fn pages(&mut self, object: Object, first: u32, count: u16) -> Result<Bytes, FetchError>;

    /// So many pages from `first` on will probably be asked for soon. Does not wait. Gives the number of
    /// the page up to which they are asked for, now or by a hint before; `first` if there is no room.
    fn hint(&mut self, object: Object, first: u32, count: u16) -> u32;

    /// Whether a page has been asked for by a hint, so that it is here or on its way.
    fn is_hinted(&self, object: Object, page: u32) -> bool;

    /// Pages from `first` on that were hinted at, if they are here. Does not wait, and never fails: what is not here is
    /// to be asked for by whoever needs it.
    fn take_hinted(&mut self, _object: Object, _first: u32) -> Option<Bytes> {
        None
    }

    /// Lets hints leave that are kept back so that several leave together. They leave by themselves when
    /// there are some more, or when somebody waits for a page.
    fn send_hints(&mut self);
}
