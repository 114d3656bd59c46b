//! Every parser against hand-made records, and against bytes that nobody made.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::heap::{HeapBlock, VM_ALL_FROZEN, VM_VALID_BITS, visibility_clears};
use super::*;
use crate::wal::rmgr;
use crate::{ForkNumber, Lsn, MultiXactId, Oid, RelFileLocator, TransactionId};

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn locator(rel: u32) -> RelFileLocator {
    RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(rel) }
}

#[test]
fn commit_with_every_part() {
    let mut data = 77i64.to_le_bytes().to_vec();
    let all = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x80 | 0x100;
    data.extend(words(&[all, 5, 1663]));
    data.extend(words(&[2, 101, 102]));
    data.extend(words(&[1, 1663, 5, 16384]));
    data.extend(words(&[1, 9, 9, 9]));
    data.extend(words(&[2, 8, 8, 8, 8, 8, 8, 8, 8]));
    data.extend(words(&[100]));
    data.extend(b"gid\0");
    data.extend(0x1_0000_0000u64.to_le_bytes());
    data.extend(78i64.to_le_bytes());

    let info = rmgr::xact::COMMIT_PREPARED | rmgr::xact::HAS_INFO;
    let end = xact::XactEnd::parse(info, &data).unwrap();
    assert!(end.commit);
    assert_eq!(end.time, 77);
    assert_eq!(end.subxacts, [TransactionId(101), TransactionId(102)]);
    assert_eq!(end.dropped_rels, [locator(16384)]);
    assert_eq!(end.prepared_xid, Some(TransactionId(100)));
    let origin = end.origin.unwrap();
    assert_eq!((origin.lsn, origin.time), (Lsn::new(1 << 32), 78));

    for length in 0..data.len() {
        assert!(xact::XactEnd::parse(info, &data[..length]).is_err(), "{length} bytes were enough");
    }
    // A commit of another kind must not name a prepared transaction.
    assert!(xact::XactEnd::parse(rmgr::xact::COMMIT | rmgr::xact::HAS_INFO, &data).is_err());
}

#[test]
fn smallest_abort() {
    let end = xact::XactEnd::parse(rmgr::xact::ABORT, &5i64.to_le_bytes()).unwrap();
    assert!(!end.commit);
    assert!(end.subxacts.is_empty() && end.dropped_rels.is_empty());
    assert!(xact::XactEnd::parse(rmgr::xact::ABORT_PREPARED, &5i64.to_le_bytes()).is_err());
    assert!(xact::XactEnd::parse(rmgr::xact::PREPARE, &5i64.to_le_bytes()).is_err());
}

#[test]
fn prepare_has_its_subtransactions_behind_the_padded_gid() {
    let mut data = words(&[0x57F9_4534, 999, 100, 5]);
    data.extend(77i64.to_le_bytes());
    data.extend(words(&[10, 2, 0, 0, 0, 0, 0]));
    data.extend([0, 0]);
    data.extend(3u16.to_le_bytes());
    data.extend([0; 16]);
    assert_eq!(data.len(), 72);
    data.extend(b"ab\0\0\0\0\0\0");
    data.extend(words(&[101, 102]));
    let prepare = xact::XactPrepare::parse(&data).unwrap();
    assert_eq!((prepare.xid, prepare.db, prepare.time), (TransactionId(100), Oid(5), 77));
    assert_eq!(prepare.subxacts, [TransactionId(101), TransactionId(102)]);
}

#[test]
fn relation_files() {
    let create = smgr::parse_create(&words(&[1663, 5, 16384, 2])).unwrap();
    assert_eq!(create, locator(16384).fork(ForkNumber::Vm));
    for fork in [4, 0xFFFF_FFFF, 0x100] {
        assert!(smgr::parse_create(&words(&[1663, 5, 16384, fork])).is_err());
    }
    let truncate = smgr::SmgrTruncate::parse(&words(&[7, 1663, 5, 16384, 0x5])).unwrap();
    assert_eq!((truncate.nblocks.0, truncate.rel), (7, locator(16384)));
    assert!(truncate.main && truncate.fsm && !truncate.vm);
}

#[test]
fn multitransactions() {
    let data = words(&[9, 0xFFFF_FFFF, 2, 100, 1, 101, 5]);
    let create = multixact::MultiXactCreate::parse(&data).unwrap();
    assert_eq!(create.multi, MultiXactId(9));
    assert_eq!(create.members.len(), 2);
    assert_eq!(create.members[1].status, 5);
    assert_eq!(create.end_member(), 1);
    assert!(multixact::MultiXactCreate::parse(&words(&[9, 0, 1, 100, 6])).is_err());
    // A count that would need 32 GiB must fail before anything is allocated for it.
    assert!(multixact::MultiXactCreate::parse(&words(&[9, 0, 0x7FFF_FFFF])).is_err());
    assert!(multixact::MultiXactCreate::parse(&words(&[9, 0, 0xFFFF_FFFF])).is_err());
}

#[test]
fn databases_and_their_map() {
    let drop = dbase::DbaseDrop::parse(&words(&[16384, 2, 1663, 16390])).unwrap();
    assert_eq!((drop.db, drop.tablespaces), (Oid(16384), vec![Oid(1663), Oid(16390)]));
    let mut data = words(&[5, 1663, 512]);
    data.extend([7; 512]);
    assert_eq!(relmap::RelMapUpdate::parse(&data).unwrap().map, [7; 512]);
    data[9] = 1;
    assert!(relmap::RelMapUpdate::parse(&data).is_err());
    let create = tblspc::TblspcCreate::parse(b"\x01\0\0\0/data\0").unwrap();
    assert_eq!((create.spc, create.path), (Oid(1), b"/data".as_slice()));
    assert!(tblspc::TblspcCreate::parse(b"\x01\0\0\0/data").is_err());
}

#[test]
fn visibility_map_clears_of_each_kind() {
    let flags_at = |offset: usize, flags: u8| {
        let mut data = vec![0; 16];
        data[offset] = flags;
        data
    };
    let clears = |rmid, info, offset, flags| {
        let found = visibility_clears(rmid, info, &flags_at(offset, flags)).unwrap();
        found.into_iter().map(|clear| (clear.block, clear.bits)).collect::<Vec<_>>()
    };
    use HeapBlock::{First, SecondElseFirst};
    use rmgr::{HEAP, HEAP2, heap, heap2};
    let both = [(First, VM_VALID_BITS)];
    assert_eq!(clears(HEAP, heap::INSERT, 2, 0x01), both);
    assert_eq!(clears(HEAP, heap::INSERT | heap::INIT_PAGE, 2, 0x01), both);
    assert_eq!(clears(HEAP, heap::INSERT, 2, 0x3E), []);
    assert_eq!(clears(HEAP, heap::DELETE, 7, 0x01), both);
    assert_eq!(clears(HEAP, heap::LOCK, 7, 0x01), [(First, VM_ALL_FROZEN)]);
    assert_eq!(clears(HEAP2, heap2::LOCK_UPDATED, 7, 0x01), [(First, VM_ALL_FROZEN)]);
    assert_eq!(clears(HEAP2, heap2::MULTI_INSERT | heap::INIT_PAGE, 0, 0x01), both);
    for kind in [heap::UPDATE, heap::HOT_UPDATE] {
        assert_eq!(clears(HEAP, kind, 7, 0x01), [(SecondElseFirst, VM_VALID_BITS)]);
        assert_eq!(clears(HEAP, kind, 7, 0x02), both);
        assert_eq!(
            clears(HEAP, kind, 7, 0x03),
            [(SecondElseFirst, VM_VALID_BITS), (First, VM_VALID_BITS)]
        );
    }
    // Setting a bit is an ordinary page change; INPLACE has the bits of no flag at all.
    assert_eq!(clears(HEAP2, heap2::VISIBLE, 4, 0x03), []);
    assert_eq!(clears(HEAP, heap::INPLACE, 7, 0x01), []);
    assert_eq!(clears(rmgr::BTREE, 0, 2, 0x01), []);
    assert!(visibility_clears(HEAP, heap::DELETE, &[0; 7]).is_err());
}

#[test]
fn progress_of_origins() {
    let set = replorigin::OriginSet::parse(&words(&[5, 1, 0x1_0003, 0])).unwrap();
    assert_eq!((set.remote_lsn, set.origin, set.force), (Lsn::new(0x1_0000_0005), 3, true));
    assert_eq!(replorigin::parse_drop(&[3, 1]), Ok(0x103));
    assert!(replorigin::parse_drop(&[3]).is_err());
}

#[test]
fn running_transactions() {
    let running = standby::RunningXacts::parse(&words(&[1, 0, 1, 103, 101, 102, 101])).unwrap();
    assert_eq!(running.next_xid, TransactionId(103));
    assert_eq!(running.oldest_running_xid, TransactionId(101));
    assert_eq!(running.latest_completed_xid, TransactionId(102));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        info: u8,
        rmid: u8,
        head in prop::collection::vec(prop_oneof![0u32..8, any::<u32>()], 0..20),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut data = words(&head);
        data.extend(tail);
        let _ = xact::XactEnd::parse(info, &data);
        let _ = xact::XactPrepare::parse(&data);
        let _ = xact::XactAssignment::parse(&data);
        let _ = clog::ClogTruncate::parse(&data);
        let _ = clog::parse_zero_page(&data);
        let _ = commit_ts::CommitTsTruncate::parse(&data);
        let _ = commit_ts::parse_zero_page(&data);
        let _ = crate::ServerParameters::decode_record(&data);
        let _ = multixact::MultiXactCreate::parse(&data);
        let _ = multixact::MultiXactTruncate::parse(&data);
        let _ = relmap::RelMapUpdate::parse(&data);
        let _ = replorigin::OriginSet::parse(&data);
        let _ = replorigin::parse_drop(&data);
        let _ = crate::replication_origins::decode(&data);
        let _ = dbase::DbaseCreateFileCopy::parse(&data);
        let _ = dbase::DbaseCreateWalLog::parse(&data);
        let _ = dbase::DbaseDrop::parse(&data);
        let _ = smgr::parse_create(&data);
        let _ = smgr::SmgrTruncate::parse(&data);
        let _ = standby::RunningXacts::parse(&data);
        let _ = tblspc::TblspcCreate::parse(&data);
        let _ = xlog::EndOfRecovery::parse(&data);
        let _ = visibility_clears(rmid, info, &data);
    }
}
