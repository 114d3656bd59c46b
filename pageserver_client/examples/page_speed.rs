//! How fast pages come, beside what a Unix socket needs for as many bytes by itself.
//!
//! `page_speed CONNSTR TIMELINE LSN SPC/DB/REL BLOCKS`: asks for the first pages of a relation at random, one
//! after the other, and then in batches, as a compute's process that reads much does: by way of a window
//! (`pageserver_client::window`). In between, the same questions and answers go over a bare socket
//! pair between two threads, which wait as both sides of a page stream do: they look for more for a moment before they
//! sleep, for otherwise what is compared is how long an idle processor takes to wake up. One JSON object on stdout,
//! with the times of all rounds, in turns, so that both sides had the same machine. What is measured is pages that are in the page server's memory: all of them have
//! been asked for before, so there should be no more than its caches hold. Part of `make bench`.

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use pageserver_client::client::{ClientTimeouts, PageClient};
use pageserver_client::{RequestKind, ResponseBody};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rounds of each kind.
const ROUNDS: u32 = 9;
/// How often all pages are asked for before anything is measured.
const WARM_PASSES: usize = 4;
/// Pages asked for one by one in a round.
const SINGLES: u32 = 2000;
/// Batches in a round, how many requests each has, and how many pages each of those.
const BATCHES: u32 = 20;
const REQUESTS: u32 = 16;
const PAGES: u32 = 32;
/// Bytes of a request on the wire, about.
const REQUEST_BYTES: usize = 45;
/// How long both sides of a page stream look for more before they sleep (`postgres_wire/src/linger.rs`).
const LOOK_FOR: Duration = Duration::from_micros(50);

/// Numbers without a pattern that a cache or a disk could follow, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % u64::from(bound.max(1))) as u32
    }
}

struct Pages {
    client: PageClient,
    rel: RelTag,
    lsn: Lsn,
    blocks: u32,
    numbers: Numbers,
}

impl Pages {
    /// Nanoseconds that the median of single pages took.
    fn singles(&mut self) -> Result<u64> {
        let mut taken = Vec::new();
        for _ in 0..SINGLES {
            let block = BlockNumber(self.numbers.below(self.blocks));
            let began = Instant::now();
            look_at(&self.client.get_pages(self.rel, block, 1, self.lsn)?);
            taken.push(began.elapsed());
        }
        Ok(median(taken))
    }

    /// Asks for all of them, more than once, so that they are in memory rather than what was wanted earlier.
    fn warm(&mut self) -> Result<()> {
        for first in (0..self.blocks).step_by(PAGES as usize).cycle().take(self.warm_requests()) {
            let count = PAGES.min(self.blocks - first) as u16;
            self.client.get_pages(self.rel, BlockNumber(first), count, self.lsn)?;
        }
        Ok(())
    }

    fn warm_requests(&self) -> usize {
        WARM_PASSES * self.blocks.div_ceil(PAGES) as usize
    }

    /// Nanoseconds that all batches took.
    fn batches(&mut self) -> Result<u64> {
        let began = Instant::now();
        for _ in 0..BATCHES {
            for _ in 0..REQUESTS {
                let first = self.numbers.below(self.blocks.saturating_sub(PAGES));
                let (rel, first, count) = (self.rel, BlockNumber(first), PAGES as u16);
                self.client.send(self.lsn, RequestKind::GetPages { rel, first, count })?;
            }
            self.client.flush()?;
            for _ in 0..REQUESTS {
                match self.client.recv()?.body {
                    ResponseBody::Pages(pages) if pages.len() == PAGES as usize * BLCKSZ => {
                        look_at(&pages);
                    }
                    other => return Err(format!("{other:?}").into()),
                }
            }
        }
        Ok(began.elapsed().as_nanos() as u64)
    }
}

/// Has the processor fetch all of it, as whoever asked for it will.
fn look_at(bytes: &[u8]) {
    black_box(bytes.iter().step_by(64).fold(0, |all, byte| all ^ byte));
}

/// Reads as both sides of a page stream do.
fn read_exact(socket: &mut UnixStream, buffer: &mut [u8]) -> io::Result<()> {
    let (mut done, mut began) = (0, Instant::now());
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match recv(socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => (done, began) = (done + count, Instant::now()),
            Err(Errno::EAGAIN) if began.elapsed() < LOOK_FOR => thread::yield_now(),
            Err(Errno::EAGAIN) => done += socket.read(rest)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The bare socket pair: a thread that answers each question of `REQUEST_BYTES` with so many bytes out of
/// as many as the relation has, so that they come out of memory and not all out of the processor's cache.
struct Bare {
    socket: UnixStream,
    buffer: Vec<u8>,
}

impl Bare {
    fn start(answer_bytes: usize, relation_bytes: usize) -> Result<Bare> {
        let (socket, mut other) = UnixStream::pair()?;
        thread::spawn(move || {
            let mut question = [0; REQUEST_BYTES];
            let relation = vec![7; relation_bytes.max(answer_bytes)];
            let places = ((relation.len() - answer_bytes) / BLCKSZ + 1) as u32;
            let mut numbers = Numbers(2);
            while read_exact(&mut other, &mut question).is_ok() {
                let from = numbers.below(places) as usize * BLCKSZ;
                let answer = relation.get(from..from + answer_bytes).unwrap_or_default();
                if other.write_all(answer).is_err() {
                    break;
                }
            }
        });
        Ok(Bare { socket, buffer: vec![0; answer_bytes] })
    }

    fn ask(&mut self, times: u32) -> Result<()> {
        self.socket.write_all(&vec![1; REQUEST_BYTES * times as usize])?;
        for _ in 0..times {
            read_exact(&mut self.socket, &mut self.buffer)?;
            look_at(&self.buffer);
        }
        Ok(())
    }

    fn singles(&mut self) -> Result<u64> {
        let mut taken = Vec::new();
        for _ in 0..SINGLES {
            let began = Instant::now();
            self.ask(1)?;
            taken.push(began.elapsed());
        }
        Ok(median(taken))
    }

    fn batches(&mut self) -> Result<u64> {
        let began = Instant::now();
        for _ in 0..BATCHES {
            self.ask(REQUESTS)?;
        }
        Ok(began.elapsed().as_nanos() as u64)
    }
}

fn median(mut taken: Vec<Duration>) -> u64 {
    taken.sort_unstable();
    taken.get(taken.len() / 2).map_or(0, |time| time.as_nanos() as u64)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [connstr, timeline, lsn, rel, blocks] = arguments.as_slice() else {
        return Err("usage: page_speed CONNSTR TIMELINE LSN SPC/DB/REL BLOCKS".into());
    };
    let mut oids = rel.split('/').map(|oid| oid.parse().map(Oid));
    let mut oid = || oids.next().ok_or("a relation has three numbers");
    let (spc, db, relation) = (oid()??, oid()??, oid()??);
    let minute = Duration::from_secs(60);
    let timeouts = ClientTimeouts { connect: minute, response: minute };
    let mut client = PageClient::connect(connstr, timeline.parse()?, timeouts)?;
    client.open_window((REQUESTS * PAGES) as u16)?;
    let mut pages = Pages {
        client,
        rel: RelTag { spc, db, rel: relation, fork: ForkNumber::Main },
        lsn: lsn.parse()?,
        blocks: blocks.parse()?,
        numbers: Numbers(1),
    };
    let relation_bytes = pages.blocks as usize * BLCKSZ;
    let mut one = Bare::start(BLCKSZ, relation_bytes)?;
    let mut many = Bare::start(PAGES as usize * BLCKSZ, relation_bytes)?;
    pages.warm()?;
    // The answer with the window comes before all others.
    pages.client.get_pages(pages.rel, BlockNumber(0), 1, pages.lsn)?;
    if !pages.client.has_window() {
        return Err("the page server has no window".into());
    }
    let mut rounds: [Vec<u64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        rounds[0].push(pages.singles()?);
        rounds[1].push(one.singles()?);
        rounds[2].push(pages.batches()?);
        rounds[3].push(many.batches()?);
    }
    println!(
        "{{\"single_ns\": {:?}, \"bare_single_ns\": {:?}, \"batches_ns\": {:?}, \
         \"bare_batches_ns\": {:?}, \"batches_bytes\": {}}}",
        rounds[0],
        rounds[1],
        rounds[2],
        rounds[3],
        BATCHES * REQUESTS * PAGES * BLCKSZ as u32,
    );
    Ok(())
}
