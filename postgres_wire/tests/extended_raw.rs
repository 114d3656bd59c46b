//! The extended query protocol message by message, for what drivers do not let us say.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use support::TestServer;

struct Raw {
    stream: std::net::TcpStream,
    out: BytesMut,
    input: BytesMut,
}

impl Raw {
    fn connect(server: &TestServer) -> Raw {
        let mut raw = Raw { stream: server.tcp(), out: BytesMut::new(), input: BytesMut::new() };
        frontend::startup_message([("user", "alice")], &mut raw.out).unwrap();
        raw.until_ready();
        raw
    }

    fn next(&mut self) -> Message {
        loop {
            if let Some(message) = Message::parse(&mut self.input).unwrap() {
                return message;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the server has gone");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    /// Sends what was written and names what comes back, up to ReadyForQuery.
    fn until_ready(&mut self) -> String {
        self.stream.write_all(&self.out.split()).unwrap();
        let mut names = Vec::new();
        loop {
            let name = match self.next() {
                Message::ReadyForQuery(_) => return names.join(" "),
                Message::ParseComplete => "parsed".to_owned(),
                Message::BindComplete => "bound".to_owned(),
                Message::CloseComplete => "closed".to_owned(),
                Message::NoData => "nodata".to_owned(),
                Message::PortalSuspended => "suspended".to_owned(),
                Message::EmptyQueryResponse => "empty".to_owned(),
                Message::DataRow(_) => "row".to_owned(),
                Message::RowDescription(_) => "columns".to_owned(),
                Message::ParameterDescription(body) => {
                    format!("parameters={}", body.parameters().count().unwrap())
                }
                Message::CommandComplete(body) => format!("[{}]", body.tag().unwrap()),
                Message::ErrorResponse(body) => {
                    let mut fields = body.fields();
                    let code = fields.find(|f| Ok(f.type_() == b'C')).unwrap().unwrap();
                    format!("error={}", String::from_utf8_lossy(code.value_bytes()))
                }
                _ => continue,
            };
            names.push(name);
        }
    }

    fn parse(&mut self, name: &str, sql: &str) -> &mut Raw {
        frontend::parse(name, sql, [], &mut self.out).unwrap();
        self
    }

    fn bind(&mut self, portal: &str, statement: &str, values: &[&str]) -> &mut Raw {
        let serialize = |value: &&str, out: &mut BytesMut| {
            out.extend_from_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        let bound = frontend::bind(portal, statement, [], values, serialize, [], &mut self.out);
        assert!(bound.is_ok());
        self
    }

    fn execute(&mut self, portal: &str, rows_max: i32) -> &mut Raw {
        frontend::execute(portal, rows_max, &mut self.out).unwrap();
        self
    }

    fn describe(&mut self, kind: u8, name: &str) -> &mut Raw {
        frontend::describe(kind, name, &mut self.out).unwrap();
        self
    }

    fn close(&mut self, kind: u8, name: &str) -> &mut Raw {
        frontend::close(kind, name, &mut self.out).unwrap();
        self
    }

    fn sync(&mut self) -> String {
        frontend::sync(&mut self.out);
        self.until_ready()
    }
}

#[test]
fn portals_give_their_rows_in_pieces() {
    let server = TestServer::start();
    let mut raw = Raw::connect(&server);
    raw.parse("", "rows 5").bind("p", "", &[]).describe(b'P', "p");
    raw.execute("p", 2).execute("p", 2).execute("p", 2).execute("p", 2);
    assert_eq!(
        raw.sync(),
        "parsed bound columns row row suspended row row suspended row [SELECT 5] error=55000"
    );
    // Exactly as many as there are: only the next piece shows that there is no more.
    raw.bind("p", "", &[]).execute("p", 5);
    assert_eq!(raw.sync(), "bound row row row row row [SELECT 5]");
    raw.bind("p", "", &[]).execute("p", 1).execute("p", 0);
    assert_eq!(raw.sync(), "bound row suspended row row row row [SELECT 5]");
    // Portals end with Sync, statements do not.
    raw.execute("p", 0);
    assert_eq!(raw.sync(), "error=34000");
}

#[test]
fn after_an_error_everything_is_skipped_up_to_sync() {
    let server = TestServer::start();
    let mut raw = Raw::connect(&server);
    raw.parse("s", "echo $1").parse("s", "echo").bind("", "s", &["x"]).execute("", 0);
    assert_eq!(raw.sync(), "parsed error=42P05");
    raw.describe(b'S', "s").bind("", "s", &["x"]).execute("", 0);
    assert_eq!(raw.sync(), "parameters=1 columns bound row [SELECT 1]");
    raw.bind("", "s", &[]);
    assert_eq!(raw.sync(), "error=08P01");
    raw.close(b'S', "s").close(b'S', "never was").bind("", "s", &["x"]);
    assert_eq!(raw.sync(), "closed closed error=26000");
    raw.parse("", " ; ").bind("", "", &[]).describe(b'P', "").execute("", 0);
    assert_eq!(raw.sync(), "parsed bound nodata empty");
    raw.parse("", "fail").bind("", "", &[]).execute("", 0).execute("", 0);
    assert_eq!(raw.sync(), "parsed bound error=42704");
}

#[test]
fn what_a_connection_may_hold_is_bounded() {
    let server = TestServer::start();
    let mut raw = Raw::connect(&server);
    for n in 0..postgres_wire::limits::PREPARED_MAX {
        raw.parse(&format!("s{n}"), "done");
    }
    raw.parse("one more", "done");
    assert!(raw.sync().ends_with("parsed error=54000"));
}
