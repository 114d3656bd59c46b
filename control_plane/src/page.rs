//! Single pages as the page server has them.

use std::time::Duration;

use pageserver_client::{ClientTimeouts, ErrorCode, PageClient, PageClientError, Point};
use postgres_formats::{BlockNumber, Lsn, PageImage, RelTag};

use crate::control::causes;
use crate::error::{Error, Result};
use crate::repository::Repository;

/// How much longer than the page server's own patience we wait for its answer, so that its error,
/// which names the positions, comes first.
const ANSWER_MARGIN: Duration = Duration::from_secs(30);

/// A page at a point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageAt {
    /// The LSN that the point meant. The page's own is that of its last change.
    pub lsn: Lsn,
    /// The page.
    pub image: PageImage,
}

impl Repository {
    /// The page `block` of `rel` at `point`; no compute is needed.
    pub fn page(&self, point: &Point, rel: RelTag, block: BlockNumber) -> Result<PageAt> {
        let (branch, point) = self.locate(point)?;
        let lsn = self.lsn_of(&branch, &point)?;
        let patience = Duration::from_secs(self.config().lsn_timeout_seconds);
        let timeouts =
            ClientTimeouts { response: patience + ANSWER_MARGIN, ..ClientTimeouts::default() };
        let image = PageClient::connect(&self.server_address()?.unix, branch.timeline, timeouts)
            .and_then(|mut client| client.get_page(rel, block, lsn))
            .map_err(page_error)?;
        Ok(PageAt { lsn, image })
    }
}

pub(crate) fn page_error(error: PageClientError) -> Error {
    let (code, message) = match error {
        PageClientError::Refused { code, message } => (code, message),
        other => {
            return Error::Connection { what: "page server".to_owned(), detail: causes(&other) };
        }
    };
    // The codes that the page service gives for the same reasons to commands.
    let sqlstate = match code {
        ErrorCode::LsnTimeout => return Error::Timeout(message),
        ErrorCode::NotFound => "42704",
        ErrorCode::BelowHorizon => "22023",
        ErrorCode::Corrupt => "XX001",
        ErrorCode::ShuttingDown => "57P01",
        ErrorCode::Busy => "53300",
        ErrorCode::Internal => "XX000",
        ErrorCode::Fenced => "ZF001",
    };
    Error::PageServer { sqlstate: sqlstate.to_owned(), message }
}
