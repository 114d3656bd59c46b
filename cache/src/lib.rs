//! A concurrent cache bounded in bytes, in which each missing value is made once however many ask.
//! See README.md for its locks and rules.

#![forbid(unsafe_code)]

mod cache;
mod clock;
mod entry;
mod guard;
mod stats;
mod sync;

pub use cache::Cache;
pub use guard::{Lookup, MakeGuard, Waiter};
pub use stats::Stats;
