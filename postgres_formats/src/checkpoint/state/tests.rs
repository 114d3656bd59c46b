#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::wal::RecordHeader;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn observe(
    state: &mut CheckpointState,
    xid: u32,
    rmid: u8,
    info: u8,
    data: Vec<u8>,
) -> Result<(), RecordContentError> {
    let rec = WalRecord { start: Lsn::new(800), end: Lsn::new(900), bytes: Bytes::new() };
    let header = RecordHeader { tot_len: 0, xid, prev: Lsn::INVALID, info, rmid, crc: 0 };
    let dec = DecodedRecord {
        header,
        blocks: SmallVec::new(),
        main_data: data.into(),
        origin: None,
        toplevel_xid: None,
    };
    state.observe(&dec, &rec)
}

fn state_with_next(epoch: u32, xid: u32) -> CheckpointState {
    let mut state = CheckpointState::default();
    state.checkpoint.next_xid = FullTransactionId::new(epoch, TransactionId(xid));
    state
}

#[test]
fn next_xid_follows_every_record_and_wraps_into_the_next_epoch() {
    let mut state = state_with_next(0, 1000);
    let mut next_after = |xid| {
        observe(&mut state, xid, rmgr::HEAP, rmgr::heap::INSERT, Vec::new()).unwrap();
        (state.checkpoint.next_xid.epoch(), state.checkpoint.next_xid.xid().0)
    };
    assert_eq!(next_after(1000), (0, 1001));
    assert_eq!(next_after(900), (0, 1001));
    // Zero is "none", not something two billion ahead.
    assert_eq!(next_after(0), (0, 1001));
    assert_eq!(next_after(2_000_000_000), (0, 2_000_000_001));
    assert_eq!(next_after(0), (0, 2_000_000_001));
    assert_eq!(next_after(4_000_000_000), (0, 4_000_000_001));
    assert_eq!(next_after(u32::MAX - 1), (0, u32::MAX));
    assert_eq!(next_after(u32::MAX), (1, 3));
    assert_eq!(next_after(u32::MAX), (1, 3));
    assert_eq!(next_after(5), (1, 6));
    assert_eq!(state.prev_record, Lsn::new(800));
}

#[test]
fn next_xid_comes_after_ids_that_have_no_record_of_their_own() {
    let mut state = state_with_next(0, 1000);
    let mut data = 0i64.to_le_bytes().to_vec();
    data.extend(words(&[0x2, 2, 1001, 1005]));
    let info = rmgr::xact::COMMIT | rmgr::xact::HAS_INFO;
    observe(&mut state, 1000, rmgr::XACT, info, data).unwrap();
    assert_eq!(state.checkpoint.next_xid.xid().0, 1006);

    let data = words(&[1, 0, 0, 1010, 1008, 1009, 1008]);
    observe(&mut state, 0, rmgr::STANDBY, rmgr::standby::RUNNING_XACTS, data).unwrap();
    assert_eq!(state.checkpoint.next_xid.xid().0, 1010);
    assert_eq!(state.checkpoint.oldest_active_xid.0, 1008);

    let data = words(&[1, 1, 2, 1020, 0, 1015, 0]);
    observe(&mut state, 0, rmgr::MULTIXACT, rmgr::multixact::CREATE_ID, data).unwrap();
    assert_eq!(state.checkpoint.next_xid.xid().0, 1021);
}

#[test]
fn multitransactions_wrap() {
    let mut state = CheckpointState::default();
    state.checkpoint.next_multi = MultiXactId(u32::MAX);
    state.checkpoint.next_multi_offset = u32::MAX - 1;
    let data = words(&[u32::MAX, u32::MAX - 1, 3, 10, 0, 11, 0, 12, 0]);
    observe(&mut state, 0, rmgr::MULTIXACT, rmgr::multixact::CREATE_ID, data).unwrap();
    assert_eq!(state.checkpoint.next_multi, MultiXactId(0));
    assert_eq!(state.checkpoint.next_multi_offset, 1);
    let data = words(&[7, 1, u32::MAX, 0, 0]);
    observe(&mut state, 0, rmgr::MULTIXACT, rmgr::multixact::TRUNCATE_ID, data).unwrap();
    // From 0, "not known", 2^32 - 1 counts as one back.
    assert_eq!(state.checkpoint.oldest_multi, MultiXactId(0));
}

#[test]
fn an_online_checkpoint_does_not_move_counters_back() {
    let mut state = state_with_next(1, 50);
    state.checkpoint.next_oid = Oid(24576);
    state.checkpoint.next_multi = MultiXactId(9);
    state.checkpoint.next_multi_offset = 30;
    state.checkpoint.oldest_xid = TransactionId(700);
    let seen = CheckPoint {
        next_xid: FullTransactionId::new(0, TransactionId(4_000_000_000)),
        next_oid: Oid(30000),
        next_multi: MultiXactId(8),
        next_multi_offset: 40,
        oldest_xid: TransactionId(800),
        oldest_xid_db: Oid(5),
        redo: Lsn::new(77),
        ..CheckPoint::default()
    };
    let mut online = state;
    let data = seen.encode().to_vec();
    observe(&mut online, 0, rmgr::XLOG, rmgr::xlog::CHECKPOINT_ONLINE, data.clone()).unwrap();
    let now = online.checkpoint;
    assert_eq!(now.next_xid, state.checkpoint.next_xid);
    assert_eq!(now.next_oid, Oid(24576));
    assert_eq!((now.next_multi, now.next_multi_offset), (MultiXactId(9), 40));
    assert_eq!((now.oldest_xid, now.oldest_xid_db), (TransactionId(800), Oid(5)));
    assert_eq!(now.redo, Lsn::new(77));

    observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::CHECKPOINT_SHUTDOWN, data).unwrap();
    assert_eq!(state.checkpoint, seen);
}

#[test]
fn small_facts() {
    let mut state = state_with_next(0, 1000);
    observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::NEXTOID, words(&[24576])).unwrap();
    assert_eq!(state.checkpoint.next_oid, Oid(24576));
    observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::FPW_CHANGE, vec![1]).unwrap();
    assert!(state.checkpoint.full_page_writes);
    observe(&mut state, 0, rmgr::CLOG, rmgr::clog::TRUNCATE, words(&[1, 800, 5])).unwrap();
    assert_eq!(state.checkpoint.oldest_xid, TransactionId(800));
    let data = words(&[0, 0, 2, 1]);
    observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::END_OF_RECOVERY, data).unwrap();
    assert_eq!((state.checkpoint.this_tli, state.checkpoint.prev_tli), (2, 1));
    assert!(observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::NEXTOID, vec![1]).is_err());
}

fn commit_ts_of(state: &CheckpointState) -> (u32, u32) {
    (state.checkpoint.oldest_commit_ts_xid.0, state.checkpoint.newest_commit_ts_xid.0)
}

fn tracking(on: bool) -> Vec<u8> {
    let parameters = ServerParameters { track_commit_timestamp: on, ..ServerParameters::default() };
    parameters.encode_record().to_vec()
}

#[test]
fn parameters_are_those_of_the_last_record() {
    let mut state = CheckpointState::default();
    let changed = ServerParameters { wal_level: 2, max_connections: 7, ..Default::default() };
    let data = changed.encode_record().to_vec();
    observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::PARAMETER_CHANGE, data.clone()).unwrap();
    assert_eq!(state.parameters, changed);
    let checkpoint = CheckPoint::default().encode().to_vec();
    observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::CHECKPOINT_SHUTDOWN, checkpoint).unwrap();
    assert_eq!(state.parameters, changed);
    let short = data[..20].to_vec();
    assert!(observe(&mut state, 0, rmgr::XLOG, rmgr::xlog::PARAMETER_CHANGE, short).is_err());
}

#[test]
fn commit_timestamps_begin_and_end_with_the_parameter() {
    let mut state = state_with_next(0, 1000);
    let commit = |state: &mut CheckpointState, xid| {
        let data = 0i64.to_le_bytes().to_vec();
        observe(state, xid, rmgr::XACT, rmgr::xact::COMMIT, data).unwrap();
    };
    let change = |state: &mut CheckpointState, on| {
        let info = rmgr::xlog::PARAMETER_CHANGE;
        observe(state, 0, rmgr::XLOG, info, tracking(on)).unwrap();
    };
    let truncate = |state: &mut CheckpointState, xid| {
        let info = rmgr::commit_ts::TRUNCATE;
        observe(state, 0, rmgr::COMMIT_TS, info, words(&[1, xid])).unwrap();
    };
    commit(&mut state, 1000);
    truncate(&mut state, 900);
    assert_eq!(commit_ts_of(&state), (0, 0));
    change(&mut state, true);
    assert_eq!(commit_ts_of(&state), (1001, 1001));
    commit(&mut state, 1001);
    commit(&mut state, 1003);
    commit(&mut state, 1002);
    change(&mut state, true);
    assert_eq!(commit_ts_of(&state), (1001, 1003));
    truncate(&mut state, 1002);
    truncate(&mut state, 900);
    assert_eq!(commit_ts_of(&state), (1002, 1003));

    // An abort has no timestamp; with subtransactions the last of these is the newest.
    let data = [&0i64.to_le_bytes()[..], &words(&[0x2, 2, 1005, 1006])].concat();
    let info = rmgr::xact::HAS_INFO;
    observe(&mut state, 1004, rmgr::XACT, rmgr::xact::ABORT | info, data.clone()).unwrap();
    assert_eq!(commit_ts_of(&state), (1002, 1003));
    observe(&mut state, 1004, rmgr::XACT, rmgr::xact::COMMIT | info, data).unwrap();
    assert_eq!(commit_ts_of(&state), (1002, 1006));

    // The checkpoint began before the last commits, but after a vacuum.
    let seen = CheckPoint {
        oldest_commit_ts_xid: TransactionId(1004),
        newest_commit_ts_xid: TransactionId(1005),
        ..state.checkpoint
    };
    let online = rmgr::xlog::CHECKPOINT_ONLINE;
    observe(&mut state, 0, rmgr::XLOG, online, seen.encode().to_vec()).unwrap();
    assert_eq!(commit_ts_of(&state), (1004, 1006));
    change(&mut state, false);
    assert_eq!(commit_ts_of(&state), (0, 0));
    // A server that crashed right after that says so only in its next checkpoint.
    let shutdown = rmgr::xlog::CHECKPOINT_SHUTDOWN;
    observe(&mut state, 0, rmgr::XLOG, shutdown, seen.encode().to_vec()).unwrap();
    assert_eq!(commit_ts_of(&state), (0, 0));
}

proptest! {
    #[test]
    fn hostile_records_never_panic_and_ids_never_go_back(
        records in prop::collection::vec(
            (any::<u32>(), 0u8..22, any::<u8>(), prop::collection::vec(any::<u8>(), 0..120)),
            1..20,
        )
    ) {
        let mut state = state_with_next(0, 1000);
        for (xid, rmid, info, data) in records {
            let before = state.checkpoint.next_xid;
            let is_shutdown = rmid == rmgr::XLOG && info & 0xF0 == rmgr::xlog::CHECKPOINT_SHUTDOWN;
            let _ = observe(&mut state, xid, rmid, info, data);
            prop_assert!(is_shutdown || state.checkpoint.next_xid >= before);
        }
    }
}
