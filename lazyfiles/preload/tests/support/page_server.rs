//! A page server whose store is a stopped cluster's data directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use lazyfiles_core::segment_file::Object;
use pageserver_client::{ErrorCode, Request, RequestKind, Response, ResponseBody};
use postgres_formats::relpath::relation_path;
use postgres_formats::slru::SlruKind;
use postgres_formats::{BLCKSZ, BlockNumber, Lsn};
use postgres_wire::StopSignal;
use postgres_wire::server::{
    Column, Handler, ListenAddress, Listener, QueryError, QueryWriter, ServerOptions, serve,
};

pub struct PageServer {
    stop: StopSignal,
    thread: Option<JoinHandle<()>>,
    stores: Arc<Mutex<Stores>>,
    pages: Arc<Counters>,
}

struct Streams {
    stores: Arc<Mutex<Stores>>,
    pages: Arc<Counters>,
}

/// Data directories by the LSN from which on they are asked for.
type Stores = BTreeMap<Lsn, PathBuf>;

/// Pages served, all of them and those of SLRUs.
#[derive(Default)]
struct Counters {
    all: AtomicU64,
    slru: AtomicU64,
}

impl Streams {
    fn page(&self, object: Object, block: u32, lsn: Lsn) -> std::io::Result<Vec<u8>> {
        let stores = self.stores.lock().unwrap();
        let pgdata = stores.range(..=lsn).next_back().unwrap().1;
        let segment = block / object.pages_per_segment();
        let path = match object {
            Object::Rel(rel) => relation_path(rel, segment),
            Object::Slru(kind) => kind.segment_path(segment),
        };
        let mut page = vec![0; BLCKSZ];
        let offset = u64::from(block % object.pages_per_segment()) * BLCKSZ as u64;
        File::open(pgdata.join(path))?.read_exact_at(&mut page, offset)?;
        Ok(page)
    }

    fn answer(&self, request: &Request) -> Response {
        let (object, first, count) = match request.kind {
            RequestKind::GetPages { rel, first: BlockNumber(first), count } => {
                (Object::Rel(rel), first, count)
            }
            RequestKind::GetSlruPages { kind, first, count } => {
                (Object::Slru(SlruKind::from_u8(kind).unwrap()), first, count)
            }
            _ => {
                return Response::error(request.id, ErrorCode::Internal, "not asked for by anyone");
            }
        };
        let pages: Result<Vec<Vec<u8>>, _> = (first..first + u32::from(count))
            .map(|block| self.page(object, block, request.lsn))
            .collect();
        match pages {
            Ok(pages) => {
                self.pages.all.fetch_add(u64::from(count), Ordering::Relaxed);
                if let Object::Slru(_) = object {
                    self.pages.slru.fetch_add(u64::from(count), Ordering::Relaxed);
                }
                Response { id: request.id, body: ResponseBody::Pages(pages.concat().into()) }
            }
            Err(error) => Response::error(request.id, ErrorCode::NotFound, error.to_string()),
        }
    }
}

impl Handler for Streams {
    fn describe(&mut self, _sql: &str) -> Result<Option<Vec<Column>>, QueryError> {
        Ok(None)
    }

    fn query(&mut self, sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        assert!(sql.starts_with("pagestream "));
        let mut stream = out.copy_both()?;
        while let Some(message) = stream.recv()? {
            let mut answer = Vec::new();
            self.answer(&Request::decode(&message).unwrap()).encode(&mut answer);
            stream.send(&[&answer])?;
            stream.flush()?;
        }
        stream.finish()?;
        Ok(())
    }
}

impl PageServer {
    /// Serves the pages of `pgdata` at the socket of port 5432 in `folder`.
    pub fn start(folder: &Path, pgdata: &Path) -> PageServer {
        let address = ListenAddress::Unix { path: folder.join(".s.PGSQL.5432"), mode: 0o777 };
        let listener = Listener::bind(&[address]).unwrap();
        let (stop, pages) = (StopSignal::new().unwrap(), Arc::new(Counters::default()));
        let first = Stores::from([(Lsn::INVALID, pgdata.to_owned())]);
        let stores = Arc::new(Mutex::new(first));
        let (stopped, counter, shared) = (stop.clone(), pages.clone(), stores.clone());
        let thread = thread::spawn(move || {
            let log = slog::Logger::root(slog::Discard, slog::o!());
            let make = |_: &_| Streams { stores: shared.clone(), pages: counter.clone() };
            serve(&listener, &ServerOptions::default(), &stopped, &log, make);
        });
        PageServer { stop, thread: Some(thread), stores, pages }
    }

    /// From now on requests at `lsn` and later are answered from `pgdata`.
    pub fn add(&self, lsn: Lsn, pgdata: PathBuf) {
        self.stores.lock().unwrap().insert(lsn, pgdata);
    }

    /// How many pages have been served.
    pub fn pages(&self) -> u64 {
        self.pages.all.load(Ordering::Relaxed)
    }

    /// How many of them were of SLRUs.
    pub fn slru_pages(&self) -> u64 {
        self.pages.slru.load(Ordering::Relaxed)
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.stop.fire();
        self.thread.take().unwrap().join().unwrap();
    }
}
