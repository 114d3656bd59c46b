//! The start of a connection: encryption requests, the startup packet, the greeting.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::ConnectionError;
use crate::frame::FrameReader;
use crate::limits;
use crate::server::frontend::take_cstr;
use crate::socket::Deadline;
use crate::write::{FrameWriter, put_cstr, put_message};

/// Request codes in place of a protocol version (PostgreSQL `libpq/pqcomm.h`).
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// What a client says about itself when it connects.
#[derive(Clone, Debug, Default)]
pub struct StartupParameters {
    values: BTreeMap<String, String>,
}

impl StartupParameters {
    /// The value of a parameter such as `user`, `database` or `application_name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The user name, which every client must give.
    pub fn user(&self) -> &str {
        self.get("user").unwrap_or_default()
    }

    /// The database name, by default that of the user.
    pub fn database(&self) -> &str {
        self.get("database").filter(|name| !name.is_empty()).unwrap_or(self.user())
    }
}

/// What the client wants to begin with.
pub(crate) enum Opening {
    Start(StartupParameters),
    /// Nothing to serve: a cancel request, or a client that only looked whether somebody is there.
    Nothing,
}

/// Reads up to and including the startup packet, refusing encryption on the way.
pub(crate) fn receive(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    timeout: Duration,
) -> Result<Opening, ConnectionError> {
    let deadline = Deadline::after(timeout);
    // Each kind of encryption may be asked for once before the real packet.
    let mut refused = Vec::new();
    loop {
        let Some(mut head) = reader.take_exact(8, deadline)? else { return Ok(Opening::Nothing) };
        let (length, code) = (head.get_u32() as usize, head.get_u32());
        if !(8..=limits::STARTUP_PACKET_BYTES_MAX).contains(&length) {
            return Err(ConnectionError::MessageTooLong {
                tag: 0,
                length,
                limit: limits::STARTUP_PACKET_BYTES_MAX,
            });
        }
        let body = match reader.take_exact(length - 8, deadline)? {
            Some(body) => body.freeze(),
            None => return Err(ConnectionError::Closed),
        };
        match code {
            CANCEL_REQUEST => return Ok(Opening::Nothing),
            SSL_REQUEST | GSSENC_REQUEST if !refused.contains(&code) => {
                refused.push(code);
                writer.buffer().put_u8(b'N');
                writer.flush()?;
            }
            version if version >> 16 == 3 => {
                let (parameters, unknown) = parse_parameters(body)?;
                if version & 0xFFFF != 0 || !unknown.is_empty() {
                    negotiate_version(writer.buffer(), &unknown);
                }
                return Ok(Opening::Start(parameters));
            }
            other => {
                return Err(ConnectionError::protocol(format!(
                    "unsupported protocol {}.{}: this server speaks 3.0",
                    other >> 16,
                    other & 0xFFFF
                )));
            }
        }
    }
}

/// Name-value pairs; protocol options (`_pq_.`), of which we know none, apart.
fn parse_parameters(mut body: Bytes) -> Result<(StartupParameters, Vec<String>), ConnectionError> {
    let mut parameters = StartupParameters::default();
    let mut unknown = Vec::new();
    loop {
        let name = take_cstr(&mut body)?;
        if name.is_empty() {
            break;
        }
        let value = take_cstr(&mut body)?;
        if name.starts_with("_pq_.") {
            unknown.push(name);
        } else {
            parameters.values.insert(name, value);
        }
    }
    if parameters.user().is_empty() {
        return Err(ConnectionError::protocol("no user name in the startup packet"));
    }
    Ok((parameters, unknown))
}

/// NegotiateProtocolVersion: this server speaks minor version 0 without options.
fn negotiate_version(out: &mut BytesMut, unknown: &[String]) {
    put_message(out, b'v', |body| {
        body.put_u32(3 << 16);
        body.put_u32(u32::try_from(unknown.len()).unwrap_or(u32::MAX));
        for name in unknown {
            put_cstr(body, name);
        }
    });
}

/// AuthenticationOk (whoever can connect is trusted), and what drivers want to know.
pub(crate) fn greet(
    out: &mut BytesMut,
    server_version: &str,
    own: &[(&str, &str)],
    parameters: &StartupParameters,
) {
    put_message(out, b'R', |body| body.put_u32(0));
    let reported = [
        ("server_version", server_version),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", parameters.get("application_name").unwrap_or_default()),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ];
    for (name, value) in reported.iter().chain(own).copied() {
        put_message(out, b'S', |body| {
            put_cstr(body, name);
            put_cstr(body, value);
        });
    }
    // BackendKeyData. Some drivers insist on it; cancel requests are accepted and do nothing.
    put_message(out, b'K', |body| {
        body.put_u32(std::process::id());
        body.put_u32(0);
    });
}
