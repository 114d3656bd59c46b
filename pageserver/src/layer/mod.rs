//! Immutable files of page versions.

pub mod delta;
pub mod file;
pub mod freezer;
pub mod image;
pub mod imaged;
pub mod import;
pub(crate) mod known_keys;
mod memo;
pub mod source;
