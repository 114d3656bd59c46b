//! `Repository::verify_records`: pages against the images that the WAL itself carries.
//!
//! A server with `wal_consistency_checking` puts into each record, for each page that it changes, the
//! page as it was afterwards. PostgreSQL's own recovery compares with them what redo made
//! (`verifyBackupPageConsistency`, `access/transam/xlogrecovery.c`); here GetPage at the record's end
//! is compared, for every such image and for every full-page image, under the mask of the
//! record's resource manager.

mod checker;
mod report;
pub(super) mod stream;
mod visibility;

use std::time::Instant;

use pageserver_client::Point;
use postgres_formats::Lsn;

use super::masks::Masks;
use super::scratch::Scratch;
use super::{Begun, VerifyStep, Watcher};
use crate::error::Result;
use crate::repository::Repository;
use checker::Checker;
use stream::RecordStream;

pub use report::{ManagerCounts, RecordsVerification};

/// Progress is told once in so many records.
const TELL_EVERY: u64 = 256;

impl Repository {
    /// Compares the page server's pages with every image in the WAL of `point`, by default the end
    /// of the default branch, and of its ancestors: those in records that end behind `since`, by
    /// default in all that there are. Differences are no error.
    pub fn verify_records(
        &self,
        point: Option<&Point>,
        since: Option<Lsn>,
        watcher: &mut Watcher<'_>,
    ) -> Result<RecordsVerification> {
        let Begun { branch, lsn, client, oldest, _lease } = self.begin_verification(point)?;
        let began = Instant::now();
        let mut stream = RecordStream::open(self, branch.timeline, since, lsn)?;
        // WAL that is in layers may have been removed, and so may layers.
        let oldest = oldest.max(stream.start());
        let from = since.unwrap_or(oldest).max(oldest).min(lsn);
        let mut report = RecordsVerification::new(&branch, from, lsn);

        let scratch = Scratch::make(self)?;
        let _identity = self.account().enter();
        let masks = Masks::of_system(self, &scratch, stream.system_id())?;
        let mut checker = Checker::new(client, &masks);
        let total = lsn.distance_from(from).unwrap_or(0);
        loop {
            let record = stream.next();
            // Ctrl-C ends its process as well, which is not the error to tell.
            watcher.check()?;
            let Some(record) = record?.filter(|record| record.end <= lsn) else { break };
            if record.end <= from {
                continue;
            }
            if report.records.is_multiple_of(TELL_EVERY) {
                let done = record.start.distance_from(from).unwrap_or(0);
                watcher.tell(VerifyStep::Records { done, total })?;
            }
            checker.take(&record, &mut report)?;
            while checker.is_full() {
                watcher.check()?;
                checker.advance(&mut report)?;
            }
        }
        while !checker.is_done() {
            watcher.tell(VerifyStep::Records { done: total, total })?;
            checker.advance(&mut report)?;
        }
        checker.finish(&mut report)?;
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }
}
