//! Decoding of what clients send after the startup packet.
//!
//! Formats: PostgreSQL documentation, "Message Formats". Every read is checked: a client may send
//! anything.

use bytes::{Buf, Bytes};

use crate::error::ConnectionError;
use crate::frame::Frame;

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    Query {
        sql: Bytes,
    },
    Parse {
        statement: String,
        sql: Bytes,
        parameter_types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        rows_max: u32,
    },
    Close(Target),
    Flush,
    Sync,
    FunctionCall,
    /// Leftover of a COPY that failed here while the client went on sending.
    CopyLeftover,
    Terminate,
}

/// What Describe and Close are about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement(String),
    Portal(String),
}

/// A Bind message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    pub(crate) parameter_formats: Vec<i16>,
    pub(crate) parameters: Vec<Option<Bytes>>,
    pub(crate) result_formats: Vec<i16>,
}

/// Decodes one message.
pub(crate) fn decode(frame: Frame) -> Result<Frontend, ConnectionError> {
    let tag = frame.tag();
    let mut body = frame.into_body();
    let message = match tag {
        b'Q' => Frontend::Query { sql: take_cstr_bytes(&mut body)? },
        b'P' => Frontend::Parse {
            statement: take_cstr(&mut body)?,
            sql: take_cstr_bytes(&mut body)?,
            parameter_types: take_list(&mut body, |b| b.try_get_u32().ok())?,
        },
        b'B' => Frontend::Bind(Bind {
            portal: take_cstr(&mut body)?,
            statement: take_cstr(&mut body)?,
            parameter_formats: take_list(&mut body, |b| b.try_get_i16().ok())?,
            parameters: take_list(&mut body, take_value)?,
            result_formats: take_list(&mut body, |b| b.try_get_i16().ok())?,
        }),
        b'D' => Frontend::Describe(take_target(&mut body)?),
        b'C' => Frontend::Close(take_target(&mut body)?),
        b'E' => Frontend::Execute {
            portal: take_cstr(&mut body)?,
            // Zero and, as in PostgreSQL, anything negative mean "all".
            rows_max: body
                .try_get_i32()
                .map(|rows| u32::try_from(rows).unwrap_or(0))
                .map_err(|_| malformed(tag))?,
        },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'F' => return Ok(Frontend::FunctionCall),
        b'd' | b'c' | b'f' => return Ok(Frontend::CopyLeftover),
        b'X' => return Ok(Frontend::Terminate),
        other => {
            return Err(ConnectionError::protocol(format!(
                "invalid message type '{}'",
                other.escape_ascii()
            )));
        }
    };
    if body.is_empty() { Ok(message) } else { Err(malformed(tag)) }
}

fn malformed(tag: u8) -> ConnectionError {
    ConnectionError::protocol(format!("malformed message of type '{}'", tag.escape_ascii()))
}

fn take_target(body: &mut Bytes) -> Result<Target, ConnectionError> {
    match body.try_get_u8() {
        Ok(b'S') => Ok(Target::Statement(take_cstr(body)?)),
        Ok(b'P') => Ok(Target::Portal(take_cstr(body)?)),
        _ => Err(ConnectionError::protocol("Describe or Close of neither statement nor portal")),
    }
}

/// A 16-bit count and that many items.
fn take_list<T>(
    body: &mut Bytes,
    mut take: impl FnMut(&mut Bytes) -> Option<T>,
) -> Result<Vec<T>, ConnectionError> {
    let short = || ConnectionError::protocol("a list ends before its count says");
    let count = body.try_get_u16().map_err(|_| short())?;
    (0..count).map(|_| take(body).ok_or_else(short)).collect()
}

/// A value with its 32-bit length; -1 is NULL.
#[expect(clippy::option_option, reason = "outer: malformed; inner: NULL")]
fn take_value(body: &mut Bytes) -> Option<Option<Bytes>> {
    match body.try_get_i32().ok()? {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok().filter(|&n| n <= body.len())?;
            Some(Some(body.split_to(length)))
        }
    }
}

/// The bytes up to a zero byte, which is taken too.
pub(crate) fn take_cstr_bytes(body: &mut Bytes) -> Result<Bytes, ConnectionError> {
    let end = body
        .iter()
        .position(|&b| b == 0)
        .ok_or_else(|| ConnectionError::protocol("a string is not terminated"))?;
    let text = body.split_to(end);
    body.advance(1);
    Ok(text)
}

/// A zero-terminated string that must be UTF-8, such as a name.
pub(crate) fn take_cstr(body: &mut Bytes) -> Result<String, ConnectionError> {
    let bytes = take_cstr_bytes(body)?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| ConnectionError::protocol("a name is not valid UTF-8"))
}
