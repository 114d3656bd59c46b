//! Small files that others rely on: either wholly there or not there, whatever happens to the
//! machine. See README.md for the steps and what each is for.
//!
//! They take paths and hand out no open file, so that faults of a disk can be put in here without a
//! change to the callers.

#![forbid(unsafe_code)]

mod fact;
mod replace;

pub use fact::{Fact, FactError, read_fact, remove_fact, write_fact};
pub use replace::{remove_file, rename, sync_dir, write_file};
