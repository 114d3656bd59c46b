//! A compute that a verification starts for itself.

use std::fs;

use pageserver_client::{At, BranchNameError, Point};
use postgres_formats::Lsn;

use crate::compute::Compute;
use crate::error::{Error, IoContext, Result};
use crate::repository::Repository;

/// Settings under which it has what is there and nothing else: a subscription would go on with its
/// publisher's changes.
const QUIET: &str = "autovacuum = off\nmax_logical_replication_workers = 0\n";

/// A detached compute that runs, and is gone with this value.
pub(super) struct ThrowAway {
    compute: Compute,
    is_destroyed: bool,
}

impl ThrowAway {
    /// Makes one of the state at `lsn` and starts it with `settings`, which are lines of a
    /// configuration file. Takes the lock for making computes, so the caller holds none of a
    /// compute's.
    pub fn start(
        repository: &Repository,
        branch: &str,
        lsn: Lsn,
        settings: &str,
    ) -> Result<ThrowAway> {
        let branch = branch
            .parse()
            .map_err(|error: BranchNameError| Error::InvalidArgument(error.to_string()))?;
        // The end of the branch may have moved on.
        let point = Point { branch, at: At::Lsn(lsn) };
        let compute = Compute::create_throw_away(repository, &point)?;
        let throw_away = ThrowAway { compute, is_destroyed: false };
        {
            let _identity = repository.account().enter();
            let path = throw_away.compute.pgdata().join("postgresql.auto.conf");
            fs::write(&path, [QUIET, settings].concat()).io("write", &path)?;
        }
        throw_away.compute.start()?;
        Ok(throw_away)
    }

    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    pub fn destroy(mut self) -> Result<()> {
        self.is_destroyed = true;
        self.compute.destroy()
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        // What cannot be removed is when the next compute is made.
        if !self.is_destroyed {
            let _ = self.compute.destroy();
        }
    }
}
