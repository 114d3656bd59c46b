//! The write-ahead log of a timeline: received, kept on disk, read back.

pub mod first_record;
pub mod flushed_mark;
mod follow_error;
pub mod follow_file;
pub mod follower;
pub mod followers;
pub mod identity;
mod joint;
pub(crate) mod loaded;
pub mod open_segments;
mod pace;
mod receive_error;
pub mod receiver;
pub mod store;
mod sync_aside;
mod zeros_ahead;
