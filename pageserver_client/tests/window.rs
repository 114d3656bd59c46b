//! Windows, where the other side does not do as it should: it lies, refuses, or ends in the middle.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pageserver_client::protocol::WINDOWS_PARAMETER;
use pageserver_client::window::ServerWindow;
use pageserver_client::{
    ClientTimeouts, ErrorCode, PageClient, PageClientError, Request, RequestKind, Response,
    ResponseBody,
};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag, TimelineId};
use postgres_wire::StopSignal;
use postgres_wire::server::{
    Column, CopyBoth, Handler, ListenAddress, Listener, QueryError, QueryWriter, ServerOptions,
    serve,
};

const REL: RelTag = RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Main };
const LSN: Lsn = Lsn::new(0x1000028);

/// Answers one request; `false` ends the stream.
type Answer = fn(&mut Stream<'_, '_>, Request) -> bool;

struct Stream<'a, 'c> {
    copy: &'a mut CopyBoth<'c>,
    window: Option<ServerWindow>,
}

impl Stream<'_, '_> {
    fn say(&mut self, id: u64, body: ResponseBody) -> bool {
        self.copy.send(&[&encoded(id, body)]).and_then(|()| self.copy.flush()).is_ok()
    }

    fn send_window(&mut self, id: u64, pages: u16, descriptor: &OwnedFd) -> bool {
        let message = encoded(id, ResponseBody::Window { pages });
        self.copy.send_with_descriptor(&message, descriptor.as_fd()).is_ok()
    }
}

fn encoded(id: u64, body: ResponseBody) -> Vec<u8> {
    let mut out = Vec::new();
    Response { id, body }.encode(&mut out);
    out
}

fn page(block: u32) -> Vec<u8> {
    vec![block as u8; BLCKSZ]
}

/// What a good server does.
fn right(stream: &mut Stream<'_, '_>, Request { id, kind, .. }: Request) -> bool {
    match kind {
        RequestKind::OpenWindow { pages } => {
            let (window, descriptor) = ServerWindow::create(pages).unwrap();
            stream.window = Some(window);
            stream.send_window(id, pages, &descriptor)
        }
        RequestKind::GetPages { first, count, .. } => {
            let pages = (first.0..first.0 + u32::from(count)).flat_map(page).collect();
            stream.say(id, ResponseBody::Pages(pages))
        }
        RequestKind::PutPages { first, count, place, .. } => {
            let pages: Vec<_> = (first.0..first.0 + u32::from(count)).map(page).collect();
            assert!(stream.window.as_ref().unwrap().put(place, &pages));
            stream.say(id, ResponseBody::PagesPut { count })
        }
        other => panic!("{other:?}"),
    }
}

struct Streams(Answer);

impl Handler for Streams {
    fn describe(&mut self, _sql: &str) -> Result<Option<Vec<Column>>, QueryError> {
        Ok(None)
    }

    fn query(&mut self, _sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        let mut copy = out.copy_both()?;
        let mut stream = Stream { copy: &mut copy, window: None };
        while let Some(message) = stream.copy.recv()? {
            if !(self.0)(&mut stream, Request::decode(&message).unwrap()) {
                break;
            }
        }
        copy.finish()?;
        Ok(())
    }
}

struct Server {
    dir: tempfile::TempDir,
    stop: StopSignal,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(knows_windows: bool, answer: Answer) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".s.PGSQL.5432");
        let listener = Listener::bind(&[ListenAddress::Unix { path, mode: 0o600 }]).unwrap();
        let stop = StopSignal::new().unwrap();
        let (stopped, answer) = (stop.clone(), Arc::new(answer));
        let thread = thread::spawn(move || {
            let log = slog::Logger::root(slog::Discard, slog::o!());
            let mut options = ServerOptions::default();
            if knows_windows {
                options.connection.parameters = &[(WINDOWS_PARAMETER, "on")];
            }
            serve(&listener, &options, &stopped, &log, |_| Streams(*answer));
        });
        Server { dir, stop, thread: Some(thread) }
    }

    /// A client that has asked for a window of four pages.
    fn client(&self) -> PageClient {
        let connstr = format!("host={} port=5432", self.dir.path().display());
        let patience = Duration::from_secs(10);
        let timeouts = ClientTimeouts { connect: patience, response: patience };
        let timeline = TimelineId::from_bytes([7; 16]);
        let mut client = PageClient::connect(&connstr, timeline, timeouts).unwrap();
        client.open_window(4).unwrap();
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.fire();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn get(client: &mut PageClient, first: u32, count: u16) -> Result<bytes::Bytes, PageClientError> {
    client.get_pages(REL, BlockNumber(first), count, LSN)
}

#[track_caller]
fn check(client: &mut PageClient, first: u32, count: u16) {
    let expected: Vec<u8> = (first..first + u32::from(count)).flat_map(page).collect();
    assert_eq!(get(client, first, count).unwrap(), expected);
}

#[test]
fn what_does_not_fit_comes_by_the_socket() {
    let server = Server::start(true, right);
    let mut client = server.client();
    check(&mut client, 1, 2);
    assert!(client.has_window());
    let held = get(&mut client, 10, 3).unwrap();
    for count in [1, 2, 4, 5] {
        check(&mut client, 20, count);
    }
    assert_eq!(held, [page(10), page(11), page(12)].concat());
    // More under way than there is room for.
    let ask = |client: &mut PageClient, first| {
        let kind = RequestKind::GetPages { rel: REL, first: BlockNumber(first), count: 1 };
        client.send(LSN, kind).unwrap();
    };
    (0..9).for_each(|first| ask(&mut client, first));
    for first in 0..9 {
        assert_eq!(client.recv().unwrap().body, ResponseBody::Pages(page(first).into()));
    }
}

#[test]
fn a_server_that_knows_no_windows_is_not_asked() {
    let server = Server::start(false, |stream, request| match request.kind {
        RequestKind::GetPages { .. } => right(stream, request),
        _ => panic!("{request:?}"),
    });
    let mut client = server.client();
    check(&mut client, 1, 2);
    check(&mut client, 1, 2);
    assert!(!client.has_window());
}

#[test]
fn without_a_window_pages_come_by_the_socket() {
    let refuses: Answer = |stream, request| match request.kind {
        RequestKind::OpenWindow { .. } => {
            let body = ResponseBody::Error { code: ErrorCode::Busy, message: "full".to_owned() };
            stream.say(request.id, body)
        }
        _ => right(stream, request),
    };
    // A file that could be cut short under who reads it.
    let sends_a_file: Answer = |stream, request| match request.kind {
        RequestKind::OpenWindow { pages } => {
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 20).unwrap();
            stream.send_window(request.id, pages, &OwnedFd::from(file))
        }
        _ => right(stream, request),
    };
    let sends_a_folder: Answer = |stream, request| match request.kind {
        RequestKind::OpenWindow { pages } => {
            stream.send_window(request.id, pages, &OwnedFd::from(File::open("/").unwrap()))
        }
        _ => right(stream, request),
    };
    for answer in [refuses, sends_a_file, sends_a_folder] {
        let server = Server::start(true, answer);
        let mut client = server.client();
        check(&mut client, 1, 2);
        check(&mut client, 3, 2);
        assert!(!client.has_window());
    }
}

#[test]
fn nonsense_ends_the_client() {
    let no_descriptor: Answer = |stream, request| match request.kind {
        RequestKind::OpenWindow { pages } => stream.say(request.id, ResponseBody::Window { pages }),
        _ => right(stream, request),
    };
    let puts_unasked: Answer = |stream, request| match request.kind {
        RequestKind::GetPages { count, .. } => {
            stream.say(request.id, ResponseBody::PagesPut { count })
        }
        _ => right(stream, request),
    };
    for answer in [no_descriptor, puts_unasked] {
        let server = Server::start(true, answer);
        let got = get(&mut server.client(), 1, 2);
        assert!(matches!(got, Err(PageClientError::WrongAnswer)), "{got:?}");
    }
    // As soon as there is a window, pages that were to be put into it are nowhere else, and as many as were asked for.
    let sends_them: Answer = |stream, request| match request.kind {
        RequestKind::PutPages { first, .. } => {
            stream.say(request.id, ResponseBody::Pages(page(first.0).into()))
        }
        _ => right(stream, request),
    };
    let puts_fewer: Answer = |stream, request| match request.kind {
        RequestKind::PutPages { count, .. } => {
            stream.say(request.id, ResponseBody::PagesPut { count: count - 1 })
        }
        _ => right(stream, request),
    };
    for answer in [sends_them, puts_fewer] {
        let server = Server::start(true, answer);
        let mut client = server.client();
        check(&mut client, 1, 2);
        let got = get(&mut client, 1, 2);
        assert!(matches!(got, Err(PageClientError::WrongAnswer)), "{got:?}");
    }
}

#[test]
fn a_server_that_ends_in_the_middle_takes_nothing_along() {
    // It has put the pages, and does not come to say so.
    let server = Server::start(true, |stream, request| match request.kind {
        RequestKind::PutPages { first, place, .. } if first.0 == 66 => {
            assert!(stream.window.as_ref().unwrap().put(place, &[page(99)]));
            false
        }
        _ => right(stream, request),
    });
    let mut client = server.client();
    check(&mut client, 1, 2);
    let held = get(&mut client, 5, 1).unwrap();
    let got = get(&mut client, 66, 1);
    assert!(got.as_ref().is_err_and(PageClientError::is_connection_lost), "{got:?}");
    drop(client);
    assert_eq!(held, page(5));
    let mut another = server.client();
    check(&mut another, 1, 2);
    check(&mut another, 5, 2);
    assert!(another.has_window());
    assert_eq!(held, page(5));
}
