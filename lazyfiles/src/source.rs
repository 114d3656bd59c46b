//! Where absent blocks come from.

use bytes::Bytes;
use postgres_formats::{BlockNumber, RelTag};

use crate::errno::Errno;

/// Why pages could not be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchError {
    /// It was tried, and there is no hope or no time left.
    #[error("{0}")]
    Failed(String),
    /// PostgreSQL wants the process to stop what it is doing.
    #[error("canceled while waiting for the page server")]
    Canceled,
}

impl FetchError {
    /// What the system call that needed the pages is to return.
    pub fn errno(&self) -> Errno {
        match self {
            FetchError::Failed(_) => Errno(libc::EIO),
            // Not EINTR, upon which PostgreSQL would try again at once.
            FetchError::Canceled => Errno(libc::ECANCELED),
        }
    }
}

/// Gives pages as they were at the compute's base LSN.
pub trait PageSource {
    /// Pages from `first` on, one after the other, at least one: normally `count` of them, but what
    /// was hinted at may be fewer or more. Blocks until they are there.
    fn pages(&mut self, rel: RelTag, first: BlockNumber, count: u16) -> Result<Bytes, FetchError>;

    /// So many pages from `first` on will probably be asked for soon. Does not wait.
    fn hint(&mut self, rel: RelTag, first: BlockNumber, count: u16);
}
