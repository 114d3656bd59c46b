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

use std::time::Instant;

use super::scratch::Scratch;
use super::stock::StockServer;
use super::throw_away::ThrowAway;
use super::{Verification, VerifyStep, Watcher};
use crate::error::Result;
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
    let throw_away = ThrowAway::start(repository, &report.branch, report.lsn, "")?;
    let ours = Client::of_compute(repository, throw_away.compute().port());
    amcheck::check_extension(throw_away.compute())?;
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
