//! `ConnectParams`: where and as whom to connect, read from a connection string like libpq's.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::client::params_uri;

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;
/// Used where the connection string names nobody. libpq takes the operating system's account; here
/// that would depend on which of several accounts runs the process.
const DEFAULT_USER: &str = "postgres";

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, over TCP.
    Tcp(String),
    /// A folder with the socket `.s.PGSQL.PORT`.
    UnixDirectory(PathBuf),
}

/// The `replication` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Replication {
    /// An ordinary connection.
    #[default]
    Off,
    /// Physical replication: the server becomes a WAL sender.
    Physical,
    /// A WAL sender that is connected to a database.
    Database,
}

/// Where and as whom to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectParams {
    /// Where the server is.
    pub host: Host,
    /// Its port, which also names the Unix-domain socket.
    pub port: u16,
    /// The user; `postgres` unless given.
    pub user: String,
    /// The password, should the server ask.
    pub password: Option<String>,
    /// The database; the server takes the user's name if there is none.
    pub dbname: Option<String>,
    /// How the connection calls itself in the server's views and logs.
    pub application_name: Option<String>,
    /// The `options` parameter, command-line options for the server session.
    pub options: Option<String>,
    /// Whether this is a replication connection.
    pub replication: Replication,
    /// The `connect_timeout` of the string; takes the place of `Timeouts::connect`.
    pub connect_timeout: Option<Duration>,
}

impl Default for ConnectParams {
    fn default() -> ConnectParams {
        ConnectParams {
            host: Host::Tcp("localhost".to_owned()),
            port: DEFAULT_PORT,
            user: DEFAULT_USER.to_owned(),
            password: None,
            dbname: None,
            application_name: None,
            options: None,
            replication: Replication::Off,
            connect_timeout: None,
        }
    }
}

/// The password must not reach a log.
impl fmt::Debug for ConnectParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectParams")
            .field("address", &self.address())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("dbname", &self.dbname)
            .field("replication", &self.replication)
            .finish_non_exhaustive()
    }
}

impl ConnectParams {
    /// The address for messages: `host:port`, or the path of the socket.
    pub fn address(&self) -> String {
        match &self.host {
            Host::Tcp(name) => format!("{name}:{}", self.port),
            Host::UnixDirectory(_) => self.unix_socket().display().to_string(),
        }
    }

    /// Path of the Unix-domain socket; meaningless for TCP.
    pub(crate) fn unix_socket(&self) -> PathBuf {
        match &self.host {
            Host::UnixDirectory(folder) => folder.join(format!(".s.PGSQL.{}", self.port)),
            Host::Tcp(_) => PathBuf::new(),
        }
    }

    /// Sets one parameter by its libpq name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), ParamsError> {
        let bad = || ParamsError::BadValue { name: name.to_owned(), value: value.to_owned() };
        // libpq takes an empty value for one that is not given.
        if value.is_empty() {
            return Ok(());
        }
        match name {
            "host" | "hostaddr" if value.contains(',') => return Err(ParamsError::SeveralHosts),
            "host" if value.starts_with('/') => self.host = Host::UnixDirectory(value.into()),
            "host" | "hostaddr" => self.host = Host::Tcp(value.to_owned()),
            "port" => {
                self.port = value.parse().ok().filter(|&port| port != 0).ok_or_else(bad)?;
            }
            "user" => self.user = value.to_owned(),
            "password" => self.password = Some(value.to_owned()),
            "dbname" => self.dbname = Some(value.to_owned()),
            "application_name" => self.application_name = Some(value.to_owned()),
            "fallback_application_name" => {
                self.application_name.get_or_insert_with(|| value.to_owned());
            }
            "options" => self.options = Some(value.to_owned()),
            "replication" => {
                self.replication = match value {
                    "true" | "on" | "yes" | "1" => Replication::Physical,
                    "database" => Replication::Database,
                    "false" | "off" | "no" | "0" => Replication::Off,
                    _ => return Err(bad()),
                };
            }
            "connect_timeout" => {
                let seconds: u64 = value.parse().map_err(|_| bad())?;
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            // There is no TLS here, which is what these say as well.
            "sslmode" if matches!(value, "disable" | "allow" | "prefer") => {}
            "gssencmode" if matches!(value, "disable" | "prefer") => {}
            "sslmode" | "gssencmode" => return Err(bad()),
            // How the kernel watches the connection; we have our own settings.
            "keepalives"
            | "keepalives_idle"
            | "keepalives_interval"
            | "keepalives_count"
            | "tcp_user_timeout" => {}
            "client_encoding" if value.eq_ignore_ascii_case("utf8") => {}
            "client_encoding" => return Err(bad()),
            _ => return Err(ParamsError::UnknownName(name.to_owned())),
        }
        Ok(())
    }
}

/// Reads `name=value` pairs (values quoted with `'`, `\` escapes), or a `postgresql://` URI.
impl FromStr for ConnectParams {
    type Err = ParamsError;

    fn from_str(text: &str) -> Result<ConnectParams, ParamsError> {
        let mut params = ConnectParams::default();
        for scheme in ["postgresql://", "postgres://"] {
            if let Some(rest) = text.strip_prefix(scheme) {
                params_uri::parse(rest, &mut params)?;
                return Ok(params);
            }
        }
        for (name, value) in parse_pairs(text)? {
            params.set(&name, &value)?;
        }
        Ok(params)
    }
}

fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, ParamsError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) =
            rest.split_once('=').ok_or_else(|| ParamsError::MissingEquals(rest.to_owned()))?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(ParamsError::MissingEquals(name.to_owned()));
        }
        let (value, after) = parse_value(after.trim_start())?;
        pairs.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// The value at the front of `text`, and what follows it.
fn parse_value(text: &str) -> Result<(String, &str), ParamsError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, escaped)) => value.push(escaped),
                None if quoted => return Err(ParamsError::UnterminatedQuote),
                None => return Ok((value, "")),
            },
            '\'' if quoted => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            c if c.is_whitespace() && !quoted => {
                return Ok((value, text.get(at..).unwrap_or_default()));
            }
            c => value.push(c),
        }
    }
    if quoted { Err(ParamsError::UnterminatedQuote) } else { Ok((value, "")) }
}

/// What is wrong with a connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// Not `name=value`.
    #[error("missing \"=\" after \"{0}\"")]
    MissingEquals(String),
    /// A quote is not closed.
    #[error("unterminated quoted string")]
    UnterminatedQuote,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8, in the named
    /// part. The text itself may be a password.
    #[error("invalid percent-encoding in the {0}")]
    BadPercentEncoding(String),
    /// A parameter that this client does not know.
    #[error("unknown connection parameter \"{0}\"")]
    UnknownName(String),
    /// A value that makes no sense, or asks for what this client cannot do (TLS, for one).
    #[error("value \"{value}\" of connection parameter \"{name}\" is invalid or not supported")]
    BadValue {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
    },
    /// A list of hosts.
    #[error("several hosts in one connection string are not supported")]
    SeveralHosts,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_read_as_libpq_does() {
        let params: ConnectParams =
            r"host = /run/pg port=6000 user='o\'neil x' password=a\ b dbname='' connect_timeout=3"
                .parse()
                .unwrap();
        assert_eq!(params.host, Host::UnixDirectory("/run/pg".into()));
        assert_eq!(params.address(), "/run/pg/.s.PGSQL.6000");
        assert_eq!(params.user, "o'neil x");
        assert_eq!(params.password.as_deref(), Some("a b"));
        assert_eq!(params.dbname, None);
        assert_eq!(params.connect_timeout, Some(Duration::from_secs(3)));
        assert!(!format!("{params:?}").contains("a b"));
    }

    #[test]
    fn nonsense_is_named() {
        let error = |text: &str| text.parse::<ConnectParams>().unwrap_err();
        assert_eq!(error("host"), ParamsError::MissingEquals("host".into()));
        assert_eq!(error("a b=1"), ParamsError::MissingEquals("a b".into()));
        assert_eq!(error("colour=red"), ParamsError::UnknownName("colour".into()));
        assert_eq!(error("user='x"), ParamsError::UnterminatedQuote);
        assert_eq!(error("host=a,b"), ParamsError::SeveralHosts);
        for bad in ["port=0", "port=x", "port=65536", "sslmode=require", "replication=maybe"] {
            assert!(matches!(error(bad), ParamsError::BadValue { .. }), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn quoted_values_survive(value in ".+") {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            let params: ConnectParams = format!("password='{quoted}' port=1").parse().unwrap();
            prop_assert_eq!(params.password.unwrap(), value);
        }

        #[test]
        fn any_text_is_survived(text in "(postgres://)?.*") {
            let _ = text.parse::<ConnectParams>();
        }
    }
}
