//! Servers that are not there, or not what they should be.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use postgres_wire::ConnectionError;
use postgres_wire::client::{ClientError, ConnectParams, Connection, Timeouts};
use proptest::prelude::*;
use support::{PATIENCE, TestServer, timeouts};

#[test]
fn nobody_there() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("host={} user=x", folder.path().display());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tcp = format!("host=127.0.0.1 port={port} user=x");
    let long = format!("host=/{} user=x", "x".repeat(200));
    for params in [unix, tcp, long] {
        let params: ConnectParams = params.parse().unwrap();
        let error = Connection::connect(&params, timeouts()).unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
        assert!(error.is_transient());
        assert!(error.to_string().contains(&params.address()), "{error}");
    }
}

#[test]
fn a_server_that_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let params: ConnectParams = format!("host=127.0.0.1 port={port} user=x").parse().unwrap();
    let began = Instant::now();
    let short = Timeouts { connect: Duration::from_millis(50), ..timeouts() };
    let error = Connection::connect(&params, short).unwrap_err();
    assert!(matches!(error, ClientError::Connection(ConnectionError::TimedOut(_))), "{error}");
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn rows_by_number_and_by_name() {
    let server = TestServer::start();
    let mut connection = server.connect();
    assert_eq!(connection.parameter("server_encoding"), Some("UTF8"));
    let rows = connection.simple_query("rows 2").unwrap();
    assert_eq!(rows[1].columns(), ["n", "nothing", "even"]);
    assert_eq!((rows[1].get(0), rows[1].get(1), rows[1].get(9)), (Some(&b"1"[..]), None, None));
    assert_eq!(rows[0].text("even").unwrap(), "t");
    assert!(rows[0].text("nothing").is_err());
    assert!(rows[0].text("colour").is_err());
    let error = connection.simple_query("rows 1; fail; rows 1").unwrap_err();
    let ClientError::Server(error) = error else { panic!("{error}") };
    assert_eq!(error.to_string(), "ERROR: no such branch (SQLSTATE 42704)");
    assert_eq!((error.detail.as_str(), error.hint.as_str()), ("There are three.", "Look again."));
    assert!(connection.simple_query("a\0b").is_err());
    assert_eq!(connection.simple_query("").unwrap().len(), 0);
}

/// Whatever a server says, the client ends with an error, in time.
#[test]
fn servers_that_talk_nonsense() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let params: ConnectParams =
        format!("host=127.0.0.1 port={port} user=x password=y").parse().unwrap();
    let (give, take) = std::sync::mpsc::channel::<Vec<u8>>();
    let server = std::thread::spawn(move || {
        while let Ok(bytes) = take.recv() {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(&bytes);
        }
    });
    let logged_in = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0Z\0\0\0\x05I";
    let tags = prop::sample::select(b"RSKZTDCEHWGdcNAItn123v".to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 0..80);
    let config = ProptestConfig { cases: 300, ..ProptestConfig::default() };
    proptest!(config, |(login: bool, raw: bool, tag in tags, bytes in bytes)| {
        let mut said = if login { logged_in.to_vec() } else { Vec::new() };
        if !raw {
            said.push(tag);
            said.extend((bytes.len() as u32 + 4).to_be_bytes());
        }
        said.extend(&bytes);
        give.send(said).unwrap();
        match Connection::connect(&params, timeouts()) {
            Ok(mut connection) => {
                let _ = connection.simple_query("x");
            }
            Err(error) => drop(error.to_string()),
        }
    });
    drop(give);
    server.join().unwrap();
}
