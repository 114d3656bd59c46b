//! Changes and native pages of each kind of record, from hand-made records.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use postgres_formats::wal::{BlockImage, BlockRef, DecodedRecord, ImageCompression};
use postgres_formats::wal::{RecordHeader, WalRecord, rmgr};
use postgres_formats::{
    BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelFileLocator, RelTag, SlruKind,
    TransactionId,
};
use proptest::prelude::*;
use walredo_pool::CustomManagers;

use super::*;
use crate::key::PageKey;

const END: Lsn = Lsn::new(0x2000);
const REL: RelFileLocator = RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(16384) };
/// Pages of a table in one page of its visibility map.
const VM_SPAN: u32 = 32672;

struct Record(WalRecord, DecodedRecord);

impl Record {
    fn new(rmid: u8, info: u8, data: Vec<u8>) -> Record {
        let start = Lsn::new(0x1000);
        let header = RecordHeader { tot_len: 0, xid: 100, prev: Lsn::INVALID, info, rmid, crc: 0 };
        let dec = DecodedRecord {
            header,
            blocks: Default::default(),
            main_data: data.into(),
            origin: None,
            toplevel_xid: None,
        };
        Record(WalRecord { start, end: END, bytes: Bytes::new() }, dec)
    }

    fn xid(mut self, xid: u32) -> Record {
        self.1.header.xid = xid;
        self
    }

    fn block(mut self, id: u8, fork: ForkNumber, block: u32) -> Record {
        self.1.blocks.push(BlockRef {
            id,
            rel: REL.fork(fork),
            block: BlockNumber(block),
            will_init: false,
            image: None,
            data: Bytes::new(),
        });
        self
    }

    fn heap_block(self, id: u8, block: u32) -> Record {
        self.block(id, ForkNumber::Main, block)
    }

    fn image(mut self, apply: bool) -> Record {
        self.1.blocks.last_mut().unwrap().image = Some(BlockImage {
            apply,
            hole_offset: 0,
            hole_length: 0,
            compression: ImageCompression::None,
            data: vec![0; BLCKSZ].into(),
        });
        self
    }

    fn changes(&self) -> Changes {
        changes_of(&self.0, &self.1, CustomManagers::default()).unwrap()
    }

    fn list(&self) -> Vec<Change> {
        self.changes().list.into_vec()
    }

    fn apply(&self, key: PageKey, page: &mut PageImage) {
        native::apply(&self.0, &self.1, &key, page).unwrap();
        let once = page.clone();
        native::apply(&self.0, &self.1, &key, page).unwrap();
        assert!(*page == once, "applying it twice changes the page again");
    }

    fn refuses(&self, key: PageKey) -> bool {
        let result = native::apply(&self.0, &self.1, &key, &mut PageImage::zeroed());
        matches!(result, Err(IngestError::NotNative { .. }))
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn flags_at(offset: usize, flags: u8) -> Vec<u8> {
    let mut data = vec![0; 20];
    data[offset] = flags;
    data
}

fn vm(block: u32) -> PageKey {
    PageKey::Rel { rel: REL.fork(ForkNumber::Vm), block: BlockNumber(block) }
}

fn slru(kind: SlruKind, page: u32) -> PageKey {
    PageKey::Slru { kind, page }
}

fn native(key: PageKey) -> Change {
    Change::NativePage { key, will_init: false, must_exist: key_is_map(key) }
}

fn key_is_map(key: PageKey) -> bool {
    matches!(key, PageKey::Rel { .. })
}

fn page_change(rel: RelTag, block: u32, will_init: bool) -> Change {
    Change::Page { rel, block: BlockNumber(block), will_init }
}

/// A map page with every bit set and an old LSN.
fn full_map() -> PageImage {
    let mut page = PageImage::zeroed();
    page.fill(0xFF);
    page.set_lsn(Lsn::new(1));
    page
}

fn bits_of(page: &PageImage, heap_block: u32) -> u8 {
    let in_page = heap_block % VM_SPAN;
    page[24 + in_page as usize / 4] >> (in_page % 4 * 2) & 0b11
}

#[test]
fn block_references_become_page_versions() {
    let record = Record::new(rmgr::BTREE, 0x30, Vec::new())
        .heap_block(0, 3)
        .image(true)
        .heap_block(1, 4)
        .image(false)
        .heap_block(2, 5);
    let main = REL.fork(ForkNumber::Main);
    assert_eq!(
        record.list(),
        [page_change(main, 3, true), page_change(main, 4, false), page_change(main, 5, false)]
    );
    let fpi = Record::new(rmgr::XLOG, rmgr::xlog::FPI, Vec::new()).heap_block(0, 3).image(true);
    assert_eq!(fpi.list(), [page_change(main, 3, true)]);
    let hint = rmgr::xlog::FPI_FOR_HINT;
    let with_image = Record::new(rmgr::XLOG, hint, Vec::new()).heap_block(0, 3).image(true);
    assert_eq!(with_image.list(), [page_change(main, 3, true)]);
    assert_eq!(Record::new(rmgr::XLOG, hint, Vec::new()).heap_block(0, 3).list(), []);
}

#[test]
fn delete_clears_both_bits_of_its_page_only() {
    let record =
        Record::new(rmgr::HEAP, rmgr::heap::DELETE, flags_at(7, 0x01)).heap_block(0, VM_SPAN + 5);
    let main = REL.fork(ForkNumber::Main);
    assert_eq!(record.list(), [page_change(main, VM_SPAN + 5, false), native(vm(1))]);
    let mut page = full_map();
    record.apply(vm(1), &mut page);
    assert_eq!([4, 5, 6].map(|block| bits_of(&page, block)), [0b11, 0, 0b11]);
    assert_eq!(page.lsn(), END);
    assert!(record.refuses(vm(0)));
    assert!(record.refuses(PageKey::Rel { rel: main, block: BlockNumber(VM_SPAN + 5) }));
}

#[test]
fn locks_clear_the_frozen_bit_only() {
    for (rmid, info) in [(rmgr::HEAP, rmgr::heap::LOCK), (rmgr::HEAP2, rmgr::heap2::LOCK_UPDATED)] {
        let record = Record::new(rmid, info, flags_at(7, 0x01)).heap_block(0, 7);
        let mut page = full_map();
        record.apply(vm(0), &mut page);
        assert_eq!([6, 7, 8].map(|block| bits_of(&page, block)), [0b11, 0b01, 0b11]);
    }
}

#[test]
fn update_clears_old_and_new_page() {
    let update = |flags| Record::new(rmgr::HEAP, rmgr::heap::UPDATE, flags_at(7, flags));
    // New page 9, old page 2, both on the same page of the map: one version clears all.
    let record = update(0x03).heap_block(0, 9).heap_block(1, 2);
    assert_eq!(record.list()[2..], [native(vm(0))]);
    let mut page = full_map();
    record.apply(vm(0), &mut page);
    assert_eq!([2, 3, 9].map(|block| bits_of(&page, block)), [0, 0b11, 0]);

    // On different pages of the map: two versions, each with its own bits only.
    let record = update(0x03).heap_block(0, VM_SPAN).heap_block(1, 0);
    assert_eq!(record.list()[2..], [native(vm(0)), native(vm(1))]);
    let mut page = full_map();
    record.apply(vm(1), &mut page);
    assert_eq!([0, 1].map(|block| bits_of(&page, block)), [0, 0b11]);

    // Only the old page was all-visible.
    let record = update(0x01).heap_block(0, VM_SPAN).heap_block(1, 0);
    assert_eq!(record.list()[2..], [native(vm(0))]);
    // Within one page, the old page is the only one.
    let record =
        Record::new(rmgr::HEAP, rmgr::heap::HOT_UPDATE, flags_at(7, 0x01)).heap_block(0, 4);
    assert_eq!(record.list()[1..], [native(vm(0))]);
}

#[test]
fn inserts_clear_and_a_new_map_page_stays_new() {
    let inserts = [
        (rmgr::HEAP, rmgr::heap::INSERT, 2),
        (rmgr::HEAP2, rmgr::heap2::MULTI_INSERT | rmgr::heap::INIT_PAGE, 0),
    ];
    for (rmid, info, offset) in inserts {
        let record = Record::new(rmid, info, flags_at(offset, 0x01)).heap_block(0, 1);
        assert_eq!(record.list()[1..], [native(vm(0))]);
        let mut page = PageImage::zeroed();
        record.apply(vm(0), &mut page);
        assert!(page == PageImage::zeroed(), "a page never initialised got an LSN");
    }
    let record = Record::new(rmgr::HEAP, rmgr::heap::INSERT, flags_at(2, 0x08)).heap_block(0, 1);
    assert_eq!(record.list().len(), 1);
    let without_block = Record::new(rmgr::HEAP, rmgr::heap::INSERT, flags_at(2, 0x01));
    assert!(matches!(
        changes_of(&without_block.0, &without_block.1, CustomManagers::default()),
        Err(IngestError::MissingBlock { id: 0, .. })
    ));
}

#[test]
fn setting_visibility_bits_is_left_to_postgresql() {
    let record = Record::new(rmgr::HEAP2, rmgr::heap2::VISIBLE, words(&[0, 3]))
        .block(0, ForkNumber::Vm, 0)
        .heap_block(1, 7);
    let main = REL.fork(ForkNumber::Main);
    let map = REL.fork(ForkNumber::Vm);
    assert_eq!(record.list(), [page_change(map, 0, false), page_change(main, 7, false)]);
    assert!(record.refuses(vm(0)));
}

fn xact_end(info: u8, xinfo: u32, parts: &[u32]) -> Record {
    let mut data = 77i64.to_le_bytes().to_vec();
    data.extend(words(&[xinfo]));
    data.extend(words(parts));
    Record::new(rmgr::XACT, info | rmgr::xact::HAS_INFO, data)
}

fn status_of(page: &PageImage, xid: u32) -> u8 {
    let index = xid % 32768;
    page[index as usize / 4] >> (index % 4 * 2) & 0b11
}

#[test]
fn commit_marks_subtransactions_each_on_its_own_page() {
    // Two before the page boundary, two after.
    let record = xact_end(rmgr::xact::COMMIT, 0x2, &[3, 32767, 32768, 32770]).xid(32766);
    let [first, second] = [0, 1].map(|page| slru(SlruKind::Clog, page));
    let end = Change::XactEnd { xid: TransactionId(32766), commit: true, time: 77 };
    let times = Change::CommitTimestamps { page: 40 };
    assert_eq!(record.list(), [native(first), native(second), times, end]);
    let mut page = PageImage::zeroed();
    record.apply(first, &mut page);
    assert_eq!([32765, 32766, 32767].map(|xid| status_of(&page, xid)), [0, 1, 1]);
    assert_eq!(status_of(&page, 0), 0);
    let mut page = PageImage::zeroed();
    record.apply(second, &mut page);
    assert_eq!([32768, 32769, 32770].map(|xid| status_of(&page, xid)), [1, 0, 1]);
    assert_eq!(status_of(&page, 32766), 0);
    assert!(record.refuses(slru(SlruKind::Clog, 2)));
    assert!(record.refuses(slru(SlruKind::MultixactOffsets, 0)));
}

#[test]
fn commit_timestamps_have_time_and_origin() {
    let entry = |page: &PageImage, xid: u32| {
        let at = (xid % 819 * 10) as usize;
        let time = i64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        (time, u16::from_le_bytes([page[at + 8], page[at + 9]]))
    };
    // The last transaction of a page and the first of the next one.
    let record = xact_end(rmgr::xact::COMMIT, 0x2, &[2, 818, 819]).xid(817);
    let [first, second] = [0, 1].map(|page| slru(SlruKind::CommitTs, page));
    let mut page = PageImage::zeroed();
    page[8190] = 7;
    record.apply(first, &mut page);
    assert_eq!([816, 817, 818].map(|xid| entry(&page, xid)), [(0, 0), (77, 0), (77, 0)]);
    assert_eq!(page[8190], 7);
    let mut page = PageImage::zeroed();
    record.apply(second, &mut page);
    assert_eq!([819, 820].map(|xid| entry(&page, xid)), [(77, 0), (0, 0)]);
    assert!(record.refuses(slru(SlruKind::CommitTs, 2)));

    // The time is that of the commit at the origin: LSN, then time, in two words each.
    let mut record = xact_end(rmgr::xact::COMMIT, 0x20, &[9, 0, 55, 0]);
    record.1.origin = Some(3);
    let mut page = PageImage::zeroed();
    record.apply(first, &mut page);
    assert_eq!(entry(&page, 100), (55, 3));
    assert!(xact_end(rmgr::xact::ABORT, 0, &[]).refuses(first));

    // From the beginning of tracking on, the page of the next transaction is there.
    let record = Record::new(rmgr::XLOG, rmgr::xlog::PARAMETER_CHANGE, vec![1; 28]);
    let [Change::Parameters(parameters)] = record.list()[..] else { panic!("no parameters") };
    assert!(parameters.track_commit_timestamp && parameters.wal_log_hints);
    record.apply(second, &mut page);
    assert!(page[..] == PageImage::zeroed()[..]);
}

#[test]
fn abort_drops_what_the_transaction_created() {
    let record = xact_end(rmgr::xact::ABORT, 0x4, &[1, 1663, 5, 16384]);
    let list = record.list();
    assert_eq!(list[1], Change::RelDrop { rel: REL });
    let mut page = PageImage::zeroed();
    page[25] = 0xFF;
    record.apply(slru(SlruKind::Clog, 0), &mut page);
    assert_eq!([100, 101].map(|xid| status_of(&page, xid)), [2, 3]);
}

#[test]
fn two_phases() {
    let mut data = words(&[0x57F9_4534, 0, 500, 5]);
    data.resize(72, 0);
    let record = Record::new(rmgr::XACT, rmgr::xact::PREPARE, data.clone());
    let xid = TransactionId(500);
    assert_eq!(record.list(), [Change::TwoPhasePrepare { xid, data: data.into() }]);

    // The record's own header names no transaction.
    let record = xact_end(rmgr::xact::COMMIT_PREPARED, 0x10, &[500]).xid(0);
    assert_eq!(
        record.list(),
        [
            native(slru(SlruKind::Clog, 0)),
            Change::CommitTimestamps { page: 0 },
            Change::TwoPhaseFinish { xid },
            Change::XactEnd { xid, commit: true, time: 77 },
        ]
    );
    let mut page = PageImage::zeroed();
    record.apply(slru(SlruKind::Clog, 0), &mut page);
    assert_eq!(status_of(&page, 500), 1);

    let nobody = xact_end(rmgr::xact::COMMIT, 0, &[]).xid(0);
    assert!(changes_of(&nobody.0, &nobody.1, CustomManagers::default()).is_err());
}

#[test]
fn pages_begin_as_zeros() {
    let kinds = [
        (SlruKind::Clog, rmgr::CLOG, rmgr::clog::ZEROPAGE),
        (SlruKind::MultixactOffsets, rmgr::MULTIXACT, rmgr::multixact::ZERO_OFF_PAGE),
        (SlruKind::MultixactMembers, rmgr::MULTIXACT, rmgr::multixact::ZERO_MEM_PAGE),
        (SlruKind::CommitTs, rmgr::COMMIT_TS, rmgr::commit_ts::ZEROPAGE),
    ];
    for (kind, rmid, info) in kinds {
        let record = Record::new(rmid, info, words(&[33]));
        let key = slru(kind, 33);
        assert_eq!(record.list(), [Change::NativePage { key, will_init: true, must_exist: false }]);
        let mut page = full_map();
        record.apply(key, &mut page);
        assert!(page == PageImage::zeroed());
        assert!(record.refuses(slru(kind, 32)));
    }
}

#[test]
fn multitransaction_across_pages() {
    // The last one on a page of offsets, members around a page boundary.
    let members = [[100, 0], [101, 5], [102, 1]];
    let mut data = words(&[2047, 1635, 3]);
    data.extend(words(members.as_flattened()));
    let record = Record::new(rmgr::MULTIXACT, rmgr::multixact::CREATE_ID, data);
    let offsets = |page| slru(SlruKind::MultixactOffsets, page);
    let member_page = |page| slru(SlruKind::MultixactMembers, page);
    assert_eq!(
        record.list(),
        [
            native(offsets(0)),
            Change::NativePage { key: offsets(1), will_init: false, must_exist: true },
            native(member_page(0)),
            native(member_page(1)),
        ]
    );
    let mut page = PageImage::zeroed();
    record.apply(offsets(0), &mut page);
    assert_eq!(page[8188..], 1635u32.to_le_bytes());
    let mut page = PageImage::zeroed();
    record.apply(offsets(1), &mut page);
    assert_eq!(page[..8], words(&[1638, 0]));
    let mut page = PageImage::zeroed();
    record.apply(member_page(0), &mut page);
    // Last place of the last group of 20 bytes.
    assert_eq!(page[408 * 20 + 16..408 * 20 + 20], 100u32.to_le_bytes());
    let mut page = PageImage::zeroed();
    record.apply(member_page(1), &mut page);
    assert_eq!(page[..16], words(&[0x0105, 101, 102, 0]));
}

#[test]
fn members_wrap_around_and_none_begins_at_zero() {
    let mut data = words(&[u32::MAX, u32::MAX - 1, 2]);
    data.extend(words(&[100, 0, 101, 0]));
    let record = Record::new(rmgr::MULTIXACT, rmgr::multixact::CREATE_ID, data);
    // The one after the last is number 1, on page 0; its members begin at 1, not at 0.
    let mut page = PageImage::zeroed();
    record.apply(slru(SlruKind::MultixactOffsets, 0), &mut page);
    assert_eq!(page[..8], words(&[0, 1]));

    let mut data = words(&[5, u32::MAX, 2]);
    data.extend(words(&[100, 0, 101, 0]));
    let record = Record::new(rmgr::MULTIXACT, rmgr::multixact::CREATE_ID, data);
    let last = SlruKind::MultixactMembers.max_page();
    assert_eq!(record.list()[1..], [last, 0].map(|p| native(slru(SlruKind::MultixactMembers, p))));
}

#[test]
fn old_segments_go() {
    let record = Record::new(rmgr::CLOG, rmgr::clog::TRUNCATE, words(&[70, 9, 5]));
    let [Change::SlruTruncate(truncation)] = record.list()[..] else { panic!("not a truncation") };
    assert_eq!(truncation.kind, SlruKind::Clog);
    let removed = |newest| (0..5).filter(|&s| truncation.removes(s, newest)).collect::<Vec<_>>();
    assert_eq!(removed(Some(80)), [0, 1]);
    // Apparent wraparound: the newest page is older than the cutoff.
    assert_eq!(removed(Some(60)), Vec::<u32>::new());
    // Segments from before the wraparound are old, too.
    assert!(truncation.removes(0xFFF, Some(80)));
    assert!(!truncation.removes(u32::MAX, Some(80)));

    let data = words(&[5, 1, 2048 * 64, 1636 * 32 * 0x14077, 1636 * 32 * 2]);
    let record = Record::new(rmgr::MULTIXACT, rmgr::multixact::TRUNCATE_ID, data);
    let [Change::SlruTruncate(members), Change::SlruTruncate(offsets)] = record.list()[..] else {
        panic!("not two truncations")
    };
    let removed = |t: SlruTruncation, among: &[u32]| {
        among.iter().copied().filter(|&s| t.removes(s, None)).collect::<Vec<_>>()
    };
    assert_eq!(removed(members, &[0, 1, 2, 0x14076, 0x14077, 0x14078]), [0, 1, 0x14077, 0x14078]);
    // The oldest one left is the first of segment 2; the step back keeps segment 1.
    assert_eq!(removed(offsets, &[0, 1, 2]), [0]);
}

#[test]
fn databases() {
    let record =
        Record::new(rmgr::DBASE, rmgr::dbase::CREATE_FILE_COPY, words(&[9, 1663, 5, 1664]));
    let (spc, db) = (Oid(1663), Oid(9));
    assert_eq!(
        record.list(),
        [Change::DbCreate { spc, db }, Change::DbCopy { from: (Oid(1664), Oid(5)), to: (spc, db) }]
    );
    let record = Record::new(rmgr::DBASE, rmgr::dbase::CREATE_WAL_LOG, words(&[9, 1663]));
    assert_eq!(record.list(), [Change::DbCreate { spc, db }]);
    let record = Record::new(rmgr::DBASE, rmgr::dbase::DROP, words(&[9, 2, 1663, 77]));
    assert_eq!(record.list(), [Change::DbDrop { spc, db }, Change::DbDrop { spc: Oid(77), db }]);
    let mut data = words(&[9, 1663, 512]);
    data.extend([7; 512]);
    let record = Record::new(rmgr::RELMAP, rmgr::relmap::UPDATE, data);
    assert_eq!(record.list(), [Change::RelMap { spc, db, map: vec![7; 512].into() }]);
}

#[test]
fn truncation_cuts_the_maps_and_what_is_left_of_their_last_page() {
    let truncate = |nblocks, flags| {
        let data = words(&[nblocks, 1663, 5, 16384, flags]);
        Record::new(rmgr::SMGR, rmgr::smgr::TRUNCATE, data)
    };
    let cut =
        |fork, nblocks| Change::RelTruncate { rel: REL.fork(fork), nblocks: BlockNumber(nblocks) };
    let fsm = |block| PageKey::Rel { rel: REL.fork(ForkNumber::Fsm), block: BlockNumber(block) };

    let record = truncate(VM_SPAN + 6, 0x7);
    // The free space map's bottom pages begin at 2; 32678 / 4069 = 8, remainder 126.
    assert_eq!(
        record.list(),
        [
            cut(ForkNumber::Main, VM_SPAN + 6),
            native(fsm(10)),
            cut(ForkNumber::Fsm, 11),
            native(vm(1)),
            cut(ForkNumber::Vm, 2),
        ]
    );
    let mut page = full_map();
    record.apply(vm(1), &mut page);
    assert_eq!([5, 6, 7, 8, VM_SPAN - 1].map(|block| bits_of(&page, block)), [0b11, 0, 0, 0, 0]);
    assert_eq!(page.lsn(), END);
    let mut page = full_map();
    record.apply(fsm(10), &mut page);
    let leaves = 24 + 4 + 4095;
    assert_eq!(page[leaves + 125..leaves + 127], [0xFF, 0]);
    assert_eq!(page[28], 0xFF);
    for other in [vm(0), vm(2), fsm(9), fsm(0)] {
        assert!(record.refuses(other), "{other}");
    }

    assert_eq!(
        truncate(0, 0x7).list(),
        [cut(ForkNumber::Main, 0), cut(ForkNumber::Fsm, 2), cut(ForkNumber::Vm, 0)]
    );
    assert_eq!(truncate(VM_SPAN, 0x2).list(), [cut(ForkNumber::Vm, 1)]);
    assert!(truncate(6, 0x1).refuses(vm(0)));

    let create = Record::new(rmgr::SMGR, rmgr::smgr::CREATE, words(&[1663, 5, 16384, 3]));
    assert_eq!(create.list(), [Change::RelCreate { rel: REL.fork(ForkNumber::Init) }]);
}

#[test]
fn tablespaces() {
    let record =
        |info, data: &[u8]| Record::new(rmgr::TBLSPC, info, data.to_vec()).changes().list.to_vec();
    let create = |location: &'static [u8]| {
        let location = Bytes::from_static(location);
        vec![Change::TablespaceCreate { spc: Oid(9), location }]
    };
    assert_eq!(record(rmgr::tblspc::CREATE, b"\x09\0\0\0/a b\0"), create(b"/a b"));
    assert_eq!(record(rmgr::tblspc::CREATE, b"\x09\0\0\0\0"), create(b""));
    let drop = Change::TablespaceDrop { spc: Oid(9) };
    assert_eq!(record(rmgr::tblspc::DROP, b"\x09\0\0\0"), [drop]);
}

#[test]
fn what_is_not_understood_is_refused() {
    let refused = |rmid, info| {
        let record = Record::new(rmid, info, Vec::new()).heap_block(0, 1);
        changes_of(&record.0, &record.1, CustomManagers::default()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(rmgr::CLOG, 0x50),
        "CLOG record 0x50 at 0/1000 is of a kind that is not known"
    );
    assert_eq!(
        refused(200, 0x10),
        "resource manager 200 record 0x10 at 0/1000 is an extension's, and no library that the redo \
         processes load has registered custom resource manager 200: name its library in \
         zenith.toml, [walredo] libraries = [\"NAME\"], and start the page server again"
    );
    let record = Record::new(200, 0x10, Vec::new()).heap_block(0, 1);
    let custom = CustomManagers::from_bits(1 << (200 - 128));
    let page =
        Change::Page { rel: REL.fork(ForkNumber::Main), block: BlockNumber(1), will_init: false };
    assert_eq!(changes_of(&record.0, &record.1, custom).unwrap().list.to_vec(), [page]);
    let custom = CustomManagers::from_bits(1 << (201 - 128));
    assert!(changes_of(&record.0, &record.1, custom).is_err());
    for (rmid, info) in [
        (100, 0x10),
        (rmgr::COMMIT_TS, 0x20),
        (rmgr::REPLORIGIN, 0x20),
        (rmgr::XLOG, 0xC0),
        (rmgr::XACT, 0x70),
        (rmgr::BRIN, 0x60),
        (rmgr::GIST, 0x40),
        (rmgr::RELMAP, 0x10),
        (rmgr::DBASE, 0x30),
        (rmgr::SMGR, 0x30),
        (rmgr::MULTIXACT, 0x40),
        (rmgr::TBLSPC, 0x20),
    ] {
        let text = refused(rmid, info);
        assert!(text.ends_with(" is of a kind that is not known"), "{text}");
    }
}

proptest! {
    #[test]
    fn hostile_records_never_panic_and_changes_agree_with_pages(
        (rmid, info, xid) in (prop_oneof![0u8..24, any::<u8>()], any::<u8>(), any::<u32>()),
        head in prop::collection::vec(prop_oneof![0u32..10, any::<u32>()], 0..12),
        tail in prop::collection::vec(any::<u8>(), 0..520),
        blocks in prop::collection::vec(any::<u32>(), 0..3),
    ) {
        let mut data = words(&head);
        data.extend(tail);
        let mut record = Record::new(rmid, info, data).xid(xid);
        for (id, block) in blocks.into_iter().enumerate() {
            record = record.heap_block(id as u8, block);
        }
        for key in [vm(0), slru(SlruKind::Clog, 0), slru(SlruKind::MultixactMembers, 0)] {
            let _ = native::apply(&record.0, &record.1, &key, &mut full_map());
        }
        // Whatever is announced can be made.
        if let Ok(changes) = changes_of(&record.0, &record.1, CustomManagers::default()) {
            for change in &changes.list {
                let key = match *change {
                    Change::NativePage { key, .. } => key,
                    Change::CommitTimestamps { page } => slru(SlruKind::CommitTs, page),
                    _ => continue,
                };
                record.apply(key, &mut full_map());
            }
        }
    }
}
