//! What a pool has to be told.

use std::path::PathBuf;
use std::time::Duration;

/// The operating system account that the processes run as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// User id; PostgreSQL refuses to run as 0.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// How to run the redo processes of a pool.
#[derive(Clone, Debug)]
pub struct WalRedoConfig {
    /// Folder of the `postgres` program, of the same major version as the WAL.
    pub postgres_bin_dir: PathBuf,
    /// `zenith_walredo.so`, built against that version; the account must be able to read it.
    pub module_path: PathBuf,
    /// Libraries of extensions with resource managers of their own, as in
    /// `shared_preload_libraries`, in this order; the account must be able to read them.
    pub libraries: Vec<String>,
    /// Folder of the pool's own: one minimal data directory per process, and `poisoned/`. Made if
    /// it does not exist; no other pool may use it at the same time.
    pub work_dir: PathBuf,
    /// The cluster's `global/pg_control`, 8192 bytes. The processes take the WAL segment size and
    /// whether data checksums are on from it.
    pub control_file: Vec<u8>,
    /// Number of processes at most, at least 1. So many are started at first, and again when there is
    /// more to do than those have that run.
    pub processes: usize,
    /// Number of processes that are kept however little there is to do; at least 1 is.
    pub processes_min: usize,
    /// How long a process has nothing to do before it is ended.
    pub idle_after: Duration,
    /// Run the processes as this account; only root can. `None`: as the caller is.
    pub account: Option<Account>,
    /// How long one request may keep a process busy before the process is killed and the request
    /// fails with [`RedoError::Timeout`](crate::RedoError::Timeout).
    pub request_timeout: Duration,
}
