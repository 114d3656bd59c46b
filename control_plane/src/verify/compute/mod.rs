//! `Compute::verify`: a data directory as its server left it against a base backup made now.
//!
//! A server that was stopped cleanly has written everything. Every page that is on its disk, every
//! other file, `pg_control` and its WAL must be what the page server has at the end of its shutdown
//! checkpoint; what is not logged has a name in `Permitted`.

mod files;
mod orphans;
mod wal;

use std::time::Instant;

use postgres_formats::control_file::{CONTROL_FILE_PATH, ClusterState};

use super::backup::Backup;
use super::directory::{self, DataDirectory};
use super::judge::Judge;
use super::masks::Masks;
use super::pages::{self, PageComparison};
use super::report::{Difference, Verification};
use super::scratch::Scratch;
use super::{VerifyStep, Watcher, counters};
use crate::companions;
use crate::compute::{Compute, ComputeState, Mode};
use crate::error::{Error, Result};

impl Compute {
    /// Compares its data directory with what the page server has. It must have been stopped cleanly,
    /// and is not started meanwhile. Differences are no error.
    pub fn verify(&self, watcher: &mut Watcher<'_>) -> Result<Verification> {
        let mut report = self.verify_directory(watcher)?;
        // Not before, since the lock for making computes comes before that of a compute.
        let began = Instant::now();
        orphans::decide(self.repository(), watcher, &mut report)?;
        report.seconds.judging += began.elapsed().as_secs_f64();
        Ok(report)
    }

    /// All of it but the decision on what no catalog may name.
    fn verify_directory(&self, watcher: &mut Watcher<'_>) -> Result<Verification> {
        let _lock = self.lock()?;
        self.refuse_unless_stopped()?;
        // History has gone on without it, so that nothing in it could be as the page server has it.
        self.refuse_if_fenced()?;
        let repository = self.repository();
        let branch = repository.branch(self.branch())?;
        let lsn = repository.last_record_lsn(self.timeline())?;
        let mut report = Verification::new(&branch, lsn);
        report.compute = Some(self.name().to_owned());
        watcher.tell(VerifyStep::Copying)?;

        let began = Instant::now();
        let theirs = {
            let _identity = repository.account().enter();
            DataDirectory::scan_stubs(&self.pgdata(), &self.presence())?
        };
        let control = {
            let _identity = repository.account().enter();
            counters::decoded(&theirs.read_file(CONTROL_FILE_PATH)?)?
        };
        if control.state != ClusterState::ShutDown {
            return Err(Error::Conflict(format!(
                "compute {:?} was not stopped cleanly; start it and stop it, then verify",
                self.name()
            )));
        }
        wal::compare(self, control.check_point, lsn, watcher, &mut report)?;
        if report.different() > 0 {
            // Pages of two moments would differ without end.
            return Ok(report);
        }
        let server = repository.server_address()?.unix;
        let client = pages::connect(repository, &server, self.timeline(), lsn)?;
        let _lease = repository.read_lease("verify", self.timeline(), lsn, false)?;
        companions::install_libraries(&repository.dir().join("lib"), repository.account())?;
        let scratch = Scratch::make(repository)?;
        let _identity = repository.account().enter();
        let mut server = repository.control()?;
        let ours = Backup::compare(&mut server, self.timeline(), lsn, &theirs, &mut report)?;
        files::compare_rest(&self.pgdata(), &ours.seen, &mut report)?;
        let common = directory::compare_relations(&ours.relations, &theirs, &mut report)?;
        let mut comparison = PageComparison::begin(client, lsn, &theirs, &scratch)?;
        comparison.run(&common, watcher, &mut report)?;
        comparison.check_maps(&ours.relations, watcher, &mut report)?;
        report.seconds.comparing = began.elapsed().as_secs_f64();

        let began = Instant::now();
        let suspects = comparison.into_suspects();
        if !suspects.is_empty() {
            let masks = Masks::of_system(repository, &scratch, control.system_identifier)?;
            Judge::of_compute(masks).judge(suspects, watcher, &mut report)?;
        }
        report.seconds.judging = began.elapsed().as_secs_f64();
        Ok(report)
    }

    fn refuse_unless_stopped(&self) -> Result<()> {
        let name = self.name();
        if self.mode() != Mode::ReadWrite {
            return Err(Error::Conflict(format!(
                "compute {name:?} is detached: the page server has nothing of what it changed"
            )));
        }
        if self.status().state != ComputeState::Stopped {
            return Err(Error::Conflict(format!(
                "compute {name:?} runs; stop it first: `zenith pg stop {name}`"
            )));
        }
        Ok(())
    }
}

/// Adds a difference in the WAL.
fn wal_differs(report: &mut Verification, detail: String) {
    report.files.different += 1;
    report.describe(Difference { kind: "wal", detail, ..Difference::default() });
}
