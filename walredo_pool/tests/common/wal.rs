//! WAL for the tests: a server's, sorted by the pages it changes, or made by hand.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use postgres_formats::control_file::ControlFile;
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::wal::{DecodedRecord, RecordHeader, WalStreamDecoder, encode_record};
use postgres_formats::{
    BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelFileLocator, RelTag, SystemId,
};
use walredo_pool::{RedoRecord, RedoRequest};

/// Resource managers by PostgreSQL's numbers (`access/rmgrlist.h`).
pub const RM_XLOG: u8 = 0;
pub const RM_SMGR: u8 = 2;
pub const RM_HEAP2: u8 = 9;
pub const RM_HEAP: u8 = 10;
pub const RM_BTREE: u8 = 11;
pub const RM_HASH: u8 = 12;
pub const RM_GIN: u8 = 13;
pub const RM_GIST: u8 = 14;
pub const RM_SEQ: u8 = 15;
pub const RM_SPGIST: u8 = 16;
pub const RM_BRIN: u8 = 17;

/// A control file of no particular cluster.
pub fn control_file() -> Vec<u8> {
    ControlFile::for_new_cluster(SystemId(7)).encode()
}

/// One record that changes a page.
pub struct Version {
    pub record: RedoRecord,
    pub rmid: u8,
    pub replaces_page: bool,
}

/// The versions of every page, oldest first, as far as they still matter.
#[derive(Default)]
pub struct History {
    pub pages: BTreeMap<(RelTag, BlockNumber), Vec<Version>>,
    /// The resource manager that changes a relation, unless only full pages are logged of it.
    pub rmids: HashMap<RelFileLocator, u8>,
    pub records: usize,
    pub largest: usize,
}

/// Reads all WAL in `wal_dir` from `start` to `end`.
pub fn read_history(wal_dir: &Path, start: Lsn, end: Lsn) -> History {
    let seg_size = WalSegmentSize::DEFAULT;
    let mut history = History::default();
    let mut decoder = WalStreamDecoder::new(start, seg_size, None);
    let mut segment = start.segment(seg_size);
    while segment.start(seg_size) < end {
        let bytes = std::fs::read(wal_dir.join(segment.file_name(1, seg_size))).unwrap();
        let at = decoder.expected_lsn();
        let offset = at.segment_offset(seg_size) as usize;
        let last = end.distance_from(segment.start(seg_size)).unwrap().min(bytes.len() as u64);
        decoder.feed(at, &bytes[offset..last as usize]).unwrap();
        while let Some(record) = decoder.next_record().unwrap() {
            history.add(record.end, record.bytes);
        }
        segment.0 += 1;
    }
    history
}

impl History {
    fn add(&mut self, end: Lsn, bytes: Bytes) {
        let decoded = DecodedRecord::parse(&bytes).unwrap();
        let rmid = decoded.header.rmid;
        self.records += 1;
        self.largest = self.largest.max(bytes.len());
        if rmid == RM_SMGR && decoded.header.info & 0xF0 == 0x20 {
            self.truncate(&decoded.main_data);
        }
        for block in &decoded.blocks {
            if rmid != RM_XLOG && block.rel.fork == ForkNumber::Main {
                let family = if rmid == RM_HEAP2 { RM_HEAP } else { rmid };
                self.rmids.insert(block.rel.locator(), family);
            }
            let versions = self.pages.entry((block.rel, block.block)).or_default();
            let replaces_page = block.replaces_page();
            if replaces_page {
                versions.clear();
            }
            let record = RedoRecord { end, bytes: bytes.clone() };
            versions.push(Version { record, rmid, replaces_page });
        }
    }

    /// `XLOG_SMGR_TRUNCATE`: block number, tablespace, database, relation, flags (`u32` each).
    fn truncate(&mut self, data: &[u8]) {
        let field = |n: usize| u32::from_le_bytes(data[4 * n..4 * n + 4].try_into().unwrap());
        let rel = RelTag {
            spc: Oid(field(1)),
            db: Oid(field(2)),
            rel: Oid(field(3)),
            fork: ForkNumber::Main,
        };
        self.pages.retain(|(tag, block), _| *tag != rel || block.0 < field(0));
    }
}

/// A relation for records made by hand.
pub const TABLE: RelTag =
    RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Main };

const XLOG_FPI: u8 = 0xB0;
const XLOG_HEAP_INSERT: u8 = 0x00;
const XLOG_HEAP_INIT_PAGE: u8 = 0x80;
const XLOG_GIST_PAGE_UPDATE: u8 = 0x00;
/// Makes redo look for the visibility map, too.
const INSERT_ALL_VISIBLE_CLEARED: u8 = 0x01;
const BLOCK_HAS_DATA: u8 = 0x20;
const BLOCK_WILL_INIT: u8 = 0x40;
const BLOCK_HAS_IMAGE: u8 = 0x10;
const IMAGE_APPLY: u8 = 0x02;
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;

fn record(rmid: u8, info: u8, end: u64, body: &[u8]) -> RedoRecord {
    let header = RecordHeader { tot_len: 0, xid: 700, prev: Lsn::new(8), info, rmid, crc: 0 };
    RedoRecord { end: Lsn::new(end), bytes: encode_record(header, body).into() }
}

fn block_header(rel: RelTag, block: u32, flags: u8, data_len: u16, image: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, rel.fork as u8 | flags];
    bytes.extend(data_len.to_le_bytes());
    bytes.extend(image);
    for n in [rel.spc.0, rel.db.0, rel.rel.0, block] {
        bytes.extend(n.to_le_bytes());
    }
    bytes
}

/// A record of the resource manager that makes a page anew and says nothing of it.
pub fn init_record(rmid: u8, rel: RelTag, block: u32, end: u64) -> RedoRecord {
    record(rmid, 0, end, &block_header(rel, block, BLOCK_WILL_INIT, 0, &[]))
}

/// A record that inserts the tuple `offset` of `text` into a heap page.
pub fn heap_insert(rel: RelTag, block: u32, offset: u16, text: &str, end: u64) -> RedoRecord {
    let first = offset == 1;
    let mut tuple = vec![1, 0, 2, 0, 24, 0];
    tuple.extend(text.as_bytes());
    let flags = BLOCK_HAS_DATA | if first { BLOCK_WILL_INIT } else { 0 };
    let mut body = block_header(rel, block, flags, tuple.len() as u16, &[]);
    body.extend([ID_DATA_SHORT, 3]);
    body.extend(tuple);
    body.extend(offset.to_le_bytes());
    body.push(INSERT_ALL_VISIBLE_CLEARED);
    let info = XLOG_HEAP_INSERT | if first { XLOG_HEAP_INIT_PAGE } else { 0 };
    record(RM_HEAP, info, end, &body)
}

/// A record with the full image of a page, and `ballast` bytes of data that means nothing.
pub fn full_page(
    rel: RelTag,
    block: u32,
    page: &PageImage,
    ballast: usize,
    end: u64,
) -> RedoRecord {
    let [low, high] = (BLCKSZ as u16).to_le_bytes();
    let image = [low, high, 0, 0, IMAGE_APPLY];
    let mut body = block_header(rel, block, BLOCK_HAS_IMAGE, 0, &image);
    body.push(ID_DATA_LONG);
    body.extend((ballast as u32).to_le_bytes());
    body.extend(&page[..]);
    body.resize(body.len() + ballast, 7);
    record(RM_XLOG, XLOG_FPI, end, &body)
}

/// A record that completes the split of the GiST page `left`, in the parent `left + 1`, and brings an
/// image of the former.
pub fn gist_downlink(rel: RelTag, left: u32, page: &PageImage, end: u64) -> RedoRecord {
    let [low, high] = (BLCKSZ as u16).to_le_bytes();
    let image = [low, high, 0, 0, IMAGE_APPLY];
    let mut body = block_header(rel, left + 1, 0, 0, &[]);
    let mut child = block_header(rel, left, BLOCK_HAS_IMAGE, 0, &image);
    child[0] = 1;
    body.extend(child);
    // `gistxlogPageUpdate`: how many entries of the parent go, and how many come.
    body.extend([ID_DATA_SHORT, 4]);
    body.extend(&page[..]);
    body.extend([0; 4]);
    record(RM_GIST, XLOG_GIST_PAGE_UPDATE, end, &body)
}

/// A request that makes a heap page of `tuples` tuples.
pub fn heap_request(block: u32, tuples: u16) -> RedoRequest {
    let records = (1..=tuples)
        .map(|n| {
            heap_insert(
                TABLE,
                block,
                n,
                &format!("block {block} tuple {n}"),
                1000 + 8 * u64::from(n),
            )
        })
        .collect();
    RedoRequest { rel: TABLE, block: BlockNumber(block), base: None, records }
}

/// Whether the page is what `heap_request` asks for.
pub fn is_heap_page(page: &PageImage, block: u32, tuples: u16) -> bool {
    let count = (u16::from_le_bytes([page[12], page[13]]) - 24) / 4;
    let holds = |n: u16| {
        let text = format!("block {block} tuple {n}");
        page.windows(text.len()).any(|window| window == text.as_bytes())
    };
    count == tuples
        && page.lsn() == Lsn::new(1000 + 8 * u64::from(tuples))
        && holds(1)
        && holds(tuples)
}

/// A request that PostgreSQL panics over: the tuple's place on the page cannot be.
pub fn deadly_request(block: u32) -> RedoRequest {
    let mut request = heap_request(block, 2);
    request.records.push(heap_insert(TABLE, block, 77, "nowhere", 2000));
    request
}
