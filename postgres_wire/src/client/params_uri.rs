//! The URI form of a connection string: `postgresql://user:password@host:port/dbname?name=value`.

use crate::client::params::{ConnectParams, ParamsError};

/// Reads what follows the scheme.
pub(crate) fn parse(rest: &str, params: &mut ConnectParams) -> Result<(), ParamsError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = split_place(place)?;
    for (name, value) in
        [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", dbname)]
    {
        params.set(name, &percent_decode(name, value)?)?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| ParamsError::MissingEquals(pair.to_owned()))?;
        let name = percent_decode("?", name)?;
        params.set(&name, &percent_decode(&name, value)?)?;
    }
    Ok(())
}

/// Host and port; an IPv6 address stands in brackets.
fn split_place(place: &str) -> Result<(&str, &str), ParamsError> {
    if let Some(bracketed) = place.strip_prefix('[') {
        let bad = || ParamsError::BadValue { name: "host".to_owned(), value: place.to_owned() };
        let (host, after) = bracketed.split_once(']').ok_or_else(bad)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if after.is_empty() => Ok((host, "")),
            None => Err(bad()),
        };
    }
    Ok(place.rsplit_once(':').unwrap_or((place, "")))
}

fn percent_decode(part: &str, text: &str) -> Result<String, ParamsError> {
    let bad = || ParamsError::BadPercentEncoding(part.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::client::params::Host;

    #[test]
    fn parts_are_found() {
        let params: ConnectParams =
            "postgresql://me:p%40ss@[::1]:6000/db?application_name=x%20y".parse().unwrap();
        assert_eq!(params.host, Host::Tcp("::1".to_owned()));
        assert_eq!((params.port, params.user.as_str()), (6000, "me"));
        assert_eq!(params.password.as_deref(), Some("p@ss"));
        assert_eq!(params.dbname.as_deref(), Some("db"));
        assert_eq!(params.application_name.as_deref(), Some("x y"));
        let params: ConnectParams = "postgres://%2Frun%2Fpg/".parse().unwrap();
        assert_eq!(params.host, Host::UnixDirectory("/run/pg".into()));
        let params: ConnectParams = "postgres:///db?host=/tmp&port=7".parse().unwrap();
        assert_eq!(params.address(), "/tmp/.s.PGSQL.7");
        assert!("postgres://%zz".parse::<ConnectParams>().is_err());
        assert!("postgres://[::1".parse::<ConnectParams>().is_err());
    }
}
