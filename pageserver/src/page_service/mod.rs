//! The page service.

pub mod command;
pub mod table;
