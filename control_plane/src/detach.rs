//! Detaching: a branch that needs no longer what it was made from.

use crate::branch::Branch;
use crate::compact::Work;
use crate::control::quote;
use crate::error::{Error, Result};
use crate::repository::Repository;

impl Repository {
    /// Has the page server copy what a branch needs of its ancestor, in the background; `Branch::detaching`
    /// says whether it is still about that, and then the branch has no ancestor. Its history begins
    /// where it was made.
    ///
    /// # Errors
    /// `Conflict` if a compute reads what is before that.
    pub fn detach_branch(&self, name: &str) -> Result<Branch> {
        self.check_computes(&self.branch(name)?)?;
        self.branch_in(&format!("branch_detach {}", quote(name)), name, name)
    }

    /// The same, and waits until it is done. `progress` is told from time to time how far that is.
    ///
    /// # Errors
    /// As above.
    pub fn detach_branch_now(&self, name: &str, progress: &mut dyn FnMut(&Work)) -> Result<Branch> {
        let branch = self.branch(name)?;
        self.check_computes(&branch)?;
        let command = format!("branch_detach {} wait", quote(name));
        self.rows_with_progress(&command, branch.timeline, progress)?;
        self.branch(name)
    }

    fn check_computes(&self, branch: &Branch) -> Result<()> {
        let Some(from) = &branch.ancestor else { return Ok(()) };
        let reads_before = self
            .computes()?
            .into_iter()
            .find(|compute| compute.timeline() == branch.timeline && compute.base_lsn() < from.lsn);
        match reads_before {
            None => Ok(()),
            Some(compute) => Err(Error::Conflict(format!(
                "compute {:?} reads pages of branch {} at {}, which is before it was made; remove it \
                 first: `zenith pg destroy {}`",
                compute.name(),
                branch.name,
                compute.base_lsn(),
                compute.name()
            ))),
        }
    }
}
