//! Patience and its end: what comes of a page server that refuses, lies, breaks off or is away.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lazyfiles::base::{self, BaseLsn};
use lazyfiles::remote::RemotePages;
use lazyfiles::segment_file::Object;
use lazyfiles::settings::Settings;
use lazyfiles::source::{FetchError, PageSource};
use pageserver_client::{ErrorCode, Generation, Request, RequestKind, Response, ResponseBody};
use postgres_formats::page_checksum::set_checksum;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelTag, TimelineId};
use postgres_wire::StopSignal;
use postgres_wire::server::{
    Column, Handler, ListenAddress, Listener, QueryError, QueryWriter, ServerOptions, serve,
};

const REL: Object =
    Object::Rel(RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Main });
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

    fn query(&mut self, sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        assert_eq!(sql, "pagestream 07070707070707070707070707070707 3");
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
        std::fs::write(dir.path().join("base"), base::encode(BASE)).unwrap();
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
            generation: Some(Generation(3)),
            base: self.base(),
            pgdata: "/pgdata".into(),
            presence: "/presence".into(),
            profile: None,
            timeout,
        };
        let base = BaseLsn::open(&settings.base).unwrap();
        RemotePages::new(&settings, base, true, is_canceled)
    }

    fn base(&self) -> std::path::PathBuf {
        self.dir.path().join("base")
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
    let got = pages.pages(REL, 5, 2).unwrap();
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
        let got = server.pages(LONG, never).pages(REL, 5, 1).unwrap();
        assert_eq!(got, page(5)[..]);
        let server = Server::start(move |_, request| Some(spoiled(request)));
        let error = server.pages(LONG, never).pages(REL, 5, 1).unwrap_err();
        assert!(matches!(&error, FetchError::Failed(text) if text.contains("bad page")));
    }
}

#[test]
fn what_cannot_heal_fails_at_once() {
    use ErrorCode::{BelowHorizon, Corrupt, Fenced, NotFound};
    for code in [NotFound, Corrupt, BelowHorizon, Fenced] {
        let server = Server::start(move |_, request| Some(Response::error(request.id, code, "no")));
        let error = server.pages(LONG, never).pages(REL, 5, 1).unwrap_err();
        assert!(matches!(error, FetchError::Failed(_)));
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn an_absent_server_is_given_up_in_time() {
    let server = Server::start(|_, _| None);
    let begin = Instant::now();
    let timeout = Duration::from_millis(300);
    let error = server.pages(timeout, never).pages(REL, 5, 1).unwrap_err();
    assert!(matches!(error, FetchError::Failed(_)) && begin.elapsed() < LONG / 2);
    assert!(server.requests().len() > 2);
}

#[test]
fn who_is_canceled_does_not_wait() {
    let server = Server::start(|_, _| None);
    let error = server.pages(LONG, || true).pages(REL, 5, 1).unwrap_err();
    assert_eq!(error, FetchError::Canceled);
}

#[test]
fn hinted_pages_are_asked_for_once() {
    let server = Server::start(|_, request| Some(right(request)));
    let mut pages = server.pages(LONG, never);
    // Without a connection a hint is not worth one.
    pages.hint(REL, 50, 1);
    pages.pages(REL, 0, 1).unwrap();
    for block in [10, 20, 10] {
        pages.hint(REL, block, 4);
    }
    assert_eq!(pages.pages(REL, 20, 1).unwrap().len(), 4 * BLCKSZ);
    assert_eq!(pages.pages(REL, 12, 9).unwrap()[..BLCKSZ], page(12)[..]);
    assert_eq!(pages.pages(REL, 10, 1).unwrap(), page(10)[..]);
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
    pages.pages(REL, 0, 1).unwrap();
    for block in [10, 20] {
        pages.hint(REL, block, 4);
        assert_eq!(pages.pages(REL, block, 1).unwrap(), page(block)[..]);
    }
}

/// `BASE`, moved.
const LATER: Lsn = Lsn::new(BASE.as_u64() + 0x1000);

#[test]
fn pages_are_asked_for_where_the_base_is_now() {
    let server = Server::start(|number, request| {
        assert_eq!(request.lsn, if number == 0 { BASE } else { LATER });
        let RequestKind::GetPages { first, .. } = request.kind else { panic!() };
        let body = ResponseBody::Pages(page(first.0).to_vec().into());
        Some(Response { id: request.id, body })
    });
    let mut pages = server.pages(LONG, never);
    pages.pages(REL, 5, 1).unwrap();
    BaseLsn::open(&server.base()).unwrap().advance(LATER).unwrap();
    pages.pages(REL, 6, 1).unwrap();
}

#[test]
fn whoever_is_refused_below_the_horizon_looks_at_the_base_again() {
    let moved = Arc::new(Mutex::new(None::<BaseLsn>));
    let base = moved.clone();
    let server = Server::start(move |_, request| {
        let RequestKind::GetPages { first, .. } = request.kind else { panic!() };
        if request.lsn == LATER {
            let body = ResponseBody::Pages(page(first.0).to_vec().into());
            return Some(Response { id: request.id, body });
        }
        // It moves while the request is under way.
        if let Some(base) = &*base.lock().unwrap() {
            base.advance(LATER).unwrap();
        }
        Some(Response::error(request.id, ErrorCode::BelowHorizon, "gone"))
    });
    let error = server.pages(LONG, never).pages(REL, 5, 1).unwrap_err();
    assert!(matches!(error, FetchError::Failed(_)), "{error}");
    *moved.lock().unwrap() = Some(BaseLsn::open(&server.base()).unwrap());
    let begin = Instant::now();
    assert_eq!(server.pages(LONG, never).pages(REL, 5, 1).unwrap(), page(5)[..]);
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn what_is_not_there_is_an_error_until_the_base_has_moved() {
    let server = Server::start(|_, request| {
        Some(Response::error(request.id, ErrorCode::NotFound, "cut off"))
    });
    let error = server.pages(LONG, never).pages(REL, 5, 1).unwrap_err();
    assert!(matches!(error, FetchError::Failed(_)), "{error}");
    BaseLsn::open(&server.base()).unwrap().advance(LATER).unwrap();
    let error = server.pages(LONG, never).pages(REL, 5, 1).unwrap_err();
    assert!(matches!(error, FetchError::NotThere(_)), "{error}");
}
