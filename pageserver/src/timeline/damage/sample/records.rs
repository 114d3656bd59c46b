//! Records of every kind that tests need, as a server writes them (`access/xlogrecord.h`). Each gives where the
//! next one begins.

use postgres_formats::rel::RelFileLocator;
use postgres_formats::wal::rmgr;
use postgres_formats::{BLCKSZ, Lsn, PageImage, RelTag};

use super::{Sample, XLOG_FPI, header, origin};

/// Of a record's data: that no more than 255 bytes of it follow, as many as the next byte says.
const SHORT_DATA: u8 = 255;

impl Sample {
    /// A record with this behind its header.
    pub fn add(&mut self, rmid: u8, info: u8, body: &[u8]) -> Lsn {
        let (_, end) = self.writer.append(header(rmid, info), body);
        let end = end.normalized(origin(1, 7).seg_size);
        self.ends.push(end);
        end
    }

    /// The server goes on in the next segment.
    pub fn write_switch(&mut self) -> Lsn {
        self.writer.append(header(rmgr::XLOG, rmgr::xlog::SWITCH), &[]);
        self.writer.fill_segment();
        let end = self.writer.position().normalized(origin(1, 7).seg_size);
        self.ends.push(end);
        end
    }

    /// A record with data and no blocks.
    pub fn add_data(&mut self, rmid: u8, info: u8, data: &[u8]) -> Lsn {
        self.add(rmid, info, &[&[SHORT_DATA, data.len() as u8], data].concat())
    }

    /// A block becomes this page.
    pub fn write_block(&mut self, rel: RelTag, block: u32, page: &PageImage) -> Lsn {
        const HAS_IMAGE: u8 = 0x10;
        const APPLIES: u8 = 2;
        let mut body = vec![0, rel.fork as u8 | HAS_IMAGE, 0, 0];
        body.extend((BLCKSZ as u16).to_le_bytes());
        body.extend([0, 0, APPLIES]);
        body.extend(words(&[rel.spc.0, rel.db.0, rel.rel.0, block]));
        body.extend(&page[..]);
        self.add(rmgr::XLOG, XLOG_FPI, &body)
    }

    /// A table and its maps are cut to so many pages.
    pub fn truncate(&mut self, rel: RelFileLocator, pages: u32) -> Lsn {
        const TRUNCATE_ALL: u32 = 7;
        let data = words(&[pages, rel.spc.0, rel.db.0, rel.rel.0, TRUNCATE_ALL]);
        self.add_data(rmgr::SMGR, rmgr::smgr::TRUNCATE, &data)
    }

    /// A relation is dropped by a transaction that commits.
    pub fn drop_relation(&mut self, rel: RelFileLocator) -> Lsn {
        const HAS_INFO: u8 = 0x80;
        const DROPS_RELATIONS: u32 = 4;
        let mut data = 1i64.to_le_bytes().to_vec();
        data.extend(words(&[DROPS_RELATIONS, 1, rel.spc.0, rel.db.0, rel.rel.0]));
        self.add_data(rmgr::XACT, rmgr::xact::COMMIT | HAS_INFO, &data)
    }
}

/// Numbers as they stand in records.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
