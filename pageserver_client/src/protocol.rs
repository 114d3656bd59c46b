//! The messages of a page stream.
//!
//! After `pagestream TIMELINE` both sides speak COPY BOTH: one CopyData message holds exactly one
//! request or one response as laid out here (tables in README.md). All numbers are little-endian.
//! Responses may come in any order; the id, chosen by the client, tells which request is answered.
//!
//! Decoding never trusts a length or a tag: whatever the other process sends, the answer is a value
//! or a [`DecodeError`].

mod fields;

use bytes::{BufMut, Bytes};
use fields::{Fields, check};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, Oid, RelTag};

use crate::window::WINDOW_PAGES_MAX;

/// The parameter that a server reports at login which knows of windows.
pub const WINDOWS_PARAMETER: &str = "zenith_windows";

/// The most pages one request may ask for; a longer answer would hold up its neighbours.
pub const MAX_PAGES_PER_REQUEST: u16 = 256;

/// The longest text of an error response in bytes; encoding cuts off the rest.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 4096;

/// Length in bytes of what stands before the pages in a [`ResponseBody::Pages`] message.
pub const PAGES_HEADER_SIZE: usize = 9;

const REQUEST_GET_PAGES: u8 = 1;
const REQUEST_REL_SIZE: u8 = 2;
const REQUEST_REL_EXISTS: u8 = 3;
const REQUEST_DB_SIZE: u8 = 4;
const REQUEST_SLRU_SEGMENT: u8 = 5;
const REQUEST_GET_SLRU_PAGES: u8 = 6;
const REQUEST_OPEN_WINDOW: u8 = 7;
const REQUEST_PUT_PAGES: u8 = 8;

const RESPONSE_PAGES: u8 = 101;
const RESPONSE_REL_SIZE: u8 = 102;
const RESPONSE_REL_EXISTS: u8 = 103;
const RESPONSE_DB_SIZE: u8 = 104;
const RESPONSE_SLRU_SEGMENT: u8 = 105;
const RESPONSE_WINDOW: u8 = 106;
const RESPONSE_PAGES_PUT: u8 = 107;
const RESPONSE_ERROR: u8 = 120;

/// A question about the state of the timeline at one LSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Chosen by the client, repeated in the response; unique among its open requests.
    pub id: u64,
    /// The state asked about: everything whose record ends at or before this position. The server
    /// waits, for a limited time, until it has received the log up to here.
    pub lsn: Lsn,
    /// What is asked.
    pub kind: RequestKind,
}

/// What a [`Request`] asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// Consecutive pages of one relation fork. A page beyond the fork's end is an error (`NotFound`).
    GetPages {
        /// The fork.
        rel: RelTag,
        /// The first page.
        first: BlockNumber,
        /// How many pages: 1 to [`MAX_PAGES_PER_REQUEST`].
        count: u16,
    },
    /// The length of a relation fork in blocks.
    RelSize {
        /// The fork.
        rel: RelTag,
    },
    /// Whether a relation fork exists.
    RelExists {
        /// The fork.
        rel: RelTag,
    },
    /// The size in bytes of all relations of one database, in all tablespaces.
    DbSize {
        /// The database.
        db: Oid,
    },
    /// One whole segment file of an SLRU: 32 pages or fewer, as far as it has been written.
    SlruSegment {
        /// The number of the SLRU: `postgres_formats::slru::SlruKind` as a number.
        kind: u8,
        /// The number of the segment file.
        segment: u32,
    },
    /// Consecutive pages of an SLRU, which may lie in several of its files. A page that is not
    /// there is an error (`NotFound`).
    GetSlruPages {
        /// The number of the SLRU: `postgres_formats::slru::SlruKind` as a number.
        kind: u8,
        /// The first page, counted from the SLRU's beginning.
        first: u32,
        /// How many pages: 1 to [`MAX_PAGES_PER_REQUEST`].
        count: u16,
    },
    /// A window for this stream, see [`crate::window`]. There is one at most, and only where both sides are on one
    /// machine. The LSN means nothing.
    OpenWindow {
        /// Its length in pages: 1 to [`WINDOW_PAGES_MAX`].
        pages: u16,
    },
    /// As `GetPages`, but the pages are put into the window.
    PutPages {
        /// The fork.
        rel: RelTag,
        /// The first page.
        first: BlockNumber,
        /// How many pages: 1 to [`MAX_PAGES_PER_REQUEST`].
        count: u16,
        /// Where the first of them is to be, in pages from the window's beginning.
        place: u16,
    },
}

/// The answer to the [`Request`] with the same id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// The answer.
    pub body: ResponseBody,
}

/// What a [`Response`] says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResponseBody {
    /// The pages asked for, one after the other: a positive multiple of `BLCKSZ` bytes.
    Pages(Bytes),
    /// The fork's length in blocks; `None` if there is no such fork.
    RelSize(Option<u32>),
    /// Whether the fork exists.
    RelExists(bool),
    /// The database's size in bytes.
    DbSize(u64),
    /// The segment's bytes.
    SlruSegment(Bytes),
    /// The window is open; its descriptor comes with this message.
    Window {
        /// Its length in pages.
        pages: u16,
    },
    /// So many pages have been put where they were wanted.
    PagesPut {
        /// As many as were asked for.
        count: u16,
    },
    /// The request failed.
    Error {
        /// What the client can do about it.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// Why a request failed, by what the client can do about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ErrorCode {
    /// There is no such relation, page or segment at that LSN. Asking again does not help.
    NotFound = 1,
    /// The log has not been received up to the LSN in time. May heal.
    LsnTimeout = 2,
    /// The LSN is older than what the timeline still keeps. Never heals.
    BelowHorizon = 3,
    /// The stored data is damaged. Never heals by itself.
    Corrupt = 4,
    /// The server is about to stop: connect again, later.
    ShuttingDown = 5,
    /// Too much to do at the moment: ask again, later.
    Busy = 6,
    /// Anything else; the message and the server's log say what.
    Internal = 7,
    /// The client is a compute whose role has gone to another one. Never heals.
    Fenced = 8,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [ErrorCode; 8] = [
        ErrorCode::NotFound,
        ErrorCode::LsnTimeout,
        ErrorCode::BelowHorizon,
        ErrorCode::Corrupt,
        ErrorCode::ShuttingDown,
        ErrorCode::Busy,
        ErrorCode::Internal,
        ErrorCode::Fenced,
    ];

    /// The code with this number.
    pub fn from_u8(n: u8) -> Option<ErrorCode> {
        ErrorCode::ALL.into_iter().find(|code| *code as u8 == n)
    }

    /// The word used for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::NotFound => "not found",
            ErrorCode::LsnTimeout => "LSN not received in time",
            ErrorCode::BelowHorizon => "older than the retained history",
            ErrorCode::Corrupt => "stored data corrupt",
            ErrorCode::ShuttingDown => "shutting down",
            ErrorCode::Busy => "busy",
            ErrorCode::Internal => "internal error",
            ErrorCode::Fenced => "fenced",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The bytes are not a message of this protocol. The stream cannot be trusted any further.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before its last field.
    #[error("page stream message is too short: {length} bytes")]
    TooShort {
        /// The length of the message.
        length: usize,
    },
    /// The message goes on after its last field.
    #[error("page stream message has {extra} bytes too many")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// The first byte names no message of this side.
    #[error("page stream message has unknown type {0}")]
    UnknownType(u8),
    /// A field has a value that means nothing.
    #[error("page stream message has {field} {value}, which is out of range")]
    BadField {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl Request {
    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let tag = match self.kind {
            RequestKind::GetPages { .. } => REQUEST_GET_PAGES,
            RequestKind::RelSize { .. } => REQUEST_REL_SIZE,
            RequestKind::RelExists { .. } => REQUEST_REL_EXISTS,
            RequestKind::DbSize { .. } => REQUEST_DB_SIZE,
            RequestKind::SlruSegment { .. } => REQUEST_SLRU_SEGMENT,
            RequestKind::GetSlruPages { .. } => REQUEST_GET_SLRU_PAGES,
            RequestKind::OpenWindow { .. } => REQUEST_OPEN_WINDOW,
            RequestKind::PutPages { .. } => REQUEST_PUT_PAGES,
        };
        out.put_u8(tag);
        out.put_u64_le(self.id);
        out.put_u64_le(self.lsn.as_u64());
        match self.kind {
            RequestKind::GetPages { rel, first, count } => {
                put_rel(out, rel);
                out.put_u32_le(first.0);
                out.put_u16_le(count);
            }
            RequestKind::RelSize { rel } | RequestKind::RelExists { rel } => put_rel(out, rel),
            RequestKind::DbSize { db } => out.put_u32_le(db.0),
            RequestKind::SlruSegment { kind, segment } => {
                out.put_u8(kind);
                out.put_u32_le(segment);
            }
            RequestKind::GetSlruPages { kind, first, count } => {
                out.put_u8(kind);
                out.put_u32_le(first);
                out.put_u16_le(count);
            }
            RequestKind::OpenWindow { pages } => out.put_u16_le(pages),
            RequestKind::PutPages { rel, first, count, place } => {
                put_rel(out, rel);
                out.put_u32_le(first.0);
                out.put_u16_le(count);
                out.put_u16_le(place);
            }
        }
    }

    /// The request that `message` holds.
    pub fn decode(message: &[u8]) -> Result<Request, DecodeError> {
        let mut fields = Fields::new(message);
        let tag = fields.u8()?;
        let id = fields.u64()?;
        let lsn = Lsn::new(fields.u64()?);
        let kind = match tag {
            REQUEST_GET_PAGES => {
                let rel = fields.rel()?;
                let (first, count) = fields.page_range()?;
                RequestKind::GetPages { rel, first: BlockNumber(first), count }
            }
            REQUEST_REL_SIZE => RequestKind::RelSize { rel: fields.rel()? },
            REQUEST_REL_EXISTS => RequestKind::RelExists { rel: fields.rel()? },
            REQUEST_DB_SIZE => RequestKind::DbSize { db: Oid(fields.u32()?) },
            REQUEST_SLRU_SEGMENT => {
                RequestKind::SlruSegment { kind: fields.u8()?, segment: fields.u32()? }
            }
            REQUEST_GET_SLRU_PAGES => {
                let kind = fields.u8()?;
                let (first, count) = fields.page_range()?;
                RequestKind::GetSlruPages { kind, first, count }
            }
            REQUEST_OPEN_WINDOW => {
                let pages = fields.u16()?;
                check((1..=WINDOW_PAGES_MAX).contains(&pages), "window size", pages)?;
                RequestKind::OpenWindow { pages }
            }
            REQUEST_PUT_PAGES => {
                let rel = fields.rel()?;
                let (first, count) = fields.page_range()?;
                let place = fields.u16()?;
                RequestKind::PutPages { rel, first: BlockNumber(first), count, place }
            }
            other => return Err(DecodeError::UnknownType(other)),
        };
        fields.end()?;
        Ok(Request { id, lsn, kind })
    }
}

impl Response {
    /// A failure.
    pub fn error(id: u64, code: ErrorCode, message: impl Into<String>) -> Response {
        Response { id, body: ResponseBody::Error { code, message: message.into() } }
    }

    /// What goes before the pages in a [`ResponseBody::Pages`] message, for senders that hold the
    /// pages apart and hand header and pages to one vectored write.
    pub fn pages_header(id: u64) -> [u8; PAGES_HEADER_SIZE] {
        let mut header = [RESPONSE_PAGES; PAGES_HEADER_SIZE];
        let mut after_tag = &mut header[1..];
        after_tag.put_u64_le(id);
        header
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let tag = match self.body {
            ResponseBody::Pages(_) => RESPONSE_PAGES,
            ResponseBody::RelSize(_) => RESPONSE_REL_SIZE,
            ResponseBody::RelExists(_) => RESPONSE_REL_EXISTS,
            ResponseBody::DbSize(_) => RESPONSE_DB_SIZE,
            ResponseBody::SlruSegment(_) => RESPONSE_SLRU_SEGMENT,
            ResponseBody::Window { .. } => RESPONSE_WINDOW,
            ResponseBody::PagesPut { .. } => RESPONSE_PAGES_PUT,
            ResponseBody::Error { .. } => RESPONSE_ERROR,
        };
        out.put_u8(tag);
        out.put_u64_le(self.id);
        match &self.body {
            ResponseBody::Pages(bytes) | ResponseBody::SlruSegment(bytes) => out.put_slice(bytes),
            ResponseBody::RelSize(size) => {
                out.put_u8(u8::from(size.is_some()));
                out.put_u32_le(size.unwrap_or(0));
            }
            ResponseBody::RelExists(exists) => out.put_u8(u8::from(*exists)),
            ResponseBody::DbSize(size) => out.put_u64_le(*size),
            ResponseBody::Window { pages: count } | ResponseBody::PagesPut { count } => {
                out.put_u16_le(*count);
            }
            ResponseBody::Error { code, message } => {
                out.put_u8(*code as u8);
                out.put_slice(shortened(message).as_bytes());
            }
        }
    }

    /// The response that `message` holds; pages are not copied but share its memory.
    pub fn decode(message: &Bytes) -> Result<Response, DecodeError> {
        let mut fields = Fields::new(message);
        let tag = fields.u8()?;
        let id = fields.u64()?;
        let body = match tag {
            RESPONSE_PAGES => {
                let pages = fields.rest_of(message);
                let length = pages.len();
                let max = usize::from(MAX_PAGES_PER_REQUEST) * BLCKSZ;
                let ok = length > 0 && length.is_multiple_of(BLCKSZ) && length <= max;
                check(ok, "length of pages", length as u64)?;
                ResponseBody::Pages(pages)
            }
            RESPONSE_REL_SIZE => {
                let exists = fields.bool("existence flag")?;
                let size = fields.u32()?;
                check(exists || size == 0, "size of what does not exist", size)?;
                ResponseBody::RelSize(exists.then_some(size))
            }
            RESPONSE_REL_EXISTS => ResponseBody::RelExists(fields.bool("existence flag")?),
            RESPONSE_DB_SIZE => ResponseBody::DbSize(fields.u64()?),
            RESPONSE_SLRU_SEGMENT => ResponseBody::SlruSegment(fields.rest_of(message)),
            RESPONSE_WINDOW => ResponseBody::Window { pages: fields.u16()? },
            RESPONSE_PAGES_PUT => ResponseBody::PagesPut { count: fields.u16()? },
            RESPONSE_ERROR => {
                let code = fields.u8()?;
                let code = ErrorCode::from_u8(code)
                    .ok_or(DecodeError::BadField { field: "error code", value: code.into() })?;
                let text = fields.rest_of(message);
                ResponseBody::Error { code, message: String::from_utf8_lossy(&text).into_owned() }
            }
            other => return Err(DecodeError::UnknownType(other)),
        };
        fields.end()?;
        Ok(Response { id, body })
    }
}

/// `message` cut to [`MAX_ERROR_MESSAGE_BYTES`] without splitting a character.
fn shortened(message: &str) -> &str {
    let mut end = message.len().min(MAX_ERROR_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default()
}

fn put_rel(out: &mut impl BufMut, rel: RelTag) {
    out.put_u32_le(rel.spc.0);
    out.put_u32_le(rel.db.0);
    out.put_u32_le(rel.rel.0);
    out.put_u8(rel.fork as u8);
}

#[cfg(test)]
#[path = "protocol/tests.rs"]
mod tests;
