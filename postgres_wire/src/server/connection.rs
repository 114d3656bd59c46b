//! `serve_connection`: one client from its startup packet to its end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::Socket;

use crate::error::ConnectionError;
use crate::frame::FrameReader;
use crate::limits;
use crate::server::Handler;
use crate::server::copy::stopping;
use crate::server::error::{QueryError, put_error};
use crate::server::extended::{Extended, Progress, text_of};
use crate::server::frontend::{Frontend, decode};
use crate::server::query_writer::{Framing, QueryWriter};
use crate::server::startup::{self, Opening};
use crate::server::statement::split_statements;
use crate::socket::{Deadline, WireSocket};
use crate::sqlstate::SqlState;
use crate::stop::StopSignal;
use crate::write::{FrameWriter, put_message};

/// How a server treats a connection.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// The `server_version` that clients are told; psql and drivers parse its number.
    pub server_version: String,
    /// Parameters of the server's own, with their values, that clients are told besides.
    pub parameters: &'static [(&'static str, &'static str)],
    /// How long a client may take to say who it is.
    pub startup_timeout: Duration,
    /// How long a client may take nothing of what it is sent before it is given up.
    pub write_timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> ConnectionOptions {
        ConnectionOptions {
            server_version: "15.0 (Zenith)".to_owned(),
            parameters: &[],
            startup_timeout: limits::STARTUP_TIMEOUT,
            write_timeout: limits::WRITE_TIMEOUT,
        }
    }
}

/// Serves the client behind `stream` until it leaves, breaks the protocol, or `stop` fires.
///
/// `Ok` is an orderly end. Errors have already been told to the client where that was possible.
pub fn serve_connection(
    stream: impl Into<OwnedFd>,
    handler: &mut dyn Handler,
    options: &ConnectionOptions,
    stop: &StopSignal,
) -> Result<(), ConnectionError> {
    let socket = Socket::from(stream.into());
    if socket.local_addr().is_ok_and(|address| address.is_unix()) {
        // The kernel's own choice of 200 KiB is a few pages. That of TCP grows by itself.
        socket.set_send_buffer_size(limits::SEND_BUFFER_BYTES).map_err(ConnectionError::Io)?;
    }
    let socket = WireSocket::new(socket, Some(stop.clone())).map_err(ConnectionError::Io)?;
    let socket = Arc::new(socket);
    let mut session = Session {
        reader: FrameReader::new(socket.clone(), limits::FRONTEND_MESSAGE_BYTES_MAX),
        writer: FrameWriter::new(socket, Some(options.write_timeout)),
        handler,
        extended: Extended::default(),
        skip_to_sync: false,
    };
    let ended = session.run(options);
    if let Err(error) = &ended {
        session.say_farewell(error);
    }
    ended
}

/// Turns a fresh connection away with one error.
pub(crate) fn refuse(stream: impl Into<OwnedFd>, sqlstate: SqlState, message: &str) {
    if let Ok(socket) = WireSocket::new(Socket::from(stream.into()), None) {
        let mut out = BytesMut::new();
        if let QueryError::Report(report) = QueryError::new(sqlstate, message) {
            put_error(&mut out, "FATAL", &report);
        }
        socket.send_farewell(&out);
    }
}

struct Session<'h> {
    reader: FrameReader,
    writer: FrameWriter,
    handler: &'h mut dyn Handler,
    extended: Extended,
    /// After an error in an extended query everything up to the next Sync is ignored.
    skip_to_sync: bool,
}

impl Session<'_> {
    fn run(&mut self, options: &ConnectionOptions) -> Result<(), ConnectionError> {
        let parameters =
            match startup::receive(&mut self.reader, &mut self.writer, options.startup_timeout)? {
                Opening::Start(parameters) => parameters,
                Opening::Nothing => return Ok(()),
            };
        match self.handler.startup(&parameters) {
            Ok(()) => {}
            Err(QueryError::Connection(error)) => return Err(error),
            Err(QueryError::Report(report)) => {
                self.writer.farewell(|out| put_error(out, "FATAL", &report));
                return Ok(());
            }
        }
        let ConnectionOptions { server_version, parameters: own, .. } = options;
        startup::greet(self.writer.buffer(), server_version, own, &parameters);
        self.ready()?;
        loop {
            let within = Some(limits::MESSAGE_TIMEOUT);
            let frame =
                self.reader.next(Deadline::NEVER, within, "waiting for the rest of a message")?;
            let message = match frame {
                Some(frame) => decode(frame)?,
                None => return Ok(()),
            };
            if !self.answer(message)? {
                return Ok(());
            }
        }
    }

    /// Answers one message; `false` when it was the last.
    fn answer(&mut self, message: Frontend) -> Result<bool, ConnectionError> {
        if self.skip_to_sync && !matches!(message, Frontend::Sync | Frontend::Terminate) {
            return Ok(true);
        }
        let out = self.writer.buffer();
        let done = match message {
            Frontend::Query { sql } => {
                let done = self.simple_query(&sql);
                self.report(done)?;
                self.ready()?;
                return Ok(true);
            }
            Frontend::Parse { statement, sql, parameter_types } => {
                self.extended.parse(out, self.handler, statement, &sql, parameter_types)
            }
            Frontend::Bind(bind) => self.extended.bind(out, bind),
            Frontend::Describe(target) => self.extended.describe(out, &target),
            Frontend::Execute { portal, rows_max } => self.execute(&portal, rows_max),
            Frontend::Close(target) => {
                self.extended.close(out, &target);
                Ok(())
            }
            Frontend::Flush => self.writer.flush().map_err(QueryError::from),
            Frontend::Sync => {
                self.skip_to_sync = false;
                self.extended.sync();
                self.ready()?;
                return Ok(true);
            }
            Frontend::FunctionCall => {
                let error = QueryError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "function calls are not supported",
                );
                self.report(Err(error))?;
                self.ready()?;
                return Ok(true);
            }
            Frontend::CopyLeftover => return Ok(true),
            Frontend::Terminate => return Ok(false),
        };
        self.skip_to_sync = done.is_err();
        self.report(done)?;
        Ok(true)
    }

    fn simple_query(&mut self, sql: &[u8]) -> Result<(), QueryError> {
        let statements = split_statements(text_of(sql)?);
        if statements.is_empty() {
            put_message(self.writer.buffer(), b'I', |_| ());
        }
        for statement in statements {
            let mut out = QueryWriter::new(&mut self.reader, &mut self.writer, Framing::Simple);
            self.handler.query(statement, &mut out)?;
            out.close()?;
        }
        Ok(())
    }

    fn execute(&mut self, name: &str, rows_max: u32) -> Result<(), QueryError> {
        let portal = self.extended.portal(name)?;
        let rows_max = (rows_max > 0).then_some(rows_max as usize);
        match std::mem::replace(&mut portal.progress, Progress::Done) {
            Progress::Done => Err(QueryError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("portal \"{name}\" cannot be run again"),
            )),
            Progress::Fresh if portal.sql.is_empty() => {
                put_message(self.writer.buffer(), b'I', |_| ());
                Ok(())
            }
            Progress::Fresh => {
                let framing = Framing::Extended {
                    columns: portal.columns.clone(),
                    formats: portal.formats.clone(),
                    rows_max,
                };
                let mut out = QueryWriter::new(&mut self.reader, &mut self.writer, framing);
                self.handler.query(&portal.sql, &mut out)?;
                let suspended = out.close()?;
                if !suspended.rows.is_empty() {
                    portal.progress = Progress::Suspended(suspended);
                }
                Ok(())
            }
            Progress::Suspended(mut suspended) => {
                let count = rows_max.unwrap_or(usize::MAX).min(suspended.rows.len());
                for row in suspended.rows.drain(..count) {
                    self.writer.buffer().extend_from_slice(&row);
                    self.writer.flush_if_full()?;
                }
                if suspended.rows.is_empty() {
                    let tag = suspended.tag;
                    put_message(self.writer.buffer(), b'C', |body| {
                        crate::write::put_cstr(body, &tag);
                    });
                } else {
                    portal.progress = Progress::Suspended(suspended);
                    put_message(self.writer.buffer(), b's', |_| ());
                }
                Ok(())
            }
        }
    }

    /// Tells the client of an error that leaves the connection alive.
    fn report(&mut self, done: Result<(), QueryError>) -> Result<(), ConnectionError> {
        if self.writer.is_torn() {
            // A handler may have made something else of the error that it got from us.
            return Err(ConnectionError::Closed);
        }
        match done {
            Ok(()) => Ok(()),
            Err(QueryError::Connection(error)) => Err(error),
            Err(QueryError::Report(report)) => {
                put_error(self.writer.buffer(), "ERROR", &report);
                Ok(())
            }
        }
    }

    /// ReadyForQuery, never inside of a transaction.
    fn ready(&mut self) -> Result<(), ConnectionError> {
        put_message(self.writer.buffer(), b'Z', |body| body.extend_from_slice(b"I"));
        self.writer.flush()
    }

    fn say_farewell(&mut self, error: &ConnectionError) {
        let last = match error {
            ConnectionError::Stopped => stopping(),
            ConnectionError::Protocol(_) | ConnectionError::MessageTooLong { .. } => {
                QueryError::new(SqlState::PROTOCOL_VIOLATION, error.to_string())
            }
            ConnectionError::TimedOut(_) | ConnectionError::Closed | ConnectionError::Io(_) => {
                return;
            }
        };
        if let QueryError::Report(report) = last {
            self.writer.farewell(|out| put_error(out, "FATAL", &report));
        }
    }
}
