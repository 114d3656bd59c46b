//! The page stream of the page server, as seen from both of its sides.
//!
//! See README.md for the bytes. `protocol` is used by the server and its clients and does no IO.

#![forbid(unsafe_code)]

pub mod protocol;

pub use protocol::{
    DecodeError, ErrorCode, MAX_PAGES_PER_REQUEST, Request, RequestKind, Response, ResponseBody,
};
