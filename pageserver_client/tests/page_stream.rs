//! The client against a page server that is a few lines long: answers out of order, refusals, an
//! end in the middle, nonsense, and silence.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use pageserver_client::{
    ClientTimeouts, ErrorCode, PageClient, PageClientError, Request, RequestKind, Response,
    ResponseBody,
};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag, TimelineId};
use postgres_wire::server::{
    Column, Handler, ListenAddress, Listener, QueryError, QueryWriter, ServerOptions, serve,
};
use postgres_wire::{SqlState, StopSignal};

const REL: RelTag = RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Main };
const LSN: Lsn = Lsn::new(0x1000028);

/// What the server does with the requests that it finds together in its buffer.
type Answer = dyn Fn(Vec<Request>) -> Option<Vec<Bytes>> + Send + Sync;

struct Server {
    _dir: tempfile::TempDir,
    connstr: String,
    stop: StopSignal,
    thread: Option<JoinHandle<()>>,
}

struct Streams(Arc<Answer>);

impl Handler for Streams {
    fn describe(&mut self, _sql: &str) -> Result<Option<Vec<Column>>, QueryError> {
        Ok(None)
    }

    fn query(&mut self, sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        if sql != format!("pagestream {}", timeline()) {
            return Err(QueryError::new(SqlState::UNDEFINED_OBJECT, "no such timeline"));
        }
        let mut stream = out.copy_both()?;
        while let Some(first) = stream.recv()? {
            let mut requests = vec![Request::decode(&first).unwrap()];
            while let Some(next) = stream.try_recv_buffered() {
                requests.push(Request::decode(&next).unwrap());
            }
            let Some(answers) = (self.0)(requests) else { break };
            for answer in answers {
                stream.send(&[&answer])?;
            }
            stream.flush()?;
        }
        stream.finish()?;
        Ok(())
    }
}

fn timeline() -> TimelineId {
    TimelineId::from_bytes([7; 16])
}

impl Server {
    fn start(
        answer: impl Fn(Vec<Request>) -> Option<Vec<Bytes>> + Send + Sync + 'static,
    ) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join(".s.PGSQL.5432");
        let listener = Listener::bind(&[ListenAddress::Unix { path, mode: 0o600 }]).unwrap();
        let connstr = format!("host={} port=5432", dir.path().display());
        let (stop, answer) = (StopSignal::new().unwrap(), Arc::new(answer));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let log = slog::Logger::root(slog::Discard, slog::o!());
            let options = ServerOptions::default();
            serve(&listener, &options, &stopped, &log, |_| Streams(answer.clone()));
        });
        Server { _dir: dir, connstr, stop, thread: Some(thread) }
    }

    fn client(&self) -> PageClient {
        let timeouts = ClientTimeouts {
            connect: Duration::from_secs(10),
            response: Duration::from_millis(300),
        };
        PageClient::connect(&self.connstr, timeline(), timeouts).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.fire();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn encoded(id: u64, body: ResponseBody) -> Bytes {
    let mut out = Vec::new();
    Response { id, body }.encode(&mut out);
    out.into()
}

fn answer(request: &Request) -> Bytes {
    assert_eq!(request.lsn, LSN);
    let body = match request.kind {
        RequestKind::GetPages { first, count, .. } => ResponseBody::Pages(
            (first.0..first.0 + u32::from(count)).flat_map(|b| vec![b as u8; BLCKSZ]).collect(),
        ),
        RequestKind::RelSize { rel } => ResponseBody::RelSize((rel == REL).then_some(9)),
        RequestKind::RelExists { rel } => ResponseBody::RelExists(rel == REL),
        RequestKind::DbSize { db } => ResponseBody::DbSize(u64::from(db.0) * 100),
        RequestKind::SlruSegment { kind: 0, .. } => ResponseBody::SlruSegment(vec![1; 10].into()),
        RequestKind::GetSlruPages { kind: 0, first, count } => {
            ResponseBody::Pages(vec![first as u8; usize::from(count) * BLCKSZ].into())
        }
        RequestKind::SlruSegment { .. } | RequestKind::GetSlruPages { .. } => {
            ResponseBody::Error { code: ErrorCode::NotFound, message: "no such SLRU".to_owned() }
        }
        RequestKind::OpenWindow { .. } | RequestKind::PutPages { .. } => {
            unreachable!("tests/window.rs has these")
        }
    };
    encoded(request.id, body)
}

#[test]
fn every_question_is_answered() {
    let server = Server::start(|requests| Some(requests.iter().map(answer).collect()));
    let mut client = server.client();
    let page = client.get_page(REL, BlockNumber(3), LSN).unwrap();
    assert!(page.iter().all(|byte| *byte == 3));
    let pages = client.get_pages(REL, BlockNumber(3), 2, LSN).unwrap();
    assert_eq!((pages.len(), pages[BLCKSZ]), (2 * BLCKSZ, 4));
    assert_eq!(client.rel_size(REL, LSN).unwrap(), Some(9));
    let other = RelTag { rel: Oid(1), ..REL };
    assert_eq!(client.rel_size(other, LSN).unwrap(), None);
    assert!(client.rel_exists(REL, LSN).unwrap() && !client.rel_exists(other, LSN).unwrap());
    assert_eq!(client.db_size(Oid(5), LSN).unwrap(), 500);
    assert_eq!(client.slru_segment(0, 0, LSN).unwrap().len(), 10);
    assert_eq!(client.get_slru_pages(0, 7, 2, LSN).unwrap(), vec![7; 2 * BLCKSZ]);

    let refused = client.slru_segment(1, 0, LSN).unwrap_err();
    assert!(matches!(refused, PageClientError::Refused { code: ErrorCode::NotFound, .. }));
    assert!(!refused.is_connection_lost());
    assert!(client.rel_exists(REL, LSN).unwrap());
}

#[test]
fn answers_in_another_order_find_their_questions() {
    let server = Server::start(|requests| Some(requests.iter().rev().map(answer).collect()));
    let mut client = server.client();
    let ask = |block| RequestKind::GetPages { rel: REL, first: BlockNumber(block), count: 1 };
    let ids: Vec<u64> = (0..100).map(|n| client.send(LSN, ask(n)).unwrap()).collect();
    // The answer to this one overtakes the others, which are kept.
    assert_eq!(client.rel_size(REL, LSN).unwrap(), Some(9));
    let mut seen = Vec::new();
    for _ in &ids {
        let response = client.recv().unwrap();
        let ResponseBody::Pages(page) = response.body else { panic!("not pages") };
        assert_eq!(ids[usize::from(page[0])], response.id);
        seen.push(response.id);
    }
    seen.sort_unstable();
    assert_eq!(seen, ids);
    assert!(client.try_recv().unwrap().is_none());
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let ended = Server::start(|_| None);
    let error = ended.client().rel_size(REL, LSN).unwrap_err();
    assert!(matches!(error, PageClientError::Ended) && error.is_connection_lost(), "{error:?}");

    let nonsense = Server::start(|_| Some(vec![Bytes::from_static(b"\xff\0")]));
    let error = nonsense.client().rel_size(REL, LSN).unwrap_err();
    assert!(matches!(error, PageClientError::Protocol(_)) && error.is_connection_lost());

    let wrong = Server::start(|requests| {
        Some(requests.iter().map(|r| encoded(r.id, ResponseBody::DbSize(1))).collect())
    });
    let error = wrong.client().rel_size(REL, LSN).unwrap_err();
    assert!(matches!(error, PageClientError::WrongAnswer) && error.is_connection_lost());

    let fewer = Server::start(|requests| {
        let page = ResponseBody::Pages(vec![0; BLCKSZ].into());
        Some(requests.iter().map(|r| encoded(r.id, page.clone())).collect())
    });
    let error = fewer.client().get_pages(REL, BlockNumber(0), 2, LSN).unwrap_err();
    assert!(matches!(error, PageClientError::WrongAnswer));

    let silent = Server::start(|_| Some(Vec::new()));
    let error = silent.client().rel_size(REL, LSN).unwrap_err();
    assert!(matches!(error, PageClientError::TimedOut) && !error.is_connection_lost());

    let other = TimelineId::from_bytes([8; 16]);
    let error = PageClient::connect(&silent.connstr, other, ClientTimeouts::default());
    assert!(matches!(error.unwrap_err(), PageClientError::Connection(_)));
    let gone = PageClient::connect("host=/nonexistent", other, ClientTimeouts::default());
    assert!(matches!(gone.unwrap_err(), PageClientError::Connection(_)));
}
