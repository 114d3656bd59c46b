//! A request that cannot be served fails with a reason, fails alone, and can be looked at later.

#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::wal::{
    RM_HEAP, TABLE, deadly_request, full_page, heap_insert, heap_request, is_heap_page,
};
use common::{pool, scratch};
use postgres_formats::{BlockNumber, Lsn, PageImage};
use walredo_pool::{
    MaskKind, PendingRedo, RedoError, RedoRecord, RedoRequest, WalRedoPool, limits, load_poisoned,
};

/// Submits `bad` between good requests and returns its error.
fn fails_alone(pool: &WalRedoPool, bad: RedoRequest) -> RedoError {
    let good = |blocks: std::ops::Range<u32>| -> Vec<(u32, PendingRedo)> {
        blocks.map(|block| (block, pool.submit(heap_request(block, 20)))).collect()
    };
    let before = good(0..20);
    let bad = pool.submit(bad);
    let after = good(20..40);
    for (block, pending) in before.into_iter().chain(after) {
        assert!(is_heap_page(&pending.wait().unwrap(), block, 20));
    }
    bad.wait().unwrap_err()
}

fn refusal(error: RedoError) -> (Lsn, String) {
    match error {
        RedoError::Refused { record, message, saved } => {
            assert!(saved.is_some_and(|path| path.is_file()), "input was not saved");
            (record, message)
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn refused_records() {
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    let with_last = |record: RedoRecord| {
        let mut request = heap_request(7, 3);
        request.records.push(record);
        request
    };
    let good = heap_insert(TABLE, 7, 4, "four", 2000);
    let mut cases: Vec<(RedoRequest, &str)> = Vec::new();

    let mut bytes = good.bytes.to_vec();
    bytes[40] ^= 1;
    cases.push((with_last(RedoRecord { bytes: bytes.into(), ..good.clone() }), "checksum"));
    let cut = good.bytes.slice(..good.bytes.len() - 1);
    cases.push((with_last(RedoRecord { bytes: cut, ..good.clone() }), "header says otherwise"));
    let noise: Vec<u8> = (0..500u32).map(|n| (n * n / 8) as u8).collect();
    cases.push((with_last(RedoRecord { bytes: noise.into(), ..good.clone() }), "says otherwise"));
    cases.push((with_last(RedoRecord { bytes: Bytes::new(), ..good.clone() }), "says otherwise"));
    cases.push((with_last(heap_insert(TABLE, 8, 4, "x", 2000)), "does not name the page"));

    let mut no_page = heap_request(7, 3);
    no_page.records.remove(0);
    cases.push((no_page, "never initialized"));
    let mut no_block = heap_request(7, 1);
    no_block.block = BlockNumber(u32::MAX);
    cases.push((no_block, "out of range"));

    for (request, reason) in cases {
        let failing = request.records.len() as u64;
        let (record, message) = refusal(fails_alone(&pool, request));
        assert!(message.contains(reason), "{message:?} does not say {reason:?}");
        if failing == 4 {
            assert_eq!(record, Lsn::new(2000));
        }
    }
    let stats = pool.stats();
    assert_eq!((stats.starts, stats.deaths, stats.refused), (1, 0, 7), "the process lived on");
}

#[test]
fn a_deadly_request_fails_alone_and_can_be_replayed() {
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    let RedoError::Died { message, saved } = fails_alone(&pool, deadly_request(7)) else {
        panic!("the process lived on");
    };
    assert!(message.contains("PANIC"), "{message:?} does not tell the reason");
    let deaths = u64::from(limits::DEATHS_PER_REQUEST_MAX);
    assert_eq!(pool.stats().deaths, deaths);

    let saved = load_poisoned(&saved.unwrap()).unwrap();
    assert_eq!((saved.block, saved.records.len()), (BlockNumber(7), 3));
    let again = fails_alone(&pool, saved);
    assert!(matches!(again, RedoError::Died { .. }), "{again:?}");
    assert_eq!(pool.stats().deaths, 2 * deaths);
}

#[test]
fn large_records() {
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    let mut page = PageImage::zeroed();
    page[14..16].copy_from_slice(&8192u16.to_le_bytes());
    page[100..105].copy_from_slice(b"large");
    for ballast in [0, 64 * 1024, 1 << 20, (1 << 20) + 1, 40_000_000, 0] {
        let record = full_page(TABLE, 3, &page, ballast, 2000);
        let records = vec![record];
        let request = RedoRequest { rel: TABLE, block: BlockNumber(3), base: None, records };
        let pending: Vec<PendingRedo> = (0..3).map(|_| pool.submit(request.clone())).collect();
        for pending in pending {
            let made = pending.wait().unwrap();
            assert_eq!(&made[100..105], b"large");
            assert_eq!(made.lsn(), Lsn::new(2000));
        }
    }
    // Never touched, so never really allocated.
    let bytes = Bytes::from(vec![0; limits::RECORD_BYTES_MAX + 1]);
    let records = vec![RedoRecord { end: Lsn::new(8), bytes }];
    let request = RedoRequest { rel: TABLE, block: BlockNumber(3), base: None, records };
    let error = pool.request_redo(request).unwrap_err();
    assert!(matches!(error, RedoError::RecordTooLarge { .. }), "{error:?}");
}

/// Redo of heap records also writes to the free space map and the visibility map. Nothing of that
/// may reach a file: for the last block of a relation, these would be many gigabytes.
#[test]
fn the_highest_block_touches_no_file() {
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    for block in [0, 4_069 * 131_072, u32::MAX - 2] {
        // So full that its free space is recorded.
        let page = pool.request_redo(heap_request(block, 135)).unwrap();
        assert!(is_heap_page(&page, block, 135), "block {block}");
    }
    let work = std::fs::read_dir(dir.path().join("walredo")).unwrap().map(|e| e.unwrap().path());
    let [data] = work.filter(|path| path.is_dir()).collect::<Vec<_>>().try_into().unwrap();
    for entry in std::fs::read_dir(data.join("global")).unwrap() {
        let entry = entry.unwrap();
        let expected = if entry.file_name() == "pg_control" { 8192 } else { 0 };
        assert_eq!(entry.metadata().unwrap().len(), expected, "{entry:?}");
    }
}

#[test]
fn masks() {
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    let page = pool.request_redo(heap_request(5, 3)).unwrap();
    let mut other = page.clone();
    other.set_lsn(Lsn::new(5));
    other[8] = 77; // checksum
    let mask =
        |kind: MaskKind, page: &PageImage| pool.mask_page(kind, page, BlockNumber(5)).unwrap();
    assert!(mask(MaskKind::PageHeader, &page) == mask(MaskKind::PageHeader, &other));
    other[4000] = 1; // unused space
    assert!(mask(MaskKind::PageHeader, &page) != mask(MaskKind::PageHeader, &other));
    let heap = MaskKind::ResourceManager(RM_HEAP);
    assert!(mask(heap, &page) == mask(heap, &other));
    other[8184] ^= 1; // the first tuple
    assert!(mask(heap, &page) != mask(heap, &other));
    let error = pool.mask_page(MaskKind::ResourceManager(200), &page, BlockNumber(5)).unwrap_err();
    assert!(error.to_string().contains("200 is not loaded"), "{error}");
}

#[test]
fn no_records_give_the_base_back() {
    let dir = scratch();
    let pool = pool(dir.path(), 1);
    let mut page = PageImage::zeroed();
    page[4000] = 9;
    let request = |base| RedoRequest { rel: TABLE, block: BlockNumber(0), base, records: vec![] };
    assert!(pool.request_redo(request(Some(page.clone()))).unwrap() == page);
    assert!(pool.request_redo(request(None)).unwrap() == PageImage::zeroed());
}
