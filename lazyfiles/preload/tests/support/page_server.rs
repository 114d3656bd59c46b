//! A page server whose store is a stopped cluster's data directory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use pageserver_client::{ErrorCode, Request, RequestKind, Response, ResponseBody};
use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, relation_path};
use postgres_formats::{BLCKSZ, BlockNumber, RelTag};
use postgres_wire::StopSignal;
use postgres_wire::server::{
    Column, Handler, ListenAddress, Listener, QueryError, QueryWriter, ServerOptions, serve,
};

pub struct PageServer {
    stop: StopSignal,
    thread: Option<JoinHandle<()>>,
    pages: Arc<AtomicU64>,
}

struct Streams {
    pgdata: PathBuf,
    pages: Arc<AtomicU64>,
}

impl Streams {
    fn page(&self, rel: RelTag, block: u32) -> std::io::Result<Vec<u8>> {
        let path = relation_path(rel, block / BLOCKS_PER_SEGMENT);
        let mut page = vec![0; BLCKSZ];
        let offset = u64::from(block % BLOCKS_PER_SEGMENT) * BLCKSZ as u64;
        File::open(self.pgdata.join(path))?.read_exact_at(&mut page, offset)?;
        Ok(page)
    }

    fn answer(&self, request: &Request) -> Response {
        let RequestKind::GetPages { rel, first: BlockNumber(first), count } = request.kind else {
            return Response::error(request.id, ErrorCode::Internal, "not asked for by anyone");
        };
        let pages: Result<Vec<Vec<u8>>, _> =
            (first..first + u32::from(count)).map(|block| self.page(rel, block)).collect();
        match pages {
            Ok(pages) => {
                self.pages.fetch_add(u64::from(count), Ordering::Relaxed);
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
        let (stop, pages) = (StopSignal::new().unwrap(), Arc::new(AtomicU64::new(0)));
        let (stopped, counter, pgdata) = (stop.clone(), pages.clone(), pgdata.to_owned());
        let thread = thread::spawn(move || {
            let log = slog::Logger::root(slog::Discard, slog::o!());
            let make = |_: &_| Streams { pgdata: pgdata.clone(), pages: counter.clone() };
            serve(&listener, &ServerOptions::default(), &stopped, &log, make);
        });
        PageServer { stop, thread: Some(thread), pages }
    }

    /// How many pages have been served.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.stop.fire();
        self.thread.take().unwrap().join().unwrap();
    }
}
