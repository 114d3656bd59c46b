//! A page stream over a socket, served in this process.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::os::unix::net::UnixListener;
use std::thread;

use pageserver_client::client::{ClientTimeouts, PageClient, PageClientError};
use pageserver_client::protocol::WINDOWS_PARAMETER;
use postgres_wire::StopSignal;
use postgres_wire::server::{Column, ConnectionOptions, Handler, QueryWriter, serve_connection};
use slog::o;

use super::*;
use crate::leases::Readings;
use crate::page_maker::VersionKey;
use crate::timeline::damage::sample::{Sample, rel};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers whatever it is told with a page stream.
struct OneStream {
    timeline: Arc<Timeline>,
    readings: Arc<Readings>,
    counts: StreamCounts,
    windows: Windows,
}

impl Handler for OneStream {
    fn describe(&mut self, _: &str) -> Result<Option<Vec<Column>>, QueryError> {
        Ok(None)
    }

    fn query(&mut self, _: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        let reading = self.readings.begin(self.timeline.id());
        let log = Logger::root(slog::Discard, o!());
        let mut copy = out.copy_both()?;
        let (counts, windows) = (&self.counts, &self.windows);
        let common = Common { lsn_timeout: PATIENCE, counts, windows, log: &log };
        serve(&self.timeline, None, reading, &common, &mut copy)?;
        copy.finish()?;
        out.complete("COPY")
    }
}

type Server = thread::JoinHandle<Result<(), ConnectionError>>;

/// A page stream in this process, and a client at its other end.
fn stream(timeline: Arc<Timeline>) -> (Server, PageClient) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
    let id = timeline.id();
    let server = thread::spawn(move || {
        let (readings, counts) = (Arc::default(), StreamCounts::default());
        let windows = Windows::default();
        let mut handler = OneStream { timeline, readings, counts, windows };
        let (socket, _) = listener.accept().unwrap();
        let stop = StopSignal::new().unwrap();
        let parameters = &[(WINDOWS_PARAMETER, "on")];
        let options = ConnectionOptions { parameters, ..ConnectionOptions::default() };
        serve_connection(socket, &mut handler, &options, &stop)
    });
    let connstr = format!("host={} port=5432 user=zenith dbname=zenith", dir.path().display());
    let timeouts = ClientTimeouts { connect: PATIENCE, response: PATIENCE };
    (server, PageClient::connect(&connstr, id, timeouts).unwrap())
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn for_a_client_that_does_not_read_no_page_is_held() {
    const REQUESTS: u64 = 1000;
    let mut sample = Sample::new(1 << 19);
    let lsn = sample.write_page(7, 8000);
    let timeline = sample.open();
    sample.give(&timeline);
    let page = ObjectPage { object: ObjectTag::Rel(rel()), block: BlockNumber(0) };
    let expected = timeline.get_page(PageRequest { page, lsn }, PATIENCE).unwrap();
    let cache = sample.maker.cache.clone();
    let key = VersionKey { timeline: timeline.id(), page, end: lsn };
    let users = || Arc::strong_count(&cache.peek(&key).unwrap());
    drop(expected);
    let (before, looked_up) = (users(), cache.stats().hits);

    let (server, mut client) = stream(timeline);
    let kind = RequestKind::GetPages { rel: rel(), first: BlockNumber(0), count: 1 };
    for _ in 0..REQUESTS {
        client.send(lsn, kind).unwrap();
    }
    client.flush().unwrap();
    // Far more than sockets hold have been found, so that some are waiting to be sent.
    wait_until("pages are found", || cache.stats().hits > looked_up + 300);
    wait_until("pages are let go", || users() == before);

    for _ in 0..REQUESTS {
        match client.recv().unwrap().body {
            ResponseBody::Pages(pages) => {
                assert_eq!(pages.len(), BLCKSZ);
                assert!(pages[24..8000].iter().all(|byte| *byte == 7));
            }
            other => panic!("{other:?}"),
        }
    }
    drop(client);
    let _ = server.join().unwrap();
}

#[test]
fn pages_come_by_the_window_as_by_the_socket() {
    let mut sample = Sample::new(1 << 19);
    let (_, lsn) = (sample.write_page(7, 8000), sample.write_page(9, 4000));
    let timeline = sample.open();
    sample.give(&timeline);
    let (server, mut client) = stream(timeline);
    let get = |client: &mut PageClient, lsn| client.get_pages(rel(), BlockNumber(0), 1, lsn);
    let expected = get(&mut client, lsn).unwrap();
    assert!(!client.has_window());
    client.open_window(2).unwrap();
    // It opens when the answer is read.
    assert_eq!(get(&mut client, lsn).unwrap(), expected);
    assert!(client.has_window());
    let held: Vec<_> = (0..5).map(|_| get(&mut client, lsn).unwrap()).collect();
    assert!(held.iter().all(|pages| *pages == expected));
    // A refusal is no page, and leaves room for another.
    drop(held);
    for _ in 0..3 {
        let refused = client.get_pages(rel(), BlockNumber(1_000_000), 1, lsn);
        assert!(matches!(refused, Err(PageClientError::Refused { .. })), "{refused:?}");
        assert_eq!(get(&mut client, lsn).unwrap(), expected);
    }
    // There is one, and nothing is put outside of it.
    let ask = |client: &mut PageClient, kind| client.call(lsn, kind);
    let again = ask(&mut client, RequestKind::OpenWindow { pages: 2 });
    assert!(matches!(again, Err(PageClientError::Refused { .. })), "{again:?}");
    for place in [2, u16::MAX] {
        let kind = RequestKind::PutPages { rel: rel(), first: BlockNumber(0), count: 1, place };
        let outside = ask(&mut client, kind);
        assert!(matches!(outside, Err(PageClientError::Refused { .. })), "{outside:?}");
    }
    assert_eq!(get(&mut client, lsn).unwrap(), expected);
    drop(client);
    let _ = server.join().unwrap();
}
