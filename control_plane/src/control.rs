//! Commands to the page server, over its SQL-like language.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use postgres_wire::SqlState;
use postgres_wire::client::{
    ClientError, ConnectParams, Connection, CopyOutReader, Row as WireRow, Timeouts,
};

use crate::error::{Error, Result};

/// The file in which the page server says where it can be reached.
pub(crate) const ADDRESS_FILE: &str = "pageserver.addr";

/// Where the page server can be reached, as libpq connection strings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerAddress {
    /// Over its Unix socket.
    pub unix: String,
    /// Over TCP.
    pub tcp: String,
}

impl ServerAddress {
    /// Reads the address file of the repository in `dir`; `None` if it is not there or not whole.
    pub(crate) fn read(dir: &Path) -> Option<ServerAddress> {
        let text = fs::read_to_string(dir.join(ADDRESS_FILE)).ok()?;
        let mut lines = text.lines();
        let (unix, tcp) = (lines.next()?.to_owned(), lines.next()?.to_owned());
        Some(ServerAddress { unix, tcp })
    }
}

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent while it works on a command. Longer than the page server itself
/// waits for WAL by default, so that its error, which names the positions, comes first.
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);

/// A connection to the page server or a compute.
pub(crate) struct Control {
    server: String,
    connection: Connection,
}

impl Control {
    /// Connects to the page server.
    pub(crate) fn connect(connstr: &str) -> Result<Control> {
        Control::connect_to("page server", connstr)
    }

    /// The same for a command that may take as long as it wants.
    pub(crate) fn connect_patiently(connstr: &str) -> Result<Control> {
        Control::connect_within("page server", connstr, None)
    }

    /// Connects to `server`, which is how errors call it.
    pub(crate) fn connect_to(server: &str, connstr: &str) -> Result<Control> {
        Control::connect_within(server, connstr, Some(REPLY_TIMEOUT))
    }

    fn connect_within(server: &str, connstr: &str, reply: Option<Duration>) -> Result<Control> {
        let timeouts =
            Timeouts { connect: CONNECT_TIMEOUT, read: reply, write: Some(REPLY_TIMEOUT) };
        let params: Result<ConnectParams, _> = connstr.parse();
        params
            .map_err(ClientError::from)
            .and_then(|params| Connection::connect(&params, timeouts))
            .map(|connection| Control { server: server.to_owned(), connection })
            .map_err(|error| client_error(server, &error))
    }

    /// Runs a command whose words need no quotes or were quoted with [`quote`].
    pub(crate) fn rows(&mut self, command: &str) -> Result<Vec<Row>> {
        let rows = self
            .connection
            .simple_query(command)
            .map_err(|error| client_error(&self.server, &error))?;
        Ok(rows.into_iter().map(|row| Row { row, command: command.to_owned() }).collect())
    }

    /// Runs a command that answers with one row.
    pub(crate) fn row(&mut self, command: &str) -> Result<Row> {
        self.rows(command)?.pop().ok_or_else(|| protocol(command, "it gave no row"))
    }

    /// Runs a command that answers with a stream of bytes, and gives the stream to `consume`.
    pub(crate) fn copy_out<T>(
        &mut self,
        command: &str,
        consume: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let reader = self
            .connection
            .copy_out(command)
            .map_err(|error| client_error(&self.server, &error))?;
        let mut stream = CopyStream { reader, chunk: Bytes::new(), failure: None };
        // What the consumer makes of an error of the stream hides the server's own words.
        let consumed = consume(&mut stream);
        if let Some(failure) = stream.failure.take() {
            return Err(client_error(&self.server, &failure));
        }
        let consumed = consumed?;
        // Only the end of the stream tells that the server has succeeded.
        while stream
            .reader
            .next_chunk()
            .map_err(|error| client_error(&self.server, &error))?
            .is_some()
        {}
        Ok(consumed)
    }
}

/// A stream that remembers why it broke.
struct CopyStream<'c> {
    reader: CopyOutReader<'c>,
    chunk: Bytes,
    failure: Option<ClientError>,
}

impl Read for CopyStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.reader.next_chunk() {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the server failed"));
                }
            }
        }
        let count = self.chunk.len().min(buffer.len());
        let head = self.chunk.split_to(count);
        if let Some(target) = buffer.get_mut(..count) {
            target.copy_from_slice(&head);
        }
        Ok(count)
    }
}

/// One row of a reply; columns are found by name, so that new ones disturb nobody.
pub(crate) struct Row {
    row: WireRow,
    command: String,
}

impl Row {
    /// All columns that have a text, in the server's order.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let columns = self.row.columns().iter();
        columns.filter_map(|name| Some((name.clone(), self.optional(name)?.to_owned()))).collect()
    }

    /// The column's text; `None` if it is null, empty or absent.
    pub(crate) fn optional(&self, column: &str) -> Option<&str> {
        let at = self.row.columns().iter().position(|name| name == column)?;
        let text = std::str::from_utf8(self.row.get(at)?).ok()?;
        Some(text).filter(|text| !text.is_empty())
    }

    /// The column's text.
    pub(crate) fn text(&self, column: &str) -> Result<&str> {
        self.optional(column)
            .ok_or_else(|| protocol(&self.command, &format!("its row has no {column}")))
    }

    /// The column's value.
    pub(crate) fn value<T: FromStr>(&self, column: &str) -> Result<T> {
        self.parse(column, self.text(column)?)
    }

    /// The column's value, if it has one.
    pub(crate) fn optional_value<T: FromStr>(&self, column: &str) -> Result<Option<T>> {
        self.optional(column).map(|text| self.parse(column, text)).transpose()
    }

    fn parse<T: FromStr>(&self, column: &str, text: &str) -> Result<T> {
        text.parse().map_err(|_| protocol(&self.command, &format!("its {column} is {text:?}")))
    }
}

/// A word of a command: in quotes, quotes within doubled.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn protocol(command: &str, problem: &str) -> Error {
    Error::Connection {
        what: "page server".to_owned(),
        detail: format!(
            "its answer to {command:?} makes no sense: {problem}; is it of another version?"
        ),
    }
}

fn client_error(server: &str, error: &ClientError) -> Error {
    match error {
        ClientError::Server(refused) => {
            let mut message = refused.message.clone();
            for more in [&refused.detail, &refused.hint] {
                if !more.is_empty() {
                    message = format!("{message}; {more}");
                }
            }
            match refused.sqlstate {
                // The page server cancels what has waited too long for WAL.
                SqlState::QUERY_CANCELED => Error::Timeout(message),
                state => Error::PageServer { sqlstate: state.code().to_owned(), message },
            }
        }
        _ => Error::Connection { what: server.to_owned(), detail: causes(error) },
    }
}

/// The error and what lies behind it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quote("host='a b'"), "'host=''a b'''");
    }

    #[test]
    fn address_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ServerAddress::read(dir.path()), None);
        fs::write(dir.path().join(ADDRESS_FILE), "host=/a port=1\n").unwrap();
        assert_eq!(ServerAddress::read(dir.path()), None);
        fs::write(dir.path().join(ADDRESS_FILE), "host=/a port=1\nhost=::1 port=1\n").unwrap();
        let address = ServerAddress::read(dir.path()).unwrap();
        assert_eq!(address.unix, "host=/a port=1");
        assert_eq!(address.tcp, "host=::1 port=1");
    }
}
