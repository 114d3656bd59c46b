//! Damaged, missing and foreign WAL, received and on disk, on WAL made for the purpose: everything
//! before it stays readable, the place is named, and it goes on once the cause is mended.

#![allow(clippy::unwrap_used)]

mod first_format;
mod healing;
mod indexing;
mod on_disk;
mod open_files;
mod received;
pub(crate) mod sample;
mod zeros_ahead;
