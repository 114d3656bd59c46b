//! `Connection`: a session with a server, ready for one command at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::client::auth;
use crate::client::connect::connect;
use crate::client::copy::{ClientCopyBoth, CopyOutReader};
use crate::client::error::{ClientError, ServerError};
use crate::client::params::{ConnectParams, Replication};
use crate::client::row::{Row, column_names};
use crate::error::ConnectionError;
use crate::frame::{Frame, FrameReader};
use crate::limits;
use crate::socket::Deadline;
use crate::stop::StopSignal;
use crate::write::FrameWriter;

/// A Terminate message.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// How long a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection and the login together.
    pub connect: Duration,
    /// For anything at all to arrive, once something was asked for; `None` is for ever.
    pub read: Option<Duration>,
    /// For the server to take anything of what is sent; `None` is for ever.
    pub write: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            read: None,
            write: Some(Duration::from_secs(60)),
        }
    }
}

/// A session with a server. Dropped, it says goodbye and closes.
#[derive(Debug)]
pub struct Connection {
    reader: FrameReader,
    writer: FrameWriter,
    read_timeout: Option<Duration>,
    parameters: BTreeMap<String, String>,
    /// An answer was left in the middle, so that what comes next belongs to it.
    busy: bool,
}

/// What came of a command that was to begin a COPY BOTH.
pub(crate) enum CopyOrRows {
    Copy(ClientCopyBoth),
    Rows(Vec<Row>),
}

impl Connection {
    /// Connects and logs in.
    pub fn connect(params: &ConnectParams, timeouts: Timeouts) -> Result<Connection, ClientError> {
        Connection::connect_until(params, timeouts, None)
    }

    /// As `connect`; every wait, now and later, ends with `ConnectionError::Stopped` when `stop` fires.
    pub fn connect_until(
        params: &ConnectParams,
        timeouts: Timeouts,
        stop: Option<&StopSignal>,
    ) -> Result<Connection, ClientError> {
        let login_timeout = params.connect_timeout.unwrap_or(timeouts.connect);
        let socket = Arc::new(connect(params, Deadline::after(login_timeout), stop)?);
        let mut connection = Connection {
            reader: FrameReader::new(socket.clone(), limits::BACKEND_MESSAGE_BYTES_MAX),
            writer: FrameWriter::new(socket, Some(login_timeout)),
            read_timeout: Some(login_timeout),
            parameters: BTreeMap::new(),
            busy: true,
        };
        connection.send_startup(params)?;
        auth::authenticate(&mut connection, params)?;
        loop {
            match connection.receive_expected()? {
                Message::BackendKeyData(_) => {}
                Message::ReadyForQuery(_) => break,
                _ => return Err(ConnectionError::protocol("unexpected message at login").into()),
            }
        }
        connection.busy = false;
        connection.writer.set_last_words(TERMINATE);
        connection.set_timeouts(timeouts);
        Ok(connection)
    }

    fn send_startup(&mut self, params: &ConnectParams) -> Result<(), ClientError> {
        let mut pairs = vec![("user", params.user.as_str()), ("client_encoding", "UTF8")];
        let optional = [
            ("database", &params.dbname),
            ("application_name", &params.application_name),
            ("options", &params.options),
        ];
        pairs.extend(optional.iter().filter_map(|(name, v)| Some((*name, v.as_deref()?))));
        match params.replication {
            Replication::Off => {}
            Replication::Physical => pairs.push(("replication", "true")),
            Replication::Database => pairs.push(("replication", "database")),
        }
        frontend::startup_message(pairs, self.writer.buffer()).map_err(zero_byte)?;
        Ok(self.writer.flush()?)
    }

    /// Changes how long later reads and writes wait.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.read_timeout = timeouts.read;
        self.writer.set_timeout(timeouts.write);
    }

    /// A parameter that the server has reported, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Runs `sql` and gives its rows; those of all statements if there are several.
    pub fn simple_query(&mut self, sql: &str) -> Result<Vec<Row>, ClientError> {
        self.send_query(sql)?;
        self.receive_rows()
    }

    /// The rows of all that comes up to ReadyForQuery.
    pub(crate) fn receive_rows(&mut self) -> Result<Vec<Row>, ClientError> {
        let first = self.receive_expected()?;
        self.receive_rows_from(first)
    }

    fn receive_rows_from(&mut self, first: Message) -> Result<Vec<Row>, ClientError> {
        let mut rows = Vec::new();
        let mut columns: Arc<[String]> = Arc::new([]);
        let mut message = first;
        loop {
            match message {
                Message::RowDescription(body) => columns = column_names(&body)?,
                Message::DataRow(body) => rows.push(Row::parse(&columns, &body)?),
                Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                Message::ReadyForQuery(_) => {
                    self.busy = false;
                    return Ok(rows);
                }
                _ => return Err(unexpected("neither rows nor the COPY that was meant")),
            }
            message = self.receive_expected()?;
        }
    }

    /// Runs a command that answers with a COPY OUT, and gives its bytes.
    pub fn copy_out(&mut self, sql: &str) -> Result<CopyOutReader<'_>, ClientError> {
        self.send_query(sql)?;
        match self.receive_expected()? {
            Message::CopyOutResponse(_) => Ok(CopyOutReader::begin(self)),
            other => {
                self.receive_rows_from(other)?;
                Err(unexpected("no COPY OUT"))
            }
        }
    }

    /// Runs a command that answers with a COPY BOTH. The connection is lost if it fails.
    pub fn copy_both(self, sql: &str) -> Result<ClientCopyBoth, ClientError> {
        match self.copy_both_or_rows(sql)? {
            CopyOrRows::Copy(copy) => Ok(copy),
            CopyOrRows::Rows(..) => Err(unexpected("no COPY BOTH")),
        }
    }

    /// As `copy_both`, for commands that may find nothing to copy and say why in rows; then too the
    /// connection is given up.
    pub(crate) fn copy_both_or_rows(mut self, sql: &str) -> Result<CopyOrRows, ClientError> {
        self.send_query(sql)?;
        let frame = self.receive_frame()?;
        // CopyBothResponse is unknown to postgres-protocol.
        if frame.tag() == b'W' {
            return Ok(CopyOrRows::Copy(ClientCopyBoth::begin(self)));
        }
        let first = self.parse(frame)?;
        let rows = self.receive_rows_from(first)?;
        Ok(CopyOrRows::Rows(rows))
    }

    fn send_query(&mut self, sql: &str) -> Result<(), ClientError> {
        if self.busy {
            return Err(unexpected("an earlier command was left unfinished"));
        }
        let before = self.writer.buffer().len();
        if let Err(error) = frontend::query(sql, self.writer.buffer()) {
            // Half of a message must not stay behind.
            self.writer.buffer().truncate(before);
            return Err(zero_byte(error));
        }
        self.busy = true;
        self.writer.flush().map_err(|error| last_words(&mut self.reader, error))
    }

    /// The next message, whichever; what can come at any time is dealt with here.
    pub(crate) fn receive_frame(&mut self) -> Result<Frame, ClientError> {
        loop {
            let idle = Deadline::after_option(self.read_timeout);
            let frame = self
                .reader
                .next(idle, self.read_timeout, "waiting for the server")?
                .ok_or(ConnectionError::Closed)?;
            match frame.tag() {
                // Notices and notifications are nobody's business here.
                b'N' | b'A' => {}
                b'S' => {
                    if let Message::ParameterStatus(body) = parse(frame)? {
                        let text = |t: std::io::Result<&str>| t.unwrap_or_default().to_owned();
                        self.parameters.insert(text(body.name()), text(body.value()));
                    }
                }
                _ => return Ok(frame),
            }
        }
    }

    /// The next message; an ErrorResponse is an error, after which the connection is ready again
    /// unless the error was fatal.
    pub(crate) fn receive_expected(&mut self) -> Result<Message, ClientError> {
        let frame = self.receive_frame()?;
        self.parse(frame)
    }

    pub(crate) fn parse(&mut self, frame: Frame) -> Result<Message, ClientError> {
        match parse(frame)? {
            Message::ErrorResponse(body) => {
                let error = ServerError::parse(body.fields())?;
                // At login there is no way back either.
                if !error.is_fatal() && !self.parameters.is_empty() {
                    self.skip_to_ready()?;
                }
                Err(Box::new(error).into())
            }
            message => Ok(message),
        }
    }

    /// Drops what is left of an answer.
    pub(crate) fn skip_to_ready(&mut self) -> Result<(), ClientError> {
        while self.receive_frame()?.tag() != b'Z' {}
        self.busy = false;
        Ok(())
    }

    pub(crate) fn writer(&mut self) -> &mut FrameWriter {
        &mut self.writer
    }

    pub(crate) fn reader(&mut self) -> &mut FrameReader {
        &mut self.reader
    }

    /// Both directions, to be used at the same time.
    pub(crate) fn halves(&mut self) -> (&mut FrameReader, &mut FrameWriter) {
        (&mut self.reader, &mut self.writer)
    }

    /// The directions apart, each to live its own life.
    pub(crate) fn into_halves(mut self) -> (FrameReader, FrameWriter) {
        // A half that is dropped early must not end the other.
        self.writer.set_last_words(&[]);
        (self.reader, self.writer)
    }

    pub(crate) fn read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }
}

/// What a server that no longer listens may have said before it closed: an error tells more than a
/// broken pipe does.
pub(crate) fn last_words(reader: &mut FrameReader, error: ConnectionError) -> ClientError {
    if !matches!(error, ConnectionError::Closed) {
        return error.into();
    }
    while let Ok(Some(frame)) = reader.next(Deadline::after(Duration::ZERO), None, "reading") {
        if let Ok(Message::ErrorResponse(body)) = parse(frame)
            && let Ok(said) = ServerError::parse(body.fields())
        {
            return Box::new(said).into();
        }
    }
    error.into()
}

/// Parses one whole message.
pub(crate) fn parse(frame: Frame) -> Result<Message, ConnectionError> {
    let tag = frame.tag();
    match Message::parse(&mut frame.into_raw()) {
        Ok(Some(message)) => Ok(message),
        Ok(None) | Err(_) => Err(ConnectionError::protocol(format!(
            "malformed message of type '{}' from the server",
            tag.escape_ascii()
        ))),
    }
}

pub(crate) fn unexpected(what: &str) -> ClientError {
    ClientError::Unexpected(what.to_owned())
}

fn zero_byte(_: std::io::Error) -> ClientError {
    unexpected("a command or parameter of ours contains a zero byte")
}
