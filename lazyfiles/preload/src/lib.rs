//! `liblazyfiles.so`: the system calls of a PostgreSQL server that runs with it preloaded.
//!
//! A wrapped function in `hooks` is a few lines that end in `calls`, which decides whether a file
//! concerns us and otherwise calls the real function found by `real`. What has to be done besides
//! is in the library `lazyfiles_core`. `active` decides at load time whether this process is one of
//! ours. README.md and SAFETY.md of the parent folder are the documentation.

mod active;
mod calls;
mod hooks;
mod inside;
mod open_files;
mod postgres;
mod real;
mod wal_sender;
