//! The files of a repository: everything that changes them goes through here, and small files that
//! others rely on are either wholly there or not there, whatever happens to the machine. See README.md
//! for the steps and what each is for.

// But for the one call in `write_out`.
#![deny(unsafe_code)]

mod fact;
#[cfg(debug_assertions)]
pub mod faults;
mod file;
mod folder;
mod replace;
mod seam;
mod write_out;

pub use fact::{Fact, FactError, read_fact, remove_fact, write_fact, write_new_fact};
pub use file::File;
pub use folder::{create_dir, create_dir_all, hard_link, remove_dir_all, rename_only, unlink};
pub use replace::{remove_file, remove_unfinished, rename, sync_dir, write_file, write_new_file};
