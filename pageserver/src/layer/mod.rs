//! Immutable files of page versions.

pub mod delta;
pub mod freezer;
pub mod image;
pub mod import;
