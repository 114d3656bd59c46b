//! Making a page that nobody waits for.

use std::sync::Arc;

use cache::Lookup;
use postgres_formats::Lsn;

use super::Timeline;
use super::get_page::{GetPageError, PageRequest};
use super::wal_pages::WalPages;
use crate::ahead::RECORDS_MIN;
use crate::object::ObjectPage;

impl Timeline {
    /// Puts the page at `lsn` into the cache, if it would have to be made of many records. Gives how
    /// many there were; `None` where there is nothing to be gained.
    ///
    /// # Errors
    /// See `GetPageError`.
    pub(crate) fn make_ahead(
        self: &Arc<Self>,
        page: ObjectPage,
        lsn: Lsn,
    ) -> Result<Option<usize>, GetPageError> {
        self.check_lsn(lsn)?;
        let plan = self.plan_request(PageRequest { page, lsn })?;
        let records = plan.record_count();
        let Some(newest) = plan.newest.filter(|_| records >= RECORDS_MIN) else { return Ok(None) };
        if self.maker.cache.peek(&newest).is_some() {
            return Ok(None);
        }
        let job = plan.job(&mut WalPages::for_requests(1))?;
        // Nobody is kept from making it meanwhile: what idle processes do may take long.
        let made = self.maker.make_ahead(job, &self.cluster.control_file_bytes);
        let mut image = made.map_err(|source| GetPageError::Make { page, lsn, source })?;
        self.set_checksum(page, &mut image);
        if let Lookup::Make(guard) = self.maker.cache.lookup(newest) {
            self.maker.keep(guard, image);
        }
        Ok(Some(records))
    }
}
