//! Decides on pages that are not equal byte by byte.

use std::time::Duration;

use postgres_formats::control_file::CONTROL_FILE_PATH;
use postgres_formats::{BlockNumber, ForkNumber, PageImage, RelTag};
use slog::{Discard, Logger, o};
use walredo_pool::{Account, MaskKind, WalRedoConfig, WalRedoPool};

use super::catalog::Catalog;
use super::pages::Suspects;
use super::report::{Difference, Verification};
use super::scratch::Scratch;
use super::stock::StockServer;
use super::{VerifyStep, Watcher};
use crate::companions;
use crate::error::{Error, IoContext, Result};
use crate::repository::Repository;

/// How long one mask may take, the start of the process included.
const MASK_TIMEOUT: Duration = Duration::from_secs(30);
/// Progress is told once in so many pages.
const TELL_EVERY: u64 = 64;

/// PostgreSQL's masks, and what the catalogs say.
pub(super) struct Judge {
    pool: WalRedoPool,
    catalog: Catalog,
}

impl Judge {
    pub fn new(
        repository: &Repository,
        scratch: &Scratch,
        stock: &StockServer,
        catalog: Catalog,
    ) -> Result<Judge> {
        let control = stock.pgdata().join(CONTROL_FILE_PATH);
        let (uid, gid) = repository.account().ids();
        let config = WalRedoConfig {
            postgres_bin_dir: repository.config().pg_bin_dir.clone(),
            module_path: repository.library(companions::WALREDO),
            work_dir: scratch.folder("masks")?,
            control_file: std::fs::read(&control).io("read", &control)?,
            processes: 1,
            account: repository.account().must_switch().then_some(Account { uid, gid }),
            request_timeout: MASK_TIMEOUT,
        };
        let pool = WalRedoPool::new(config, Logger::root(Discard, o!())).map_err(masks_failed)?;
        Ok(Judge { pool, catalog })
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
        let masked = |page| self.pool.mask_page(mask, page, block).map_err(masks_failed);
        let (our_bits, their_bits) = (masked(ours)?, masked(theirs)?);
        let mut differing =
            our_bits.iter().zip(their_bits.iter()).enumerate().filter(|(_, (a, b))| a != b);
        let Some((first, _)) = differing.next() else {
            report.pages.masked_equal += 1;
            return Ok(());
        };
        let count = differing.count() + 1;
        report.pages.different += 1;
        report.describe(Difference {
            kind: "page",
            relation: Some(rel),
            name: self.catalog.name(rel.locator()).map(str::to_owned),
            block: Some(block),
            our_lsn: Some(ours.lsn()),
            their_lsn: Some(theirs.lsn()),
            detail: format!("{count} bytes from byte {first} on"),
        });
        Ok(())
    }
}

fn masks_failed(error: impl std::error::Error) -> Error {
    Error::Program {
        program: "postgres with PostgreSQL's masks".to_owned(),
        detail: crate::control::causes(&error),
    }
}
