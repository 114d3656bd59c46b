#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use postgres_formats::BLCKSZ;

use super::*;
use crate::presence;
use crate::segment_file::Object;

const REL: &str = "base/5/16384";
const REST: &str = "base/5/16384.1";
const CLOG: &str = "pg_xact/0000";

/// Every byte of a page on the page server is the low byte of its number within its object plus 100.
fn base_byte(page: u32) -> u8 {
    (page as u8).wrapping_add(100)
}

#[derive(Default)]
struct FakeServer {
    asked: Vec<(u32, u16)>,
    hinted: usize,
    /// Pages from here on are not there.
    size: Option<u32>,
    /// What happens while pages are on their way.
    meanwhile: Option<Box<dyn FnMut(u32)>>,
}

impl PageSource for FakeServer {
    fn pages(&mut self, _: Object, first: u32, count: u16) -> Result<Bytes, FetchError> {
        self.asked.push((first, count));
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile(first);
        }
        let pages = first..first + u32::from(count);
        if self.size.is_some_and(|size| pages.end > size) {
            return Err(FetchError::NotThere("gone".to_owned()));
        }
        Ok(pages.flat_map(|page| vec![base_byte(page); BLCKSZ]).collect())
    }

    fn hint(&mut self, _: Object, first: u32, count: u16) -> u32 {
        self.hinted += usize::from(count);
        first + u32::from(count)
    }

    fn is_hinted(&self, _: Object, _: u32) -> bool {
        false
    }

    fn send_hints(&mut self) {}
}

struct Compute {
    dir: tempfile::TempDir,
}

impl Compute {
    fn new(stubs: &[(&str, u32)]) -> Compute {
        let compute = Compute { dir: tempfile::tempdir().unwrap() };
        for (path, blocks) in stubs {
            let file = compute.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            File::create(&file).unwrap().set_len(u64::from(*blocks) * BLCKSZ as u64).unwrap();
            presence::create(&compute.map_path(path), *blocks).unwrap();
        }
        compute
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join("pgdata").join(relative)
    }

    fn map_path(&self, relative: &str) -> PathBuf {
        self.dir.path().join("presence").join(relative)
    }

    fn map(&self, relative: &str) -> Option<Map> {
        Map::open(&self.map_path(relative), BootId::current().unwrap()).unwrap()
    }

    fn hydrate_until(
        &self,
        server: &mut FakeServer,
        fsync: bool,
        go_on: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Hydrated, HydrateError> {
        let (pgdata, presence) = (self.dir.path().join("pgdata"), self.dir.path().join("presence"));
        let stubs = Stubs {
            pgdata: &pgdata,
            presence: &presence,
            boot: BootId::current().unwrap(),
            durability: Durability { fsync, retries_failed_sync: false },
        };
        hydrate(stubs, server, go_on)
    }

    fn hydrate(&self, server: &mut FakeServer) -> Hydrated {
        self.hydrate_until(server, true, &mut |_| true).unwrap()
    }

    /// Checks that all blocks are there but those of `other`, which begin with another byte.
    fn check(&self, relative: &str, first_page: u32, other: &[(u32, u8)]) {
        let bytes = fs::read(self.path(relative)).unwrap();
        for (block, page) in (0..).zip(bytes.chunks(BLCKSZ)) {
            let changed = other.iter().find(|(at, _)| *at == block);
            let expected = changed.map_or(base_byte(first_page + block), |(_, byte)| *byte);
            assert!(page.iter().all(|byte| *byte == expected), "block {block} of {relative}");
        }
    }
}

#[test]
fn everything_is_fetched_and_its_maps_are_forgotten() {
    let stubs = [(REL, 1000), (REST, 3), (CLOG, 2)];
    let (compute, mut server) = (Compute::new(&stubs), FakeServer::default());
    let mut seen = Vec::new();
    let hydrated = compute.hydrate_until(&mut server, true, &mut |progress| {
        seen.push(progress);
        true
    });
    assert_eq!(hydrated.unwrap(), Hydrated { blocks: 1005, left: 0 });
    assert_eq!(seen[0], Progress { done: 0, total: 1005 });
    assert_eq!(*seen.last().unwrap(), Progress { done: 1005, total: 1005 });
    assert!(seen.is_sorted_by_key(|progress| progress.done));
    assert_eq!(server.hinted, 1005);
    assert!(server.asked.iter().all(|(_, count)| u32::from(*count) <= BLOCKS_PER_REQUEST_MAX));
    compute.check(REL, 0, &[]);
    compute.check(REST, postgres_formats::relpath::BLOCKS_PER_SEGMENT, &[]);
    compute.check(CLOG, 0, &[]);
    assert!(stubs.iter().all(|(path, _)| compute.map(path).is_none()));
    // There is nothing left to do.
    let mut server = FakeServer::default();
    assert_eq!(compute.hydrate(&mut server), Hydrated::default());
    assert!(server.asked.is_empty());
}

#[test]
fn what_a_server_has_brought_in_keeps_its_map_until_it_is_durable() {
    let compute = Compute::new(&[(REL, 100)]);
    File::options()
        .write(true)
        .open(compute.path(REL))
        .unwrap()
        .write_all_at(&[7; BLCKSZ], 5 * BLCKSZ as u64)
        .unwrap();
    compute.map(REL).unwrap().mark_present(5..6);
    let mut server = FakeServer::default();
    assert_eq!(compute.hydrate(&mut server).blocks, 99);
    assert_eq!(server.asked, [(0, 5), (6, 64), (70, 30)]);
    compute.check(REL, 0, &[(5, 7)]);
    // The write of block 5 may have failed before we began, and nobody would tell us.
    let map = compute.map(REL).unwrap();
    assert_eq!(map.absent_blocks(), 0);
    map.distrust_live();
    let map = compute.map(REL).unwrap();
    assert_eq!((map.absent_blocks(), map.first_absent_run(0..100)), (1, 5..6));

    // Without fsync all that is there counts.
    let compute = Compute::new(&[(REL, 100)]);
    compute.map(REL).unwrap().mark_present(5..6);
    compute.hydrate_until(&mut server, false, &mut |_| true).unwrap();
    assert!(compute.map(REL).is_none());
}

#[test]
fn one_that_is_broken_off_is_taken_up_where_it_was() {
    let (compute, mut server) = (Compute::new(&[(REL, 1000)]), FakeServer::default());
    let broken = compute.hydrate_until(&mut server, true, &mut |progress| progress.done < 300);
    assert!(matches!(broken, Err(HydrateError::Fetch(FetchError::Canceled))));
    let left = compute.map(REL).unwrap().absent_blocks();
    assert!(left <= 700);
    assert_eq!(compute.hydrate(&mut FakeServer::default()).blocks, u64::from(left));
    compute.check(REL, 0, &[]);
}

#[test]
fn what_the_server_does_meanwhile_stays() {
    let (compute, mut server) = (Compute::new(&[(REL, 400), (REST, 9)]), FakeServer::default());
    let (path, map) = (compute.path(REL), compute.map(REL).unwrap());
    let (other, other_map) = (compute.path(REST), compute.map_path(REST));
    server.meanwhile = Some(Box::new(move |first| {
        if first == 0 {
            // A block is written, the end is cut off, and another file is removed.
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[7; BLCKSZ], 5 * BLCKSZ as u64).unwrap();
            map.mark_present(5..6);
            file.set_len(200 * BLCKSZ as u64).unwrap();
            map.lower_limit(200);
            fs::remove_file(&other).unwrap();
            fs::remove_file(&other_map).unwrap();
        }
    }));
    // What has been removed is filled in for nobody, for it was open already.
    assert_eq!(compute.hydrate(&mut server).blocks, 199 + 9);
    assert_eq!(fs::metadata(compute.path(REL)).unwrap().len(), 200 * BLCKSZ as u64);
    compute.check(REL, 0, &[(5, 7)]);
    assert!(!compute.path(REST).exists());
}

#[test]
fn pages_on_their_way_out_are_left_to_the_server() {
    let compute = Compute::new(&[(REL, 100)]);
    let mut server = FakeServer { size: Some(37), ..FakeServer::default() };
    assert_eq!(compute.hydrate(&mut server), Hydrated { blocks: 37, left: 63 });
    assert_eq!(compute.map(REL).unwrap().first_absent_run(0..100), 37..100);
}

#[test]
fn two_at_once_do_the_work_once() {
    let compute = Compute::new(&[(REL, 3000), (CLOG, 30)]);
    let blocks: u64 = std::thread::scope(|scope| {
        let work = || compute.hydrate(&mut FakeServer::default()).blocks;
        let threads = [scope.spawn(work), scope.spawn(work), scope.spawn(work)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(blocks, 3030);
    compute.check(REL, 0, &[]);
    compute.check(CLOG, 0, &[]);
}

#[test]
fn some_blocks_are_fetched_ahead() {
    let (compute, mut server) = (Compute::new(&[(REL, 100), (CLOG, 9)]), FakeServer::default());
    let (pgdata, presence) =
        (compute.dir.path().join("pgdata"), compute.dir.path().join("presence"));
    let stubs = Stubs {
        pgdata: &pgdata,
        presence: &presence,
        boot: BootId::current().unwrap(),
        durability: Durability { fsync: true, retries_failed_sync: false },
    };
    server.size = Some(50);
    let wanted = |path: &str, runs: &[Range<u32>]| (PathBuf::from(path), runs.to_vec());
    let wanted = vec![
        wanted(REL, &[3..5, 7..8, 40..60, 99..200]),
        wanted(CLOG, &[8..9, 500..600]),
        wanted("base/5/1", &[0..1]),
    ];
    assert_eq!(fetch_ahead(stubs, wanted, &mut server).unwrap(), 3 + 10 + 1);
    let map = compute.map(REL).unwrap();
    let present: Vec<u32> = (0..100).filter(|block| map.is_present(*block)).collect();
    assert_eq!(present, [3, 4, 7].into_iter().chain(40..50).collect::<Vec<_>>());
    assert!(compute.map(CLOG).unwrap().is_present(8));
}
