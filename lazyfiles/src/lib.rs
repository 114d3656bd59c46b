//! Stock PostgreSQL on data files that fill in lazily from a page server. See README.md.

pub mod presence;
pub mod range_lock;
