//! `Repository::verify_files`: every file of a branch and of its ancestors is read, and what is damaged is
//! named. Needs no page server, and may run beside one.

use std::process::Command;
use std::time::Instant;

use pageserver_client::BranchName;
use serde::Serialize;

use super::Watcher;
use super::report::Difference;
use crate::branch::check_name;
use crate::companions;
use crate::error::{Error, Result};
use crate::process;
use crate::repository::Repository;

/// What is damaged of the files that a branch consists of.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FilesVerification {
    /// The branch.
    pub branch: String,
    /// How many files were read.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How much is wrong.
    pub different: u64,
    /// Each of it.
    pub differences: Vec<Difference>,
    /// How long it took.
    pub seconds: f64,
}

impl Repository {
    /// Reads every file of the branch with this name, by default the default branch, and of its ancestors.
    /// Damage is no error.
    pub fn verify_files(
        &self,
        name: Option<&str>,
        watcher: &mut Watcher<'_>,
    ) -> Result<FilesVerification> {
        let name = check_name(name.unwrap_or(&self.config().default_branch))?;
        watcher.tell(super::VerifyStep::Reading)?;
        let began = Instant::now();
        let found = scrub(self, &name);
        // Ctrl-C ends that process as well, which is not the error to tell.
        watcher.check()?;
        let (files, bytes, differences) = found?;
        let different = differences.len() as u64;
        let seconds = began.elapsed().as_secs_f64();
        Ok(FilesVerification {
            branch: name.to_string(),
            files,
            bytes,
            different,
            differences,
            seconds,
        })
    }
}

/// How many files and bytes there are, and what is wrong.
fn scrub(repository: &Repository, name: &BranchName) -> Result<(u64, u64, Vec<Difference>)> {
    let mut command = Command::new(companions::find(companions::PAGESERVER)?);
    command.arg("scrub").arg("--repo").arg(repository.dir()).args(["--branch", name]);
    command.current_dir(repository.dir());
    let account = repository.account();
    if account.must_switch() {
        let (uid, gid) = account.ids();
        command.arg("--run-as").arg(format!("{uid}:{gid}"));
    }
    let said = process::run_program("pageserver scrub", &mut command)?;
    parse(&said).ok_or_else(|| Error::Program {
        program: "pageserver scrub".to_owned(),
        detail: format!("it printed {said:?}"),
    })
}

/// A line with two numbers, then one for each problem: the file, a tab, what is wrong with it.
fn parse(said: &str) -> Option<(u64, u64, Vec<Difference>)> {
    let mut lines = said.lines();
    let (files, bytes) = lines.next()?.split_once(' ')?;
    let problem = |line: &str| {
        let (path, what) = line.split_once('\t')?;
        Some(Difference::of_file(path, what.to_owned()))
    };
    Some((files.parse().ok()?, bytes.parse().ok()?, lines.map(problem).collect::<Option<_>>()?))
}
