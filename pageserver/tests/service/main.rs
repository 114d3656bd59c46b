//! The page server's program from the outside: as a daemon, with stock PostgreSQL as its computes.

#![allow(clippy::unwrap_used, reason = "a test fails where the unexpected happens")]

mod commands;
mod computes;
mod daemon;
mod damaged_files;
mod failures;
mod fixture;
mod keeping;
mod reparent;
mod tags;
mod times;
mod writers;
