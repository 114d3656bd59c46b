//! Relations that are large, cut in odd places, and many: what a stock server makes of them, cheaply.
//!
//! A table gets its size from outside: the server takes a file that has become longer for pages that
//! were never written, as a crash during an extension leaves them, and goes on behind them.

#![allow(clippy::unwrap_used)]

mod stock;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pageserver::layer::import::DataDirectory;
use pageserver::repository::Repository;
use pageserver::timeline::{PageRequest, Timeline};
use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, relation_path};
use postgres_formats::wal::{RecordHeader, WalOrigin, WalWriter, rmgr};
use postgres_formats::{
    BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelFileLocator, RelTag,
};
use postgres_testing::{Cluster, scratch_dir};
use rand::SeedableRng;
use stock::{Opened, TIMEOUT, open, receive};
use walredo_pool::MaskKind;

const RM_HEAP: u8 = 10;
/// Pages of a table in one page of its visibility map, and of its free space map
/// (`storage/freespace/README`).
const VM_SPAN: u32 = 32672;
const FSM_SPAN: u32 = 4069;
/// Where the slots of a page of the free space map begin, behind the header, a number and the inner
/// nodes of its tree.
const FSM_SLOTS_AT: usize = 24 + 4 + 4095;

/// The table at a moment, as the server has it.
struct Moment {
    lsn: Lsn,
    sizes: BTreeMap<ForkNumber, u32>,
    pages: BTreeMap<(ForkNumber, u32), PageImage>,
}

struct Table<'c> {
    cluster: &'c Cluster,
    rel: RelFileLocator,
    /// Blocks that are looked at.
    watched: Vec<u32>,
}

impl Table<'_> {
    fn path(&self, fork: ForkNumber, segment: u32) -> PathBuf {
        self.cluster.data_dir().join(relation_path(self.rel.fork(fork), segment))
    }

    /// Makes the table so long; its last segment, at least, must be there.
    fn extend(&self, nblocks: u32) {
        let (segment, rest) = (nblocks / BLOCKS_PER_SEGMENT, nblocks % BLOCKS_PER_SEGMENT);
        let (segment, blocks) =
            if rest == 0 { (segment - 1, BLOCKS_PER_SEGMENT) } else { (segment, rest) };
        let file = File::options().write(true).open(self.path(ForkNumber::Main, segment)).unwrap();
        file.set_len(u64::from(blocks) * BLCKSZ as u64).unwrap();
    }

    /// A row that fills a page.
    fn insert(&self, id: u32) {
        self.cluster.sql(&format!("insert into t values ({id}, repeat('x', 5000))"));
    }

    fn blocks(&self) -> String {
        self.cluster.sql("select string_agg(ctid::text, ' ' order by id) from t")
    }

    /// Files, after a checkpoint.
    fn moment(&self) -> Moment {
        self.cluster.sql("checkpoint");
        let lsn = self.cluster.sql("select pg_current_wal_insert_lsn()").parse().unwrap();
        let mut moment = Moment { lsn, sizes: BTreeMap::new(), pages: BTreeMap::new() };
        for fork in [ForkNumber::Main, ForkNumber::Fsm, ForkNumber::Vm] {
            let length = |path: &Path| Some((fs::metadata(path).ok()?.len() / 8192) as u32);
            let segments = (0..3).map_while(|n| length(&self.path(fork, n)));
            let segments: Vec<u32> = segments.collect();
            if !segments.is_empty() {
                moment.sizes.insert(fork, segments.iter().sum());
            }
        }
        let size = |fork| moment.sizes.get(&fork).copied().unwrap_or(0);
        let main = self.watched.iter().map(|block| (ForkNumber::Main, *block));
        let vm = (0..size(ForkNumber::Vm)).map(|block| (ForkNumber::Vm, block));
        for (fork, block) in main.chain(vm).filter(|(fork, block)| *block < size(*fork)) {
            let path = self.path(fork, block / BLOCKS_PER_SEGMENT);
            moment.pages.insert((fork, block), read_page(&path, block % BLOCKS_PER_SEGMENT));
        }
        moment
    }
}

fn read_page(path: &Path, block: u32) -> PageImage {
    use std::os::unix::fs::FileExt;
    let mut page = PageImage::zeroed();
    let file = File::open(path).unwrap();
    file.read_exact_at(&mut page[..], u64::from(block) * BLCKSZ as u64).unwrap();
    page
}

fn begin(cluster: &Cluster) -> (Opened, Arc<Timeline>) {
    let dir = scratch_dir("zenith-sizes-");
    let main = "main".parse().unwrap();
    let id = Repository::init_from_pgdata(dir.path(), &cluster.data_dir(), &main).unwrap();
    let opened = open(dir, 16 << 20);
    let timeline = opened.repository.timeline(id).unwrap();
    (opened, timeline)
}

/// Over the end of a segment, with cuts within pages of both maps, and grown again over what was cut.
#[test]
fn a_table_of_several_files() {
    let mut cluster = Cluster::init("wal_keep_size = '10GB'\nautovacuum = off\n");
    let (opened, timeline) = begin(&cluster);
    cluster.start();
    cluster.sql("create table t (id int, pad text) with (fillfactor = 50)");
    cluster.sql("alter table t alter pad set storage plain");
    let rel = "select pg_relation_filenode('t')";
    let rel = RelFileLocator {
        spc: Oid::DEFAULT_TABLESPACE,
        db: Oid(5),
        rel: Oid(cluster.sql(rel).parse().unwrap()),
    };
    let last = BLOCKS_PER_SEGMENT - 1;
    let mut watched = vec![0, 1, 2, VM_SPAN - 1, VM_SPAN, VM_SPAN + 1499, 77_777];
    watched.extend([last - 1, last, last + 1, last + 2, last + 1500]);
    let table = Table { cluster: &cluster, rel, watched };
    let mut moments = Vec::new();

    table.insert(1);
    table.extend(BLOCKS_PER_SEGMENT);
    table.insert(2);
    table.insert(3);
    assert_eq!(table.blocks(), format!("(0,1) ({last},1) ({},1)", last + 1));
    moments.push(table.moment());
    // The second file ends in the middle of a page of either map.
    table.extend(last + 1500);
    table.insert(4);
    table.insert(5);
    cluster.sql("vacuum t");
    moments.push(table.moment());
    assert!(moments[1].sizes[&ForkNumber::Vm] == (last + 1500) / VM_SPAN + 1);
    // Cut within the second file.
    cluster.sql("delete from t where id in (4, 5)");
    cluster.sql("vacuum t");
    moments.push(table.moment());
    assert_eq!(moments[2].sizes[&ForkNumber::Main], last + 2);
    assert_ne!((last + 2) % FSM_SPAN, 0);
    // Grown again over that, with what was never written below it.
    table.extend(last + 1500);
    table.insert(6);
    cluster.sql("vacuum (freeze) t");
    moments.push(table.moment());
    // Down to one page, and as long as before once more.
    cluster.sql("delete from t where id > 1");
    cluster.sql("vacuum t");
    moments.push(table.moment());
    assert_eq!(moments[4].sizes[&ForkNumber::Main], 1);
    // Beyond the first page of the map, and back to where exactly it ends.
    table.extend(VM_SPAN);
    table.insert(7);
    table.extend(VM_SPAN + 1500);
    table.insert(8);
    cluster.sql("vacuum (freeze) t");
    moments.push(table.moment());
    assert_eq!(table.blocks(), format!("(0,1) ({},1) ({},1)", VM_SPAN - 1, VM_SPAN + 1499));
    assert_eq!(moments[5].sizes[&ForkNumber::Vm], 2);
    cluster.sql("delete from t where id = 8");
    cluster.sql("vacuum t");
    moments.push(table.moment());
    assert_eq!(moments[6].sizes[&ForkNumber::Main], VM_SPAN);
    assert_eq!(moments[6].sizes[&ForkNumber::Vm], 1);
    table.insert(9);
    moments.push(table.moment());
    cluster.sql("truncate t");
    cluster.sql("checkpoint");
    let after: Lsn = cluster.sql("select pg_current_wal_insert_lsn()").parse().unwrap();
    cluster.stop();

    let end = DataDirectory::open(&cluster.data_dir()).unwrap().end;
    receive(&timeline, &cluster, end, &mut rand::rngs::StdRng::seed_from_u64(1));
    let mut room = 0;
    for (number, moment) in moments.iter().enumerate() {
        room += compare(&opened, &timeline, rel, moment, &format!("moment {number}"));
    }
    assert!(room > 0, "no free space map was looked at");
    for fork in ForkNumber::ALL {
        assert_eq!(timeline.rel_size(rel.fork(fork), after).unwrap(), None);
    }
}

/// Gives the number of pages of the free space map that were looked at.
fn compare(
    opened: &Opened,
    timeline: &Arc<Timeline>,
    rel: RelFileLocator,
    moment: &Moment,
    when: &str,
) -> u32 {
    let pool = opened.maker.start_pool(&timeline.cluster().control_file_bytes).unwrap();
    let size = |fork| timeline.rel_size(rel.fork(fork), moment.lsn).unwrap().map(|size| size.0);
    let main = size(ForkNumber::Main).unwrap();
    assert_eq!(main, moment.sizes[&ForkNumber::Main], "{when}");
    let page = |fork, block| {
        let request = PageRequest::rel(rel.fork(fork), BlockNumber(block), moment.lsn);
        timeline.get_page(request, TIMEOUT)
    };
    assert!(page(ForkNumber::Main, main).is_err(), "{when}: a page behind the end");
    for (&(fork, block), theirs) in &moment.pages {
        // A page of the map that was never written is the same as none.
        let ours = match page(fork, block) {
            Err(_) if fork == ForkNumber::Vm => PageImage::zeroed(),
            ours => PageImage::clone(&ours.unwrap()),
        };
        let mask = match fork {
            ForkNumber::Vm => MaskKind::PageHeader,
            _ => MaskKind::ResourceManager(RM_HEAP),
        };
        let masked = |page: &PageImage| pool.mask_page(mask, page, BlockNumber(block)).unwrap();
        let equal = match fork {
            ForkNumber::Vm => ours[24..] == theirs[24..],
            _ => ours == *theirs || masked(&ours) == masked(theirs),
        };
        assert!(equal, "{when}: {fork:?} block {block}");
    }
    // What is in the free space map is not logged but by the way. It must not promise room behind
    // the table's end.
    let room = 2..size(ForkNumber::Fsm).unwrap_or(0);
    for block in room.clone() {
        let ours = page(ForkNumber::Fsm, block).unwrap();
        let first = (block - 2) * FSM_SPAN;
        for slot in main.saturating_sub(first)..FSM_SPAN {
            assert_eq!(ours[FSM_SLOTS_AT + slot as usize], 0, "{when}: room at {}", first + slot);
        }
    }
    room.len() as u32
}

/// One commit that removes a hundred thousand relations takes a moment, not a square of one.
#[test]
fn a_hundred_thousand_drops_in_one_commit() {
    const COUNT: u32 = 100_000;
    let cluster = Cluster::init("");
    let (_opened, timeline) = begin(&cluster);
    let known = timeline.cluster();
    let origin =
        WalOrigin { system_id: known.system_id, tli: known.tli, seg_size: known.segment_size };
    let from = timeline.restart_receiving().unwrap();
    let prev = timeline.state_at(from).unwrap().state.prev_record;
    let mut wal = WalWriter::new(from, prev, origin);
    let header =
        |rmid, info, xid| RecordHeader { tot_len: 0, xid, prev: Lsn::INVALID, info, rmid, crc: 0 };
    let locator = |n: u32| [1663, 5, 20_000 + n].map(u32::to_le_bytes).concat();
    for n in 0..COUNT {
        let body = [&[255, 16][..], &locator(n), &0u32.to_le_bytes()].concat();
        wal.append(header(rmgr::SMGR, rmgr::smgr::CREATE, 900), &body);
    }
    let before = wal.position();
    const HAS_INFO: u8 = 0x80;
    const DROPS_RELATIONS: u32 = 4;
    let mut data = 1i64.to_le_bytes().to_vec();
    data.extend(DROPS_RELATIONS.to_le_bytes());
    data.extend(COUNT.to_le_bytes());
    (0..COUNT).for_each(|n| data.extend(locator(n)));
    let body = [&[254][..], &(data.len() as u32).to_le_bytes(), &data].concat();
    wal.append(header(rmgr::XACT, rmgr::xact::COMMIT | HAS_INFO, 900), &body);

    let began = Instant::now();
    timeline.receive_wal(from, wal.bytes()).unwrap();
    let took = began.elapsed();
    let rel =
        |n| RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(20_000 + n), fork: ForkNumber::Main };
    for n in [0, 1, COUNT / 2, COUNT - 1] {
        assert_eq!(timeline.rel_size(rel(n), before).unwrap(), Some(BlockNumber(0)));
        assert_eq!(timeline.rel_size(rel(n), wal.position()).unwrap(), None);
    }
    assert!(took < Duration::from_secs(20), "it took {took:?}");
}
