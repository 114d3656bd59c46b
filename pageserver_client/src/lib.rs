//! The page stream of the page server, as seen from both of its sides.
//!
//! See README.md for the bytes. `protocol` is used by the server and its clients and does no IO;
//! `client` is used by the preload library, the Python package and the tools.

#![forbid(unsafe_code)]

pub mod client;
pub mod protocol;

pub use client::{ClientTimeouts, PageClient, PageClientError};
pub use protocol::{
    DecodeError, ErrorCode, MAX_PAGES_PER_REQUEST, Request, RequestKind, Response, ResponseBody,
};
