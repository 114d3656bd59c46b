//! Commands to the page server, over its SQL-like language.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

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

/// A connection to the page server.
pub(crate) struct Control {
    client: Client,
}

impl Control {
    pub(crate) fn connect(connstr: &str) -> Result<Control> {
        let client = Client::connect(connstr, NoTls).map_err(connection_error)?;
        Ok(Control { client })
    }

    /// Runs a command whose words need no quotes or were quoted with [`quote`].
    pub(crate) fn rows(&mut self, command: &str) -> Result<Vec<Row>> {
        let messages = self.client.simple_query(command).map_err(connection_error)?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(Row { row, command: command.to_owned() }),
                _ => None,
            })
            .collect())
    }

    /// Runs a command that answers with one row.
    pub(crate) fn row(&mut self, command: &str) -> Result<Row> {
        self.rows(command)?.pop().ok_or_else(|| protocol(command, "it gave no row"))
    }
}

/// One row of a reply; columns are found by name, so that new ones disturb nobody.
pub(crate) struct Row {
    row: SimpleQueryRow,
    command: String,
}

impl Row {
    /// The column's text; `None` if it is null, empty or absent.
    pub(crate) fn optional(&self, column: &str) -> Option<&str> {
        self.row.try_get(column).ok().flatten().filter(|text| !text.is_empty())
    }

    /// The column's text.
    pub(crate) fn text(&self, column: &str) -> Result<&str> {
        self.optional(column)
            .ok_or_else(|| protocol(&self.command, &format!("its row has no {column}")))
    }

    /// All columns that have a text, in the server's order.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let columns = self.row.columns().iter().enumerate();
        columns
            .filter_map(|(at, column)| {
                let text = self.row.try_get(at).ok().flatten()?;
                Some((column.name().to_owned(), text.to_owned()))
            })
            .collect()
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

fn connection_error(error: postgres::Error) -> Error {
    match error.as_db_error() {
        Some(refused) => Error::PageServer {
            sqlstate: refused.code().code().to_owned(),
            message: refused.message().to_owned(),
        },
        None => Error::Connection { what: "page server".to_owned(), detail: causes(&error) },
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
