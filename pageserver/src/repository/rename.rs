//! Giving a branch another name.

use pageserver_client::BranchName;

use super::scan::branches_dir;
use super::{Branch, Repository, RepositoryError};

impl Repository {
    /// Gives a branch another name.
    ///
    /// # Errors
    /// See `RepositoryError`.
    pub fn rename_branch(
        &self,
        old: &BranchName,
        new: &BranchName,
    ) -> Result<Branch, RepositoryError> {
        self.branch(old)?;
        let changing = self.changing.lock();
        let mut branch = self.branch_now(old, &changing)?;
        self.check_free(new, &changing)?;
        if old.as_str() == self.default_branch {
            return Err(RepositoryError::IsDefault(old.clone()));
        }
        let dir = branches_dir(&self.dir);
        durable_files::rename(&dir.join(old.as_str()), &dir.join(new.as_str()))
            .map_err(|source| RepositoryError::Io { path: dir, source })?;
        branch.name = new.clone();
        let mut registry = self.registry.write();
        registry.remove(old);
        registry.insert(branch.clone());
        Ok(branch)
    }
}
