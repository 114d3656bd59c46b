//! The oracle: pages rebuilt from WAL alone are the pages in the files of the server that wrote
//! the WAL.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::{Cluster, Pages};
use common::wal::{self, History};
use common::{config, log, pool, scratch};
use postgres_formats::{BlockNumber, ForkNumber, Lsn, PageImage, RelTag};
use walredo_pool::{MaskKind, PendingRedo, RedoRequest, WalRedoPool};

/// Every kind of page that PostgreSQL's own access methods write.
const WORKLOAD: &str = include_str!("workload.sql");

/// What a run of the workload leaves behind.
struct Written {
    /// The server's pages before and after.
    before: Pages,
    after: Pages,
    history: History,
    control_file: Vec<u8>,
}

fn run_workload(settings: &str) -> Written {
    let mut cluster = Cluster::init(settings);
    let before = cluster.pages();
    cluster.start();
    let start = cluster.insert_lsn();
    cluster.script(WORKLOAD);
    let end = cluster.insert_lsn();
    cluster.stop();
    let history = wal::read_history(&cluster.data().join("pg_wal"), start, end);
    let control_file = std::fs::read(cluster.data().join("global/pg_control")).unwrap();
    let after = cluster.pages();
    Written { before, after, history, control_file }
}

/// Asks for every page that the WAL names; `take` gets what there is to compare.
fn rebuild(
    pool: &WalRedoPool,
    written: &Written,
    verify: bool,
    mut take: impl FnMut(RelTag, BlockNumber, PageImage),
) {
    let mut pending: Vec<(RelTag, BlockNumber, PendingRedo)> = Vec::new();
    for ((rel, block), versions) in &written.history.pages {
        let base = match versions.first() {
            Some(first) if !first.replaces_page => written.before.get(&(*rel, *block)).cloned(),
            _ => None,
        };
        // A page that ends up new was never there: its relation was dropped or made anew.
        let records = versions.iter().map(|version| version.record.clone()).collect();
        let request = RedoRequest { rel: *rel, block: *block, base, records };
        let answer = if verify { pool.submit_verified(request) } else { pool.submit(request) };
        pending.push((*rel, *block, answer));
    }
    for (rel, block, answer) in pending {
        match answer.wait() {
            Ok(page) => take(rel, block, page),
            Err(error) => panic!("{rel} block {block}: {error}"),
        }
    }
}

/// The lowest oid that `initdb` does not give (`FirstNormalObjectId`).
const FIRST_NORMAL_OID: u32 = 16384;

/// Where the only tuple of a sequence has `last_value`, `log_cnt` and `is_called`.
const SEQUENCE_STATE: std::ops::Range<usize> = 8160..8177;

/// Block 0 of an SP-GiST index only caches where there is room, and is not logged after its making.
fn is_not_logged(rmid: u8, block: BlockNumber) -> bool {
    rmid == wal::RM_SPGIST && block == BlockNumber(0)
}

fn compare_all(written: &Written, verify: bool) {
    let dir = scratch();
    let pool =
        WalRedoPool::new(config(dir.path(), written.control_file.clone(), 2), log()).unwrap();
    let (mut compared, mut maps, mut different) = (0, 0, Vec::new());
    rebuild(&pool, written, verify, |rel, block, page| {
        // A relation dropped since has no file.
        let Some(theirs) = written.after.get(&(rel, block)) else { return };
        if rel.fork == ForkNumber::Vm {
            // Records that clear bits do not name the page; whoever asks for it clears them. And
            // PostgreSQL 15 logs the maps of a database that it copies without their contents:
            // it takes them for pages with a hole between their header and their end.
            if rel.db.0 >= FIRST_NORMAL_OID {
                return;
            }
            let cleared = |(ours, theirs): (&u8, &u8)| theirs & !ours == 0;
            assert!(page[24..].iter().zip(&theirs[24..]).all(cleared), "{rel} block {block}");
            maps += 1;
        }
        let Some(&rmid) = written.history.rmids.get(&rel.locator()) else { return };
        if rel.fork != ForkNumber::Main {
            return;
        }
        compared += 1;
        let mask = MaskKind::ResourceManager(rmid);
        let masked = |page: &PageImage| {
            let mut page = pool.mask_page(mask, page, block).unwrap();
            if rmid == wal::RM_SEQ {
                // A record speaks of 32 values at once; the numbers in between are not logged.
                page[SEQUENCE_STATE].fill(0);
            }
            page
        };
        let (ours, masked) = (masked(&page), masked(theirs));
        if is_not_logged(rmid, block) {
            return;
        }
        if ours != masked {
            let at: Vec<usize> = (0..8192).filter(|at| ours[*at] != masked[*at]).collect();
            different.push((rel, block, rmid, page.lsn(), theirs.lsn(), at));
        }
    });
    for (rel, block, rmid, our_lsn, their_lsn, at) in &different {
        println!(
            "{rel} block {block} rmgr {rmid}: lsn {our_lsn} {their_lsn}; {} bytes differ: {:?}",
            at.len(),
            &at[..at.len().min(10)]
        );
    }
    println!("{} records, {compared} pages compared", written.history.records);
    assert!(different.is_empty(), "{} pages differ", different.len());
    assert!(compared > 500, "only {compared} pages were compared");
    assert!(maps > 5, "only {maps} pages of visibility maps were compared");
}

#[test]
fn without_full_page_writes() {
    let written = run_workload("full_page_writes = off");
    compare_all(&written, false);
}

#[test]
fn with_full_page_writes_and_an_image_in_every_record() {
    let written = run_workload("wal_consistency_checking = 'all'");
    assert!(written.history.largest > 64 * 1024, "no large record");
    compare_all(&written, true);
}

/// The left page of a split knows when its parent got to know of the right one. The server notes that
/// behind the record, so no image has it.
#[test]
fn gist_goes_on_behind_an_image() {
    /// `GISTPageOpaqueData` (`access/gist.h`).
    const SPECIAL: usize = 8192 - 16;
    const FLAGS: usize = SPECIAL + 12;
    const LEAF: u8 = 1 << 0;
    const FOLLOW_RIGHT: u8 = 1 << 3;

    let mut image = PageImage::zeroed();
    for (at, field) in [(12, 24), (14, SPECIAL), (16, SPECIAL), (18, 8192 | 4)] {
        image[at..at + 2].copy_from_slice(&u16::try_from(field).unwrap().to_le_bytes());
    }
    image[SPECIAL + 4] = 7;
    image[FLAGS] = LEAF | FOLLOW_RIGHT;
    image[FLAGS + 2..].copy_from_slice(&[0x81, 0xFF]);
    let (block, end) = (BlockNumber(3), 4096);
    let record = wal::gist_downlink(wal::TABLE, block.0, &image, end);

    let dir = scratch();
    let request = RedoRequest { rel: wal::TABLE, block, base: None, records: vec![record] };
    let page = pool(dir.path(), 1).request_redo(request).unwrap();

    let mut expected = image;
    expected.set_lsn(Lsn::new(end));
    expected[SPECIAL..SPECIAL + 8].copy_from_slice(&[0, 0, 0, 0, 0, 0x10, 0, 0]);
    expected[FLAGS] = LEAF;
    let differing: Vec<usize> = (0..8192).filter(|at| page[*at] != expected[*at]).collect();
    assert_eq!(differing, Vec::<usize>::new());
}
