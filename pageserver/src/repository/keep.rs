//! How long a branch is kept, and how much of its history: protection, expiry and retention.

use pageserver_client::BranchName;

use super::ref_file::BranchRef;
use super::{Branch, Repository, RepositoryError, Retention};

impl Repository {
    /// Lets a branch be deleted, or not.
    ///
    /// # Errors
    /// See `RepositoryError`; nothing has been changed then.
    pub fn protect_branch(
        &self,
        name: &BranchName,
        protected: bool,
    ) -> Result<Branch, RepositoryError> {
        self.change_branch(name, |branch| branch.protected = protected)
    }

    /// Lets a branch go by itself at a time in seconds since 1970, or not.
    ///
    /// # Errors
    /// `IsDefault`: the default branch stays; see `RepositoryError`. Nothing has been changed then.
    pub fn expire_branch(
        &self,
        name: &BranchName,
        expires: Option<u64>,
    ) -> Result<Branch, RepositoryError> {
        if name.as_str() == self.default_branch && expires.is_some() {
            return Err(RepositoryError::IsDefault(name.clone()));
        }
        self.change_branch(name, |branch| branch.expires = expires)
    }

    /// Says how much of a branch's history is kept; `None`: as much as of all. It is kept from then on if it
    /// is there still.
    ///
    /// # Errors
    /// See `RepositoryError`; nothing has been changed then.
    pub fn retain_branch(
        &self,
        name: &BranchName,
        retention: Option<Retention>,
    ) -> Result<Branch, RepositoryError> {
        self.change_branch(name, |branch| branch.retention = retention)
    }

    fn change_branch(
        &self,
        name: &BranchName,
        change: impl FnOnce(&mut Branch),
    ) -> Result<Branch, RepositoryError> {
        // An answer that names all branches waits for all of them, and nobody waits for that.
        self.branch(name)?;
        let changing = self.changing.lock();
        let before = self.branch_now(name, &changing)?;
        let mut branch = before.clone();
        change(&mut branch);
        if let Err(error) = branch.to_ref().write(&self.dir, name) {
            self.undo_change(before);
            return Err(error.into());
        }
        self.registry.write().insert(branch.clone());
        Ok(branch)
    }
}

impl Repository {
    /// Gives a branch the file back that it had before a change that failed: the new one may be there
    /// already, and only not be sure to last. If that fails, too, what the file says counts.
    fn undo_change(&self, before: Branch) {
        let read = || BranchRef::read(&self.dir, &before.name).ok().flatten();
        let Some(found) = read().filter(|found| *found != before.to_ref()) else { return };
        if before.to_ref().write(&self.dir, &before.name).is_err() {
            let BranchRef { timeline: _, protected, expires, retention } = read().unwrap_or(found);
            self.registry.write().insert(Branch { protected, expires, retention, ..before });
        }
    }
}

impl Branch {
    /// What its file holds.
    pub(super) fn to_ref(&self) -> BranchRef {
        BranchRef {
            timeline: self.timeline,
            protected: self.protected,
            expires: self.expires,
            retention: self.retention,
        }
    }
}
