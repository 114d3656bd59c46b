//! Decides on pages that are not equal byte by byte.

use postgres_formats::control_file::CONTROL_FILE_PATH;
use postgres_formats::{BlockNumber, ForkNumber, PageImage, RelTag};
use walredo_pool::MaskKind;

use super::catalog::Catalog;
use super::masked::{Pair, Sides};
use super::masks::Masks;
use super::pages::Suspects;
use super::report::{Difference, Verification};
use super::scratch::Scratch;
use super::stock::StockServer;
use super::undecided::{Counter, Subject};
use super::unlogged;
use super::{VerifyStep, Watcher};
use crate::error::{IoContext, Result};
use crate::repository::Repository;

/// Progress is told once in so many pages.
const TELL_EVERY: u64 = 64;

/// PostgreSQL's masks, and what the catalogs say.
pub(super) struct Judge {
    masks: Masks,
    catalog: Catalog,
    /// The other side is a compute, which has on its pages what is not logged.
    of_compute: bool,
}

impl Judge {
    pub fn new(
        repository: &Repository,
        scratch: &Scratch,
        stock: &StockServer,
        catalog: Catalog,
    ) -> Result<Judge> {
        let control = stock.pgdata().join(CONTROL_FILE_PATH);
        let control_file = std::fs::read(&control).io("read", &control)?;
        let masks = Masks::new(repository, scratch, control_file)?;
        Ok(Judge { masks, catalog, of_compute: false })
    }

    /// For a compute, whose catalogs cannot be asked: pages tell what they are.
    pub fn of_compute(masks: Masks) -> Judge {
        Judge { masks, catalog: Catalog::default(), of_compute: true }
    }

    /// Looks at all of them.
    pub fn judge(
        &self,
        suspects: Suspects,
        watcher: &mut Watcher<'_>,
        report: &mut Verification,
    ) -> Result<()> {
        let total = suspects.pages.len() as u64;
        let mut done = 0;
        suspects.each(|rel, block, ours, theirs| {
            if done % TELL_EVERY == 0 {
                watcher.tell(VerifyStep::Judging { done, total })?;
            }
            done += 1;
            self.decide(rel, block, ours, theirs, report)
        })
    }

    fn decide(
        &self,
        rel: RelTag,
        block: BlockNumber,
        ours: &PageImage,
        theirs: &PageImage,
        report: &mut Verification,
    ) -> Result<()> {
        let mask = match rel.fork {
            ForkNumber::Main | ForkNumber::Init => self.catalog.mask(rel.locator(), theirs),
            // A visibility map is nothing but its bits.
            ForkNumber::Vm | ForkNumber::Fsm => MaskKind::PageHeader,
        };
        if self.of_compute
            && let Some(reason) = unlogged::explain(rel, block, mask, ours, theirs)
        {
            report.permit(reason, 1);
            return Ok(());
        }
        let sides = if self.of_compute { Sides::Server } else { Sides::SameRecords };
        let pair = Pair { mask, sides, block, at: report.lsn, ours, theirs };
        let detail = match self.masks.begin(pair).finish()? {
            Ok(reasons) => {
                report.pages.add_masked(&reasons);
                return Ok(());
            }
            Err(detail) => detail,
        };
        let difference = Difference {
            kind: "page",
            relation: Some(rel),
            name: self.catalog.name(rel.locator()).map(str::to_owned),
            block: Some(block),
            our_lsn: Some(ours.lsn()),
            their_lsn: Some(theirs.lsn()),
            detail,
            ..Difference::default()
        };
        report.differs(Counter::Pages, Subject::Relation(rel.locator()), difference);
        Ok(())
    }
}
