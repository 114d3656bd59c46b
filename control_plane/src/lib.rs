//! Makes, starts, stops and lists page servers and computes on this machine. See README.md.

pub mod account;
mod branch;
mod checkpoint;
mod compact;
mod companions;
mod compute;
pub mod config;
mod control;
mod detach;
mod error;
mod gc;
mod init;
mod leases;
mod lock;
mod page;
mod page_server;
mod ports;
pub mod postgres_install;
mod process;
mod repository;
mod resolve;
mod tag;
mod verify;

pub use account::Account;
pub use branch::{Ancestor, Branch, Branches, DamagedBranch, Stop};
pub use checkpoint::{Checkpoint, Layer};
pub use compact::{Compacted, Work};
pub use compute::{
    Advance, Compute, ComputeOptions, ComputeState, ComputeStatus, Durability, HydrateProgress,
    Hydrated, Mode, Replaced, unpack_base_backup,
};
pub use config::Config;
pub use control::ServerAddress;
pub use error::{Error, Result, Thing};
pub use gc::{Collected, CollectedLayer, Held};
pub use init::InitOptions;
pub use leases::{Lease, ReadLease};
pub use page::PageAt;
pub use page_server::{Outcome, ServerStatus, StartOptions, StopMode};
pub use pageserver_client::{At, BranchName, Point, RetentionSpec, parse_duration};
pub use postgres_install::PostgresInstall;
pub use repository::{REPOSITORY_VARIABLE, Repository};
pub use tag::{DamagedTag, Tag, Tags};
pub use verify::{
    AmcheckCounts, ChecksumCounts, Count, DeepCounts, Difference, DumpCounts, FilesVerification,
    ManagerCounts, Masked, PageCounts, Permitted, RecordsVerification, Seconds, Verification,
    VerifyStep, Watcher,
};
