//! COPY BOTH between our own client and server.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use postgres_wire::client::{ClientError, Connection};
use postgres_wire::{ConnectionError, SqlState, StopSignal};
use support::{PATIENCE, TestServer, timeouts};

#[test]
fn messages_come_back_and_the_connection_goes_on() {
    let server = TestServer::start();
    for params in [server.unix_params(), server.tcp_params()] {
        let connection = Connection::connect(&params, timeouts()).unwrap();
        let mut copy = connection.copy_both("reflect").unwrap();
        let long = vec![7; 3_000_000];
        copy.send(&[b"a", b"", b"bc"]).unwrap();
        copy.send(&[]).unwrap();
        copy.send(&[b"x", &long]).unwrap();
        assert_eq!(copy.recv().unwrap().unwrap(), "<abc>");
        assert_eq!(copy.recv().unwrap().unwrap(), "<>");
        let answer = copy.recv().unwrap().unwrap();
        assert_eq!(answer.len(), long.len() + 3);
        assert!(answer.starts_with(b"<x\x07") && answer.ends_with(b"\x07>"));
        // What was not received is dropped, and the connection is good for the next command.
        copy.send(&[b"never looked at"]).unwrap();
        let mut connection = copy.finish().unwrap();
        assert_eq!(connection.simple_query("rows 3").unwrap().len(), 3);
        let mut copy = connection.copy_both("reflect").unwrap();
        copy.send(&[b"again"]).unwrap();
        assert_eq!(copy.recv().unwrap().unwrap(), "<again>");
    }
}

/// Far more than the buffers of both sockets hold, sent by one thread that reads nothing until all
/// is sent: the server stops reading while it cannot write, so the client has to read.
#[test]
fn pipelining_does_not_deadlock() {
    let server = TestServer::start();
    let mut copy = server.connect().copy_both("reflect").unwrap();
    let page = [1u8; 8192];
    const COUNT: u32 = 4_000;
    for n in 0..COUNT {
        copy.send(&[&n.to_be_bytes(), &page]).unwrap();
    }
    copy.flush().unwrap();
    for n in 0..COUNT {
        let answer = copy.recv().unwrap().unwrap();
        assert_eq!(answer.get(1..5), Some(&n.to_be_bytes()[..]));
        assert_eq!(answer.len(), 2 + 4 + page.len());
    }
    assert!(copy.try_recv().unwrap().is_none());
    copy.finish().unwrap();
}

#[test]
fn two_threads_use_the_halves() {
    let server = TestServer::start();
    let (mut receiver, mut sender) = server.connect().copy_both("reflect").unwrap().split();
    const COUNT: usize = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..COUNT {
                sender.send(&[n.to_string().as_bytes()]).unwrap();
            }
            sender.done().unwrap();
        });
        for n in 0..COUNT {
            assert_eq!(receiver.recv().unwrap().unwrap(), format!("<{n}>"));
        }
        assert!(receiver.recv().unwrap().is_none());
        assert!(receiver.recv().unwrap().is_none());
    });
}

#[test]
fn disconnecting_wakes_the_other_half() {
    let server = TestServer::start();
    let (mut receiver, sender) = server.connect().copy_both("reflect").unwrap().split();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || receiver.recv());
        sender.disconnect();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, ClientError::Connection(ConnectionError::Closed)), "{error}");
    });
}

#[test]
fn timeouts_leave_the_stream_whole() {
    let server = TestServer::start();
    let mut copy = server.connect().copy_both("reflect").unwrap();
    let error = copy.recv_timeout(Duration::from_millis(5)).unwrap_err();
    assert!(matches!(error, ClientError::Connection(ConnectionError::TimedOut(_))), "{error}");
    copy.send(&[b"late"]).unwrap();
    assert_eq!(copy.recv_timeout(PATIENCE).unwrap().unwrap(), "<late>");
}

#[test]
fn errors_of_the_server() {
    let server = TestServer::start();
    let error = server.connect().copy_both("fail").unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::UNDEFINED_OBJECT));
    let error = server.connect().copy_both("done").unwrap_err();
    assert!(matches!(error, ClientError::Unexpected(_)), "{error}");
    let mut copy = server.connect().copy_both("bothfail").unwrap();
    copy.send(&[b"x"]).unwrap();
    let error = copy.recv().unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::DATA_CORRUPTED));
    // A command that is not for rows, and rows where a COPY was meant: the connection says no more.
    let mut connection = server.connect();
    assert!(connection.simple_query("reflect").is_err());
    assert!(connection.simple_query("done").is_err());
    // An error inside of COPY OUT leaves the connection alive.
    let mut connection = server.connect();
    let error = connection.copy_out("copyfail").unwrap().next_chunk();
    let error = match error {
        Ok(_) => connection.simple_query("done").unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, ClientError::Server(_) | ClientError::Unexpected(_)), "{error}");
}

#[test]
fn stop_signal_ends_a_clients_wait() {
    let server = TestServer::start();
    let stop = StopSignal::new().unwrap();
    let connection =
        Connection::connect_until(&server.unix_params(), timeouts(), Some(&stop)).unwrap();
    let mut copy = connection.copy_both("reflect").unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || copy.recv());
        stop.fire();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, ClientError::Connection(ConnectionError::Stopped)), "{error}");
    });
    assert!(began.elapsed() < PATIENCE);
    let error =
        Connection::connect_until(&server.unix_params(), timeouts(), Some(&stop)).unwrap_err();
    assert!(matches!(error, ClientError::Connection(ConnectionError::Stopped)), "{error}");
}

/// Messages made of parts, to a server without patience: it stops in the middle of many of them, whenever the client
/// has not read enough, and goes on there.
#[test]
fn messages_that_are_sent_together_arrive_whole() {
    let server = TestServer::start();
    for params in [server.unix_params(), server.tcp_params()] {
        let connection = Connection::connect(&params, timeouts()).unwrap();
        let mut copy = connection.copy_both("together 400").unwrap();
        assert_eq!(copy.recv().unwrap().unwrap(), "first");
        for n in 0..400_u32 {
            let message = copy.recv().unwrap().unwrap();
            let (head, parts) = message.split_at(4);
            assert_eq!(head, n.to_be_bytes());
            assert_eq!(parts.len(), (n as usize % 40) * 8192);
            let is_own = |(at, part): (usize, &[u8])| part.iter().all(|b| *b == at as u8);
            assert!(parts.chunks(8192).enumerate().all(is_own), "message {n}");
        }
        copy.finish().unwrap().simple_query("done").unwrap();
    }
}
