//! `Repository::verify` with `deep`: what servers say that run on the pages, after the comparison of
//! the pages themselves.
//!
//! A throw-away compute at the point is searched by PostgreSQL's `amcheck`, and its dump must be the
//! stock server's to the byte. The checksum in every page that the page server gives out is computed
//! once more, since the comparison of pages leaves checksums out where a mask was needed.

mod amcheck;
mod checksums;
mod client;
mod dump;
mod report;

use std::fs;
use std::time::Instant;

use pageserver_client::{At, Point};

use super::scratch::Scratch;
use super::stock::StockServer;
use super::{Verification, VerifyStep, Watcher};
use crate::compute::Compute;
use crate::error::{Error, IoContext, Result};
use crate::repository::Repository;
pub(super) use checksums::check as check_checksums;
use client::Client;

pub use report::{AmcheckCounts, ChecksumCounts, DeepCounts, DumpCounts};

/// Programs that a deep verification runs, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 3] = [
    ("pg_amcheck", "postgresql-client-15"),
    ("pg_dumpall", "postgresql-client-15"),
    ("psql", "postgresql-client-15"),
];

/// Settings of the compute, so that it has what is there and nothing else: a subscription would go on
/// with its publisher's changes.
const QUIET: &str = "autovacuum = off\nmax_logical_replication_workers = 0\n";

/// Fails if a program is missing, before hours have gone by.
pub(super) fn check_programs(repository: &Repository) -> Result<()> {
    PROGRAMS.iter().try_for_each(|(name, package)| client::check(repository, name, package))
}

/// Runs both servers. What the stock server recovered is not what it was any more when this is done.
pub(super) fn check_servers(
    repository: &Repository,
    scratch: &Scratch,
    stock: &StockServer,
    watcher: &mut Watcher<'_>,
    report: &mut Verification,
) -> Result<()> {
    let began = Instant::now();
    watcher.tell(VerifyStep::Starting)?;
    let branch = report.branch.parse().map_err(|error: pageserver_client::BranchNameError| {
        Error::InvalidArgument(error.to_string())
    })?;
    // The end of the branch may have moved on.
    let point = Point { branch, at: At::Lsn(report.lsn) };
    let compute = Compute::create_throw_away(repository, &point)?;
    let throw_away = ThrowAway(Some(compute.clone()));
    {
        let _identity = repository.account().enter();
        let path = compute.pgdata().join("postgresql.auto.conf");
        fs::write(&path, QUIET).io("write", &path)?;
    }
    compute.start()?;
    let ours = Client::of_compute(repository, compute.port());
    amcheck::check_extension(&compute)?;
    let serving = stock.serve(watcher)?;
    let theirs = Client::of_stock(repository, serving.socket_dir());
    for server in [&ours, &theirs] {
        // Their locks would hold up everybody for ever, and a dump has nothing of theirs.
        server.roll_back_prepared(scratch)?;
    }
    // First, since `amcheck` has to be installed in the databases.
    dump::compare(&ours, &theirs, scratch, watcher, report)?;
    drop(serving);
    amcheck::run(&ours, scratch, watcher, report)?;
    throw_away.destroy()?;
    report.deep_counts().seconds += began.elapsed().as_secs_f64();
    Ok(())
}

/// A compute that is gone with this value.
struct ThrowAway(Option<Compute>);

impl ThrowAway {
    fn destroy(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), |compute| compute.destroy())
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        // What cannot be removed is when the next compute is made.
        if let Some(compute) = self.0.take() {
            let _ = compute.destroy();
        }
    }
}
