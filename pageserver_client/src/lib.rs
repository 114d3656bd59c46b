//! The language spoken with the page server, as seen from both of its sides.
//!
//! See README.md for the bytes of the page stream. `protocol` is used by the server and its clients
//! and does no IO; `client` is used by the preload library, the Python package and the tools.
//! `point`, `branch_name`, `retention` and `writer` are words of commands, likewise used by both sides.

#![deny(unsafe_code)]

pub mod branch_name;
pub mod client;
pub mod point;
pub mod protocol;
pub mod retention;
pub mod window;
pub mod writer;

pub use branch_name::{BranchName, BranchNameError};
pub use client::{ClientTimeouts, PageClient, PageClientError};
pub use point::{At, ParsePointError, Point, parse_duration};
pub use protocol::{
    DecodeError, ErrorCode, MAX_PAGES_PER_REQUEST, Request, RequestKind, Response, ResponseBody,
};
pub use retention::{ParseRetentionError, RetentionSpec};
pub use writer::{
    Generation, InstanceId, NO_WRITER, STANDBY_NAME, WRITER_SETTING, WriterId, WriterTextError,
};
