//! Repositories with many branches: what is read of them, what making one costs, and that whatever is
//! asked for before all of them are known has the same answer as afterwards.

#![allow(clippy::unwrap_used)]

mod fixture;
mod model;
mod opening;
