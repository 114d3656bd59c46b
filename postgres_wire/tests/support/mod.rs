//! A server with test commands, on a TCP port and a Unix-domain socket of its own.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres_wire::client::{ConnectParams, Connection, Timeouts};
use postgres_wire::server::{
    Column, Handler, ListenAddress, Listener, QueryError, QueryWriter, ServerOptions,
    StartupParameters, command_words, serve,
};
use postgres_wire::{SqlState, StopSignal};
use slog::{Discard, Logger, o};

/// Longer than anything here may take, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct TestHandler {
    user: String,
}

impl Handler for TestHandler {
    fn startup(&mut self, parameters: &StartupParameters) -> Result<(), QueryError> {
        self.user = parameters.user().to_owned();
        if self.user == "mallory" {
            return Err(QueryError::new(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                "mallory is not welcome",
            ));
        }
        Ok(())
    }

    fn describe(&mut self, sql: &str) -> Result<Option<Vec<Column>>, QueryError> {
        Ok(match sql.split_whitespace().next() {
            Some("rows") => Some(rows_columns()),
            Some("echo") => Some(vec![Column::text("word")]),
            Some("liar") => Some(vec![Column::text("truth")]),
            Some("unknown") => return Err(unknown(sql)),
            _ => None,
        })
    }

    fn query(&mut self, sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        let words = command_words(sql)?;
        let argument = |at: usize| {
            words.get(at).and_then(|w| w.parse::<usize>().ok()).ok_or_else(|| {
                QueryError::new(SqlState::INVALID_PARAMETER_VALUE, "expected a number")
            })
        };
        match words[0].as_str() {
            "rows" => {
                out.row_description(&rows_columns())?;
                for n in 0..argument(1)? {
                    let text = n.to_string();
                    let even = if n % 2 == 0 { "t" } else { "f" };
                    out.data_row(&[Some(text.as_bytes()), None, Some(even.as_bytes())])?;
                }
                out.complete(&format!("SELECT {}", argument(1)?))
            }
            "echo" => {
                out.row_description(&[Column::text("word")])?;
                for word in &words[1..] {
                    out.data_row(&[Some(word.as_bytes())])?;
                }
                Ok(())
            }
            "liar" => out.row_description(&[Column::text("lie")]),
            "user" => {
                out.row_description(&[Column::text("user")])?;
                out.data_row(&[Some(self.user.as_bytes())])
            }
            "done" => out.complete("DONE"),
            "fail" => Err(QueryError::new(SqlState::UNDEFINED_OBJECT, "no such branch")
                .with_detail("There are three.")
                .with_hint("Look again.")),
            "panic" => panic!("as asked for"),
            "copyout" => {
                let mut copy = out.copy_out()?;
                let piece: Vec<u8> = (0..=255).collect();
                let mut left = argument(1)?;
                while left > 0 {
                    let part = &piece[..left.min(piece.len())];
                    copy.write_all(part)
                        .map_err(|e| QueryError::new(SqlState::IO_ERROR, e.to_string()))?;
                    left -= part.len();
                }
                copy.finish()?;
                out.complete("COPY")
            }
            "copyhalf" => {
                out.copy_out()?.write_all(b"half of it").unwrap();
                Ok(())
            }
            "copyfail" => {
                out.copy_out()?.write_all(b"half of it").unwrap();
                Err(QueryError::new(SqlState::DATA_CORRUPTED, "found rot"))
            }
            // Sends every message back, in batches of what came together.
            "reflect" => {
                let mut copy = out.copy_both()?;
                while let Some(first) = copy.recv()? {
                    copy.send(&[b"<", &first, b">"])?;
                    while let Some(next) = copy.try_recv_buffered() {
                        copy.send(&[b"<", &next, b">"])?;
                    }
                }
                Ok(())
            }
            // Sends so many messages, each of a head and many parts, as fast as the client takes them.
            "together" => {
                let mut copy = out.copy_both()?;
                let parts: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 8192]).collect();
                copy.send(&[b"first"])?;
                let mut next = 0_u32;
                while next < argument(1)? as u32 {
                    let heads: Vec<[u8; 4]> = (next..next + 5).map(u32::to_be_bytes).collect();
                    let parts_of = |n: u32| &parts[..(n as usize % 40)];
                    let messages: Vec<([u8; 4], &[Vec<u8>])> = heads
                        .iter()
                        .map(|head| (*head, parts_of(u32::from_be_bytes(*head))))
                        .collect();
                    let sent = copy.send_together(&messages, Duration::ZERO)?;
                    next += sent as u32;
                    if sent < messages.len() {
                        copy.wait_for_room()?;
                    }
                }
                copy.finish()?;
                out.complete("COPY")
            }
            "bothfail" => {
                let mut copy = out.copy_both()?;
                copy.recv()?;
                Err(QueryError::new(SqlState::DATA_CORRUPTED, "found rot"))
            }
            _ => Err(unknown(sql)),
        }
    }
}

fn rows_columns() -> Vec<Column> {
    vec![Column::int8("n"), Column::text("nothing"), Column::bool("even")]
}

fn unknown(sql: &str) -> QueryError {
    QueryError::new(SqlState::SYNTAX_ERROR, format!("unknown command \"{sql}\""))
}

pub struct TestServer {
    pub stop: StopSignal,
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub fn start() -> TestServer {
        TestServer::start_with(ServerOptions::default())
    }

    pub fn start_with(options: ServerOptions) -> TestServer {
        let folder = tempfile::tempdir().unwrap();
        let stop = StopSignal::new().unwrap();
        let listener = Listener::bind(&[
            ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()),
            ListenAddress::Unix { path: folder.path().join(".s.PGSQL.5432"), mode: 0o600 },
        ])
        .unwrap();
        let address = listener.tcp_addresses()[0];
        let thread_stop = stop.clone();
        let thread = std::thread::spawn(move || {
            let log = Logger::root(Discard, o!());
            serve(&listener, &options, &thread_stop, &log, |_| TestHandler::default());
        });
        TestServer { stop, address, folder, thread: Some(thread) }
    }

    pub fn unix_params(&self) -> ConnectParams {
        format!("host={} user=alice", self.folder.path().display()).parse().unwrap()
    }

    pub fn tcp_params(&self) -> ConnectParams {
        format!("host=127.0.0.1 port={} user=alice", self.address.port()).parse().unwrap()
    }

    pub fn connect(&self) -> Connection {
        Connection::connect(&self.unix_params(), timeouts()).unwrap()
    }

    pub fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn socket_path(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// Stops the server and says how long that took.
    pub fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.stop.fire();
        self.thread.take().unwrap().join().unwrap();
        began.elapsed()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.fire();
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            if !std::thread::panicking() {
                joined.unwrap();
            }
        }
    }
}

pub fn timeouts() -> Timeouts {
    Timeouts { connect: PATIENCE, read: Some(PATIENCE), write: Some(PATIENCE) }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
