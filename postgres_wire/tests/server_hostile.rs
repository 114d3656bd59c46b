//! Clients that are broken, hostile or gone: the server outlives them, and stops without them.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use postgres_wire::SqlState;
use postgres_wire::client::{ClientError, Connection};
use postgres_wire::server::{ConnectionOptions, ListenAddress, Listener, ServerOptions};
use proptest::prelude::*;
use support::{PATIENCE, TestServer, timeouts};

/// A stop that is not held up by anybody is over long before this.
const PROMPT: Duration = Duration::from_secs(5);

fn startup_packet() -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    body.extend(b"user\0alice\0\0");
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

/// Reads until the server ends the connection.
fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too: the server may not have read all that was sent.
    if let Err(e) = stream.read_to_end(&mut bytes) {
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
    }
    bytes
}

fn still_serves(server: &TestServer) {
    assert_eq!(server.connect().simple_query("user").unwrap().len(), 1);
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn garbage_instead_of_a_startup_packet() {
    let server = TestServer::start();
    let samples: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 8],
        &[0xFF; 64],
        &[0, 0, 0, 8, 0, 2, 0, 0],
        &[0, 0, 0, 9, 0, 3, 0, 0, 0],
        &[0, 0, 0, 12, 0, 3, 0, 0, b'u', b's', b'e', b'r'],
        &[0, 0, 0, 14, 0, 3, 0, 0, b'u', 0, 0xFF, 0, 0, 0],
    ];
    for sample in samples {
        let mut stream = server.tcp();
        stream.write_all(sample).unwrap();
        let answer = read_all(stream);
        assert_eq!(answer.first(), Some(&b'E'), "{sample:?}");
        assert!(contains(&answer, "FATAL") && contains(&answer, "08P01"), "{sample:?}");
    }
    still_serves(&server);
}

#[test]
fn encryption_is_refused_and_cancel_requests_are_ignored() {
    let server = TestServer::start();
    let mut stream = server.tcp();
    for code in [80_877_103u32, 80_877_104] {
        stream.write_all(&[&8u32.to_be_bytes()[..], &code.to_be_bytes()].concat()).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"N");
    }
    stream.write_all(&startup_packet()).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"R");

    let mut stream = server.tcp();
    let request = [&16u32.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &[0; 8]].concat();
    stream.write_all(&request).unwrap();
    assert_eq!(read_all(stream), b"");
    still_serves(&server);
}

#[test]
fn a_newer_minor_version_is_negotiated_down() {
    let server = TestServer::start();
    let mut body = 196_610u32.to_be_bytes().to_vec();
    body.extend(b"user\0alice\0_pq_.future\0x\0\0");
    let mut stream = server.tcp();
    stream.write_all(&(body.len() as u32 + 4).to_be_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = vec![0; 1 + 4 + 8 + b"_pq_.future\0".len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], b'v');
    assert_eq!(answer[5..13], [0, 3, 0, 0, 0, 0, 0, 1]);
    assert!(contains(&answer, "_pq_.future"));
}

#[test]
fn messages_that_claim_too_much_or_make_no_sense() {
    let server = TestServer::start();
    let samples = [
        vec![b'Q', 0x7F, 0xFF, 0xFF, 0xFF],
        vec![b'Q', 0xFF, 0xFF, 0xFF, 0xFF],
        vec![b'Q', 0, 0, 0, 3],
        vec![b'?', 0, 0, 0, 4],
        message(b'Q', b"not terminated"),
        message(b'Q', b"two\0strings\0"),
        message(b'B', b"\0\0\0\x01\0\0\0\x01\x7F\xFF\xFF\xFF"),
        message(b'P', b"\0x\0\xFF\xFF"),
        message(b'D', b"X\0"),
    ];
    for sample in samples {
        let mut stream = server.tcp();
        stream.write_all(&startup_packet()).unwrap();
        stream.write_all(&sample).unwrap();
        let answer = read_all(stream);
        assert!(contains(&answer, "FATAL") && contains(&answer, "08P01"), "{sample:?}");
    }
    still_serves(&server);
}

#[test]
fn text_that_is_not_utf8_is_an_ordinary_error() {
    let server = TestServer::start();
    let mut stream = server.tcp();
    stream.write_all(&startup_packet()).unwrap();
    stream.write_all(&message(b'Q', b"\xFF\xFE\0")).unwrap();
    stream.write_all(&message(b'X', b"")).unwrap();
    let answer = read_all(stream);
    assert!(contains(&answer, "22021") && contains(&answer, "ERROR"));
}

#[test]
fn clients_that_vanish_at_any_point() {
    let server = TestServer::start();
    let whole = [startup_packet(), message(b'Q', b"rows 100000\0")].concat();
    for length in 0..whole.len() {
        let mut stream = server.tcp();
        stream.write_all(&whole[..length]).unwrap();
        drop(stream);
    }
    // In the middle of an answer, with an orderly end and with a reset.
    for _ in 0..5 {
        let mut stream = server.tcp();
        stream.write_all(&whole).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        drop(stream);
        let mut stream = server.tcp();
        stream.write_all(&whole).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(contains(&read_all(stream), "SELECT 100000"));
    }
    still_serves(&server);
    assert!(server.stop() < PROMPT);
}

#[test]
fn a_reader_that_takes_nothing_is_given_up() {
    let write_timeout = Duration::from_millis(100);
    let connection = ConnectionOptions { write_timeout, ..ConnectionOptions::default() };
    let server = TestServer::start_with(ServerOptions { connection, ..ServerOptions::default() });
    let mut stream = server.tcp();
    stream.write_all(&startup_packet()).unwrap();
    stream.write_all(&message(b'Q', b"copyout 100000000\0")).unwrap();
    // The server gives up while nothing is read; what it had sent ends without a conclusion.
    let began = Instant::now();
    while open_connections(&server) > 0 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let answer = read_all(stream);
    assert!(answer.len() < 100_000_000 && !answer.ends_with(b"Z\0\0\0\x05I"));
}

/// Connections of the server side, by the kernel's account.
fn open_connections(server: &TestServer) -> usize {
    let wanted = format!(":{:04X} ", server.address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let established = |line: &&str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1).unwrap_or_default();
        format!("{local} ").ends_with(&wanted) && fields.nth(1) == Some("01")
    };
    table.lines().filter(established).count()
}

#[test]
fn a_client_that_does_not_say_who_it_is_is_given_up() {
    let startup_timeout = Duration::from_millis(50);
    let connection = ConnectionOptions { startup_timeout, ..ConnectionOptions::default() };
    let server = TestServer::start_with(ServerOptions { connection, ..ServerOptions::default() });
    for length in [0, 3, 8, startup_packet().len() - 1] {
        let mut stream = server.tcp();
        stream.write_all(&startup_packet()[..length]).unwrap();
        assert_eq!(read_all(stream), b"");
    }
    still_serves(&server);
}

#[test]
fn a_slow_reader_gets_everything() {
    let write_timeout = Duration::from_secs(5);
    let connection = ConnectionOptions { write_timeout, ..ConnectionOptions::default() };
    let server = TestServer::start_with(ServerOptions { connection, ..ServerOptions::default() });
    let mut connection = server.connect();
    let mut reader = connection.copy_out("copyout 3000000").unwrap();
    let mut bytes = 0;
    while let Some(chunk) = reader.next_chunk().unwrap() {
        std::thread::sleep(Duration::from_millis(2));
        bytes += chunk.len();
    }
    assert_eq!(bytes, 3_000_000);
}

#[test]
fn stopping_waits_for_nobody() {
    let server = TestServer::start();
    // Nothing said yet; half a startup packet; idle; half a message; an answer that is not read; a
    // COPY BOTH that is silent.
    let silent = server.tcp();
    let mut half = server.tcp();
    half.write_all(&startup_packet()[..6]).unwrap();
    let mut idle = server.connect();
    idle.simple_query("done").unwrap();
    let mut begun = server.tcp();
    begun.write_all(&startup_packet()).unwrap();
    begun.write_all(b"Q\0\0\0\xFFhalf").unwrap();
    let mut unread = server.tcp();
    unread.write_all(&startup_packet()).unwrap();
    unread.write_all(&message(b'Q', b"copyout 100000000\0")).unwrap();
    unread.read_exact(&mut [0; 10_000]).unwrap();
    let mut both = server.connect().copy_both("reflect").unwrap();
    both.send(&[b"x"]).unwrap();
    assert_eq!(both.recv().unwrap().unwrap(), "<x>");
    assert!(server.stop() < PROMPT);

    // Those who listen are told why.
    for error in [idle.simple_query("done").unwrap_err(), both.recv().unwrap_err()] {
        assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{error}");
        assert!(error.is_transient());
    }
    assert!(contains(&read_all(begun), "57P01"));
    drop((silent, half, unread));
}

#[test]
fn a_command_that_panics_costs_its_connection_only() {
    let server = TestServer::start();
    let mut other = server.connect();
    let error = server.connect().simple_query("panic").unwrap_err();
    assert!(error.is_transient(), "{error}");
    other.simple_query("done").unwrap();
}

#[test]
fn too_many_connections_are_refused() {
    let server =
        TestServer::start_with(ServerOptions { connections_max: 2, ..ServerOptions::default() });
    let (first, _second) = (server.connect(), server.connect());
    let error = Connection::connect(&server.tcp_params(), timeouts()).unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::TOO_MANY_CONNECTIONS));
    assert!(error.is_transient());
    drop(first);
    let began = Instant::now();
    while Connection::connect(&server.tcp_params(), timeouts()).is_err() {
        assert!(began.elapsed() < PATIENCE, "the place is not given back");
    }
}

#[test]
fn addresses_in_use_and_left_over() {
    let server = TestServer::start();
    let path = server.socket_path();
    let unix = [ListenAddress::Unix { path: path.clone(), mode: 0o600 }];
    let error = Listener::bind(&unix).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(path.to_str().unwrap()));
    let error = Listener::bind(&[ListenAddress::Tcp(server.address)]).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    still_serves(&server);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("left over");
    // A socket without a server, as after a crash.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let unix = [ListenAddress::Unix { path: path.clone(), mode: 0o600 }];
    let listener = Listener::bind(&unix).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_refused_user_is_told() {
    let server = TestServer::start();
    let mut params = server.unix_params();
    params.user = "mallory".to_owned();
    let error = Connection::connect(&params, timeouts()).unwrap_err();
    let ClientError::Server(error) = error else { panic!("{error}") };
    assert!(error.is_fatal());
    assert_eq!(error.message, "mallory is not welcome");
}

#[test]
fn random_bytes() {
    let server = TestServer::start();
    let config = ProptestConfig { cases: 200, ..ProptestConfig::default() };
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let tags = prop::sample::select(b"QPBDECHSFdcfX".to_vec());
    proptest!(config, |(logged_in: bool, raw: bool, bytes in bytes, tag in tags)| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sent = if logged_in { startup_packet() } else { Vec::new() };
        if raw {
            sent.extend(&bytes);
        } else {
            sent.extend(message(tag, &bytes));
        }
        // The server may be through with us before we are.
        let _ = stream.write_all(&sent).and_then(|()| stream.shutdown(Shutdown::Write));
        read_all(stream);
    });
    still_serves(&server);
}
