//! WAL for the tests: a server's, sorted by the pages it changes, or made by hand.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use postgres_formats::control_file::ControlFile;
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::wal::{DecodedRecord, WalStreamDecoder};
use postgres_formats::{BlockNumber, ForkNumber, Lsn, Oid, RelFileLocator, RelTag, SystemId};
use walredo_pool::RedoRecord;

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
