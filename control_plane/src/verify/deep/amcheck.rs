//! `pg_amcheck` on the compute: all tables and B-tree indexes of all databases, and whether every row
//! is found by every index.

use std::io::{BufRead, BufReader};

use super::super::report::Verification;
use super::super::scratch::Scratch;
use super::super::{VerifyStep, Watcher};
use super::client::Client;
use crate::compute::Compute;
use crate::error::{Error, IoContext, Result};

const ARGUMENTS: [&str; 6] = [
    "--all",
    "--install-missing",
    "--heapallindexed",
    "--parent-check",
    "--rootdescend",
    "--progress",
];
/// Its exit status when it has found something.
const FOUND: i32 = 2;

/// Fails if the extension is not installed on this machine.
pub(super) fn check_extension(compute: &Compute) -> Result<()> {
    let found =
        compute.control()?.rows("select 1 from pg_available_extensions where name = 'amcheck'")?;
    match found.is_empty() {
        false => Ok(()),
        true => Err(Error::Environment(
            "there is no extension amcheck, which a deep verification needs; install the Debian \
             package postgresql-15"
                .to_owned(),
        )),
    }
}

/// Runs it; what it finds are differences, and so is that it cannot do its work.
pub(super) fn run(
    client: &Client<'_>,
    scratch: &Scratch,
    watcher: &mut Watcher<'_>,
    report: &mut Verification,
) -> Result<()> {
    watcher.tell(VerifyStep::Amcheck)?;
    let mut started = client.start(client.command("pg_amcheck")?.args(ARGUMENTS), scratch)?;
    let output = started.child.stdout.take();
    let mut finding: Option<(String, String)> = None;
    for line in output.into_iter().flat_map(|output| BufReader::new(output).split(b'\n')) {
        watcher.check()?;
        let line = line.io("read the output of", "pg_amcheck")?;
        let line = String::from_utf8_lossy(&line);
        match &mut finding {
            Some((_, detail)) if line.starts_with(' ') => {
                if !detail.is_empty() {
                    detail.push(' ');
                }
                detail.push_str(line.trim());
            }
            _ => {
                let name = line.trim_end_matches(':').to_owned();
                if let Some((name, detail)) = finding.replace((name, String::new())) {
                    report.amcheck_differs(&name, detail);
                }
            }
        }
    }
    if let Some((name, detail)) = finding {
        report.amcheck_differs(&name, detail);
    }
    let status = started.wait()?;
    // Ctrl-C ends that process as well, which is no finding.
    watcher.check()?;
    report.deep_counts().amcheck.relations = relations(&started.words());
    if !status.success() && status.code() != Some(FOUND) {
        report.amcheck_differs("", started.failure(status));
    }
    Ok(())
}

/// How many relations it has done, by the last line of its progress.
fn relations(words: &str) -> u64 {
    let done = |line: &str| line.trim_start().split_once("/")?.0.parse().ok();
    let line = words.lines().rev().find(|line| line.contains(" relations ("));
    line.and_then(done).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_by_the_last_progress() {
        let words = " 0/120 relations (0%),  0/900 pages (0%)\n\
                     120/120 relations (100%), 900/900 pages (100%)\n";
        assert_eq!(relations(words), 120);
        assert_eq!(relations("nothing"), 0);
    }
}
