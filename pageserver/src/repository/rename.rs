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
        let (from, to) = (dir.join(old.as_str()), dir.join(new.as_str()));
        if let Err(source) = durable_files::rename(&from, &to) {
            // It may have the new name, if that is not sure to last; then it gets the old one back.
            if !from.exists() {
                let _ = durable_files::rename(&to, &from);
            }
            return Err(RepositoryError::Io { path: dir, source });
        }
        branch.name = new.clone();
        let mut registry = self.registry.write();
        registry.remove(old);
        registry.insert(branch.clone());
        Ok(branch)
    }
}
