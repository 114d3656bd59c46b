//! A record without the page images in it: what is left for a page that is made by redo.

use super::{
    BKPBLOCK_HAS_DATA, BKPBLOCK_SAME_REL, BKPBLOCK_WILL_INIT, DecodedRecord, ID_DATA_LONG,
    ID_DATA_SHORT, ID_ORIGIN, ID_TOPLEVEL_XID,
};
use crate::wal::writer::encode_record;

impl DecodedRecord {
    /// The record as it would have been written without any page image: the same otherwise, with its
    /// length and checksum. Whoever has it cannot make those pages by it that were replaced by an
    /// image; for all others redo does the same.
    #[must_use]
    pub fn without_images(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut before = None;
        for block in &self.blocks {
            let locator = block.rel.locator();
            let is_same = before == Some(locator);
            let mut flags = block.rel.fork as u8;
            for (flag, is_set) in [
                (BKPBLOCK_HAS_DATA, !block.data.is_empty()),
                (BKPBLOCK_WILL_INIT, block.will_init),
                (BKPBLOCK_SAME_REL, is_same),
            ] {
                flags |= if is_set { flag } else { 0 };
            }
            body.extend([block.id, flags]);
            // It came out of a field of two bytes.
            body.extend((block.data.len() as u16).to_le_bytes());
            if !is_same {
                for oid in [locator.spc, locator.db, locator.rel] {
                    body.extend(oid.0.to_le_bytes());
                }
            }
            body.extend(block.block.0.to_le_bytes());
            before = Some(locator);
        }
        if let Some(origin) = self.origin {
            body.push(ID_ORIGIN);
            body.extend(origin.to_le_bytes());
        }
        if let Some(xid) = self.toplevel_xid {
            body.push(ID_TOPLEVEL_XID);
            body.extend(xid.to_le_bytes());
        }
        match (u8::try_from(self.main_data.len()), u32::try_from(self.main_data.len())) {
            (Ok(0), _) => {}
            (Ok(len), _) => body.extend([ID_DATA_SHORT, len]),
            (_, len) => {
                body.push(ID_DATA_LONG);
                // A record is shorter than 1 GiB.
                body.extend(len.unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        for block in &self.blocks {
            body.extend_from_slice(&block.data);
        }
        body.extend_from_slice(&self.main_data);
        encode_record(self.header, &body)
    }
}
