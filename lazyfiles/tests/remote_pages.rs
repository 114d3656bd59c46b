//! Patience and its end: what comes of a page server that refuses, lies, breaks off or is away.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lazyfiles::remote::RemotePages;
use lazyfiles::settings::Settings;
use lazyfiles::source::{FetchError, PageSource};
use pageserver_client::{ErrorCode, Request, RequestKind, Response, ResponseBody};
use postgres_formats::page_checksum::set_checksum;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelTag, TimelineId};
use postgres_wire::StopSignal;
use postgres_wire::server::{
    Column, Handler, ListenAddress, Listener, QueryError, QueryWriter, ServerOptions, serve,
};

const REL: RelTag = RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Main };
const BASE: Lsn = Lsn::new(0x1000028);

/// What to answer to the n-th request, counted over all connections; `None` breaks off.
type Script = dyn Fn(u32, &Request) -> Option<Response> + Send + Sync;

struct Server {
    dir: tempfile::TempDir,
    stop: StopSignal,
    thread: Option<JoinHandle<()>>,
    requests: Arc<Mutex<Vec<(u32, u16)>>>,
}

struct Streams {
    script: Arc<Script>,
    count: Arc<AtomicU32>,
    requests: Arc<Mutex<Vec<(u32, u16)>>>,
}

impl Handler for Streams {
    fn describe(&mut self, _sql: &str) -> Result<Option<Vec<Column>>, QueryError> {
        Ok(None)
    }

    fn query(&mut self, _sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        let mut stream = out.copy_both()?;
        while let Some(message) = stream.recv()? {
            let request = Request::decode(&message).unwrap();
            let RequestKind::GetPages { first, count, .. } = request.kind else { panic!() };
            self.requests.lock().unwrap().push((first.0, count));
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            let Some(response) = (self.script)(number, &request) else { break };
            let mut bytes = Vec::new();
            response.encode(&mut bytes);
            stream.send(&[&bytes])?;
            stream.flush()?;
        }
        stream.finish()?;
        Ok(())
    }
}

impl Server {
    fn start(script: impl Fn(u32, &Request) -> Option<Response> + Send + Sync + 'static) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".s.PGSQL.5432");
        let listener = Listener::bind(&[ListenAddress::Unix { path, mode: 0o600 }]).unwrap();
        let (script, stop) = (Arc::new(script), StopSignal::new().unwrap());
        let (count, requests) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, seen) = (stop.clone(), requests.clone());
        let thread = thread::spawn(move || {
            let log = slog::Logger::root(slog::Discard, slog::o!());
            serve(&listener, &ServerOptions::default(), &stopped, &log, |_| Streams {
                script: script.clone(),
                count: count.clone(),
                requests: seen.clone(),
            });
        });
        Server { dir, stop, thread: Some(thread), requests }
    }

    fn pages(&self, timeout: Duration, is_canceled: fn() -> bool) -> RemotePages {
        let settings = Settings {
            pageserver: format!("host={} port=5432", self.dir.path().display()),
            timeline: TimelineId::from_bytes([7; 16]),
            base_lsn: BASE,
            pgdata: "/pgdata".into(),
            presence: "/presence".into(),
            timeout,
        };
        RemotePages::new(&settings, true, is_canceled)
    }

    fn requests(&self) -> Vec<(u32, u16)> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.fire();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn never() -> bool {
    false
}

/// A page that is right at block `block`.
fn page(block: u32) -> PageImage {
    let mut page = PageImage::zeroed();
    page.set_lsn(Lsn::new(0x100));
    page[14..20].copy_from_slice(&[0, 0x20, 0, 0x20, 4, 0x20]);
    page[100..104].copy_from_slice(&block.to_le_bytes());
    set_checksum(&mut page, BlockNumber(block));
    page
}

fn right(request: &Request) -> Response {
    assert_eq!(request.lsn, BASE);
    let RequestKind::GetPages { first, count, .. } = request.kind else { panic!() };
    let blocks = first.0..first.0 + u32::from(count);
    let pages = blocks.flat_map(|block| page(block).to_vec()).collect();
    Response { id: request.id, body: ResponseBody::Pages(pages) }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn trouble_that_passes_is_not_noticed() {
    let server = Server::start(|number, request| match number {
        0 => Some(Response::error(request.id, ErrorCode::Busy, "later")),
        1 => Some(Response::error(request.id, ErrorCode::LsnTimeout, "later")),
        2 => None,
        3 => Some(Response { id: request.id + 1, ..right(request) }),
        4 => Some(Response::error(request.id, ErrorCode::ShuttingDown, "gone")),
        _ => Some(right(request)),
    });
    let mut pages = server.pages(LONG, never);
    let got = pages.pages(REL, BlockNumber(5), 2).unwrap();
    assert_eq!(got, [&page(5)[..], &page(6)[..]].concat());
}

#[test]
fn a_bad_page_is_never_given_out() {
    let damages: [fn(&mut PageImage); 4] = [
        |page| page[200] ^= 1,
        |page| page.set_lsn(Lsn::new(BASE.as_u64() + 8)),
        |page| page[14] = 1,
        |page| page[14..16].copy_from_slice(&[0, 0]),
    ];
    for damage in damages {
        let spoiled = move |request: &Request| {
            let mut page = page(5);
            damage(&mut page);
            let body = ResponseBody::Pages(page.to_vec().into());
            Response { id: request.id, body }
        };
        // Once is an accident, always is a reason to give up.
        let server = Server::start(move |number, request| {
            Some(if number == 0 { spoiled(request) } else { right(request) })
        });
        let got = server.pages(LONG, never).pages(REL, BlockNumber(5), 1).unwrap();
        assert_eq!(got, page(5)[..]);
        let server = Server::start(move |_, request| Some(spoiled(request)));
        let error = server.pages(LONG, never).pages(REL, BlockNumber(5), 1).unwrap_err();
        assert!(matches!(&error, FetchError::Failed(text) if text.contains("bad page")));
    }
}

#[test]
fn what_cannot_heal_fails_at_once() {
    for code in [ErrorCode::NotFound, ErrorCode::Corrupt, ErrorCode::BelowHorizon] {
        let server = Server::start(move |_, request| Some(Response::error(request.id, code, "no")));
        let error = server.pages(LONG, never).pages(REL, BlockNumber(5), 1).unwrap_err();
        assert!(matches!(error, FetchError::Failed(_)));
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn an_absent_server_is_given_up_in_time() {
    let server = Server::start(|_, _| None);
    let begin = Instant::now();
    let timeout = Duration::from_millis(300);
    let error = server.pages(timeout, never).pages(REL, BlockNumber(5), 1).unwrap_err();
    assert!(matches!(error, FetchError::Failed(_)) && begin.elapsed() < LONG / 2);
    assert!(server.requests().len() > 2);
}

#[test]
fn who_is_canceled_does_not_wait() {
    let server = Server::start(|_, _| None);
    let error = server.pages(LONG, || true).pages(REL, BlockNumber(5), 1).unwrap_err();
    assert_eq!(error, FetchError::Canceled);
}

#[test]
fn hinted_pages_are_asked_for_once() {
    let server = Server::start(|_, request| Some(right(request)));
    let mut pages = server.pages(LONG, never);
    // Without a connection a hint is not worth one.
    pages.hint(REL, BlockNumber(50), 1);
    pages.pages(REL, BlockNumber(0), 1).unwrap();
    for block in [10, 20, 10] {
        pages.hint(REL, BlockNumber(block), 4);
    }
    assert_eq!(pages.pages(REL, BlockNumber(20), 1).unwrap().len(), 4 * BLCKSZ);
    assert_eq!(pages.pages(REL, BlockNumber(12), 9).unwrap()[..BLCKSZ], page(12)[..]);
    assert_eq!(pages.pages(REL, BlockNumber(10), 1).unwrap(), page(10)[..]);
    assert_eq!(server.requests(), [(0, 1), (10, 4), (20, 4), (10, 1)]);
}

#[test]
fn a_hint_that_fails_is_no_failure() {
    let server = Server::start(|number, request| match number {
        1 => Some(Response::error(request.id, ErrorCode::Internal, "no")),
        3 => None,
        _ => Some(right(request)),
    });
    let mut pages = server.pages(LONG, never);
    pages.pages(REL, BlockNumber(0), 1).unwrap();
    for block in [10, 20] {
        pages.hint(REL, BlockNumber(block), 4);
        assert_eq!(pages.pages(REL, BlockNumber(block), 1).unwrap(), page(block)[..]);
    }
}
