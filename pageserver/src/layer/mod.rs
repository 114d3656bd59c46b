//! Immutable files of page versions.

pub mod image;
pub mod import;
