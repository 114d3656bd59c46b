//! Proving who we are: cleartext, md5 and SCRAM-SHA-256 passwords.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::params::ConnectParams;
use crate::error::ConnectionError;

/// Answers the server's requests until it says AuthenticationOk.
pub(crate) fn authenticate(
    connection: &mut Connection,
    params: &ConnectParams,
) -> Result<(), ClientError> {
    loop {
        match connection.receive_expected()? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                let password = password_of(params)?;
                send_password(connection, password.as_bytes())?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = password_of(params)?;
                let hash = md5_hash(params.user.as_bytes(), password.as_bytes(), body.salt());
                send_password(connection, hash.as_bytes())?;
            }
            Message::AuthenticationSasl(body) => scram(connection, params, &body)?,
            Message::AuthenticationGss
            | Message::AuthenticationSspi
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential => {
                return Err(refused("the server asks for a method other than a password"));
            }
            _ => return Err(ConnectionError::protocol("unexpected message at login").into()),
        }
    }
}

fn scram(
    connection: &mut Connection,
    params: &ConnectParams,
    offer: &AuthenticationSaslBody,
) -> Result<(), ClientError> {
    let mut offered = offer.mechanisms();
    let mut found = false;
    let malformed = |_| ConnectionError::protocol("malformed SASL offer");
    while let Some(name) = offered.next().map_err(malformed)? {
        found |= name == sasl::SCRAM_SHA_256;
    }
    if !found {
        return Err(refused("the server offers no SCRAM-SHA-256"));
    }
    let password = password_of(params)?;
    let binding = sasl::ChannelBinding::unsupported();
    let mut scram = sasl::ScramSha256::new(password.as_bytes(), binding);
    let failed = |e: std::io::Error| refused(&e.to_string());

    frontend::sasl_initial_response(
        sasl::SCRAM_SHA_256,
        scram.message(),
        connection.writer().buffer(),
    )
    .map_err(failed)?;
    connection.writer().flush()?;
    match connection.receive_expected()? {
        Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(failed)?,
        _ => return Err(ConnectionError::protocol("expected a SASL challenge").into()),
    }
    frontend::sasl_response(scram.message(), connection.writer().buffer()).map_err(failed)?;
    connection.writer().flush()?;
    match connection.receive_expected()? {
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(failed),
        _ => Err(ConnectionError::protocol("expected the end of SASL").into()),
    }
}

fn send_password(connection: &mut Connection, password: &[u8]) -> Result<(), ClientError> {
    frontend::password_message(password, connection.writer().buffer())
        .map_err(|_| refused("the password contains a zero byte"))?;
    Ok(connection.writer().flush()?)
}

fn password_of(params: &ConnectParams) -> Result<&str, ClientError> {
    params.password.as_deref().ok_or_else(|| refused("the server asks for a password"))
}

fn refused(why: &str) -> ClientError {
    ClientError::Authentication(why.to_owned())
}
