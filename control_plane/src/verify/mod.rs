//! `Repository::verify`: every page as the page server has it against a stock server's own files.
//!
//! The stock server recovers from the base image and the raw WAL alone (`pageserver materialize`), or, where
//! WAL was removed, from what the page server had where the WAL begins that is kept (`crashed`).
//! Of the pages that are not equal byte by byte PostgreSQL's own masks decide, which leave out what
//! WAL does not promise; which mask a page needs is asked of the stock server's catalogs. What a mask
//! has left out must have a reason (`masked`).

mod backup;
mod catalog;
mod commit_ts;
mod compute;
mod counters;
mod crashed;
mod deep;
mod directory;
mod free_space;
mod judge;
mod masked;
mod masks;
mod pages;
mod records;
mod report;
mod scratch;
mod scrub;
mod stock;
mod throw_away;
mod undecided;
mod unlogged;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pageserver_client::{PageClient, Point};
use postgres_formats::control_file::CONTROL_FILE_PATH;
use postgres_formats::{ForkNumber, Lsn, TimelineId};

use crate::branch::{Branch, check_name};
use crate::companions;
use crate::error::{Error, Result};
use crate::leases::ReadLease;
use crate::repository::Repository;
use backup::Backup;
use directory::DataDirectory;
use judge::Judge;
use pages::PageComparison;
use scratch::Scratch;
use stock::StockServer;

pub use deep::{AmcheckCounts, ChecksumCounts, DeepCounts, DumpCounts};
pub use masked::Masked;
pub use records::{ManagerCounts, RecordsVerification};
pub use report::{Count, Difference, PageCounts, Permitted, Seconds, Verification};
pub use scrub::FilesVerification;

/// What a verification is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifyStep {
    /// The files of the branch are read.
    Reading,
    /// Copying the base image and the WAL.
    Copying,
    /// The stock server recovers.
    Recovering,
    /// Pages are compared.
    Comparing {
        /// How many have been.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// Images in WAL records are compared with pages.
    Records {
        /// Bytes of WAL that have been looked at.
        done: u64,
        /// Bytes of WAL that there are.
        total: u64,
    },
    /// Pages that are not equal are looked at under masks.
    Judging {
        /// How many have been.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// Checksums of pages are computed.
    Checksums {
        /// How many have been.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// A compute and the stock server start.
    Starting,
    /// Dumps are compared.
    Dumping {
        /// Bytes that have been.
        bytes: u64,
    },
    /// `pg_amcheck` runs.
    Amcheck,
}

/// Who wants to know how far a verification is, and may stop it.
pub struct Watcher<'w> {
    /// Told at each step and often within the longer ones.
    pub progress: &'w mut dyn FnMut(VerifyStep),
    /// Once it is set the verification ends with an error, soon and cleaned up.
    pub interrupted: &'w AtomicBool,
}

impl Watcher<'_> {
    fn tell(&mut self, step: VerifyStep) -> Result<()> {
        (self.progress)(step);
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Conflict("interrupted".to_owned()));
        }
        Ok(())
    }
}

/// How often history is asked for anew that was removed before it was held.
const HOLD_ATTEMPTS_MAX: usize = 3;

/// A verification of a point that has begun.
struct Begun {
    branch: Branch,
    lsn: Lsn,
    /// A page stream that has the WAL up to there.
    client: PageClient,
    /// From here on everything can be asked for, or, if that is behind `lsn`, only there.
    oldest: Lsn,
    /// Which is so for as long as this lives.
    _lease: ReadLease,
}

impl Repository {
    /// Compares everything that the page server has at `point`, by default the end of the default
    /// branch, with what stock PostgreSQL makes of the same base image and WAL, or of the WAL that is
    /// kept (`Verification::since`). Differences are no error. All files of the branch are read before, as `verify_files` does: where one is damaged,
    /// nothing else is compared.
    pub fn verify(&self, point: Option<&Point>, watcher: &mut Watcher<'_>) -> Result<Verification> {
        self.verify_against_stock(point, false, watcher)
    }

    /// The same, and then what PostgreSQL itself says of it: `pg_amcheck` on a throw-away compute,
    /// the checksums of all pages, and `pg_dumpall` of that compute and of the stock server, which
    /// must be equal.
    pub fn verify_deep(
        &self,
        point: Option<&Point>,
        watcher: &mut Watcher<'_>,
    ) -> Result<Verification> {
        deep::check_programs(self)?;
        self.verify_against_stock(point, true, watcher)
    }

    /// What every verification of a point begins with; the point is by default the end of the default
    /// branch.
    fn begin_verification(&self, point: Option<&Point>) -> Result<Begun> {
        let point = match point {
            Some(point) => point.clone(),
            None => Point::end_of(check_name(&self.config().default_branch)?),
        };
        let (branch, point) = self.locate(&point)?;
        let lsn = self.lsn_of(&branch, &point)?;
        let server = self.server_address()?.unix;
        let client = pages::connect(self, &server, branch.timeline, lsn)?;
        companions::install_libraries(&self.dir().join("lib"), self.account())?;
        let (oldest, lease) = self.hold_history(branch.timeline, lsn)?;
        Ok(Begun { branch, lsn, client, oldest, _lease: lease })
    }

    /// Has all history kept that a verification at `lsn` may ask for, and gives from where on that is.
    fn hold_history(&self, timeline: TimelineId, lsn: Lsn) -> Result<(Lsn, ReadLease)> {
        let mut attempts = 0;
        loop {
            let oldest = self.oldest_lsn(timeline)?;
            // A point for which history is kept before all that can be asked for.
            let (from, since) = if lsn < oldest { (lsn, false) } else { (oldest, true) };
            match self.read_lease("verify", timeline, from, since) {
                // Some was removed just now.
                Err(Error::PageServer { .. }) if attempts < HOLD_ATTEMPTS_MAX => attempts += 1,
                lease => return Ok((oldest, lease?)),
            }
        }
    }

    fn verify_against_stock(
        &self,
        point: Option<&Point>,
        is_deep: bool,
        watcher: &mut Watcher<'_>,
    ) -> Result<Verification> {
        let Begun { branch, lsn, client, oldest, _lease } = self.begin_verification(point)?;
        let mut report = Verification::new(&branch, lsn);

        let files = self.verify_files(Some(&branch.name), watcher)?;
        report.stored_files = Count { compared: files.files, different: files.different };
        report.seconds.reading = files.seconds;
        if files.different > 0 {
            files.differences.into_iter().for_each(|damage| report.describe(damage));
            return Ok(report);
        }

        let scratch = Scratch::make(self)?;
        let began = Instant::now();
        watcher.tell(VerifyStep::Copying)?;
        let stock = StockServer::lay_out(self, &scratch, branch.timeline, oldest, lsn, watcher)?;
        report.since = stock.since();
        report.seconds.copying = began.elapsed().as_secs_f64();

        let began = Instant::now();
        watcher.tell(VerifyStep::Recovering)?;
        stock.recover(watcher)?;
        report.seconds.recovering = began.elapsed().as_secs_f64();

        let began = Instant::now();
        let identity = self.account().enter();
        let theirs = DataDirectory::scan(stock.pgdata())?;
        let ours =
            Backup::compare(&mut self.control()?, branch.timeline, lsn, &theirs, &mut report)?;
        let common = directory::compare_relations(&ours.relations, &theirs, &mut report)?;
        let mut comparison = PageComparison::begin(client, lsn, &theirs, &scratch)?;
        comparison.run(&common, watcher, &mut report)?;
        comparison.check_maps(&ours.relations, watcher, &mut report)?;
        report.seconds.comparing = began.elapsed().as_secs_f64();

        let began = Instant::now();
        let suspects = comparison.into_suspects();
        if !suspects.is_empty() {
            // Only now: a server that runs changes its files.
            let catalog = stock.catalog(watcher)?;
            Judge::new(self, &scratch, &stock, catalog)?.judge(suspects, watcher, &mut report)?;
        }
        report.seconds.judging = began.elapsed().as_secs_f64();
        if is_deep {
            let began = Instant::now();
            if has_checksums(&theirs)? {
                let mut client =
                    pages::connect(self, &self.server_address()?.unix, branch.timeline, lsn)?;
                deep::check_checksums(&mut client, lsn, &ours.relations, watcher, &mut report)?;
            }
            report.deep.get_or_insert_default().seconds = began.elapsed().as_secs_f64();
            // Other processes than ours are started from here on.
            drop(identity);
            deep::check_servers(self, &scratch, &stock, watcher, &mut report)?;
        }
        Ok(report)
    }
}

fn has_checksums(pgdata: &DataDirectory) -> Result<bool> {
    Ok(counters::decoded(&pgdata.read_file(CONTROL_FILE_PATH)?)?.has_data_checksums())
}

/// Whether WAL says what is in a fork. Nothing of a free space map is logged, nor of an unlogged
/// relation but its init fork.
fn is_logged(fork: ForkNumber, is_unlogged: bool) -> bool {
    match fork {
        ForkNumber::Fsm => false,
        ForkNumber::Init => true,
        ForkNumber::Main | ForkNumber::Vm => !is_unlogged,
    }
}
