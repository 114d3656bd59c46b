//! Reads all of a file, and checks all that FORMAT.md says of it.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::block::BlockRef;
use crate::blocks::Keep;
use crate::error::ReadError;
use crate::filter::{self, Filter};
use crate::header::HEADER_BYTES;
use crate::node::Node;
use crate::{Lsn, ReadAt, Reader, Summary};

impl<R: ReadAt> Reader<R> {
    /// Reads the whole file, nothing from the cache, and checks every checksum, that blocks leave no byte
    /// between them uncovered, order, index, filters, and counts. Memory as for a scan.
    pub fn verify(&self) -> Result<&Summary, ReadError> {
        // The header and footer were checked when the file was opened, perhaps long ago.
        let again = Reader::open(&self.blocks.source, self.header.owner, &self.blocks.cache)?;
        if again.header != self.header || again.footer != self.footer {
            return Err(ReadError::corrupt(0)("the file is not the one that was opened"));
        }
        let mut walk = Walk { reader: self, at: HEADER_BYTES as u64, found: Found::default() };
        let root = &again.root;
        walk.node(self.footer.root, &root.node, root.filter)?;
        walk.compare()?;
        Ok(&self.footer.summary)
    }
}

/// Goes through the tree in the order in which it was written.
struct Walk<'a, R> {
    reader: &'a Reader<R>,
    /// Up to where the file was found to be covered.
    at: u64,
    found: Found,
}

#[derive(Default)]
struct Found {
    last: Option<(Bytes, Lsn)>,
    entry_count: u64,
    key_count: u64,
    block_count: u64,
    entry_lsns: Option<RangeInclusive<Lsn>>,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl<R: ReadAt> Walk<'_, R> {
    /// What is from here to there was read and is good.
    fn cover(&mut self, offset: u64, end: u64) -> Result<(), ReadError> {
        if offset != self.at {
            return Err(ReadError::corrupt(self.at)("blocks do not stand one behind the other"));
        }
        self.at = end;
        Ok(())
    }

    /// A node that has been read, and all under it. No deeper than levels, which are limited.
    fn node(
        &mut self,
        place: BlockRef,
        node: &Node,
        filter: Option<BlockRef>,
    ) -> Result<(), ReadError> {
        let blocks = &self.reader.blocks;
        let keys = match filter {
            Some(filter) => Some(blocks.filter(filter, Keep::Never)?),
            None => None,
        };
        for index in 0..node.len() {
            let Some((key, reference)) = node.get(index) else { break };
            let Some(level) = node.level.checked_sub(1) else {
                self.data(reference.block, (key, reference.lsn), keys.as_deref())?;
                continue;
            };
            let child = blocks.node(reference.block, level, Keep::Never)?;
            if !child.begins_with(key, reference.lsn) {
                let what = "a node begins with another entry than the one above it says";
                return Err(ReadError::corrupt(reference.block.offset)(what));
            }
            self.node(reference.block, &child, reference.filter)?;
        }
        if let Some(filter) = filter {
            self.cover(filter.offset, filter.end())?;
        }
        self.cover(place.offset, place.end())
    }

    fn data(
        &mut self,
        place: BlockRef,
        (key, lsn): (&[u8], Lsn),
        filter: Option<&Filter>,
    ) -> Result<(), ReadError> {
        let corrupt = ReadError::corrupt(place.offset);
        let blocks = &self.reader.blocks;
        let block = blocks.data(place, Keep::Never)?;
        if !block.begins_with(key, lsn) {
            return Err(corrupt("a block begins with another entry than the index says"));
        }
        for run in block.runs() {
            let value = blocks.stored_value(run)?;
            self.cover(run.offset, run.end())?;
            self.found.raw_bytes += value.len() as u64;
            self.found.stored_bytes += run.stored_bytes;
        }
        self.cover(place.offset, place.end())?;
        for group in 0..block.key_count() {
            let key = block.key(group);
            if filter.is_none_or(|filter| !filter.may_contain(filter::hash(&key))) {
                return Err(corrupt("the filter does not know a key"));
            }
            if !self.reader.keys().contains(&key) {
                return Err(corrupt("a key lies outside the file's range"));
            }
            for slot in block.slots_of(group).filter_map(|slot| block.slot(slot)) {
                self.entry(&key, slot.lsn).map_err(&corrupt)?;
            }
        }
        self.found.block_count += 1;
        self.found.raw_bytes += block.raw_bytes() as u64;
        self.found.stored_bytes += u64::from(place.length);
        Ok(())
    }

    fn entry(&mut self, key: &Bytes, lsn: Lsn) -> Result<(), &'static str> {
        let found = &mut self.found;
        let new_key = match &found.last {
            Some((last, last_lsn)) if (last, *last_lsn) >= (key, lsn) => {
                return Err("the entries are not in order");
            }
            Some((last, _)) => last != key,
            None => true,
        };
        found.key_count += u64::from(new_key);
        found.entry_count += 1;
        found.last = Some((key.clone(), lsn));
        let (lowest, highest) = found.entry_lsns.take().unwrap_or(lsn..=lsn).into_inner();
        found.entry_lsns = Some(lowest.min(lsn)..=highest.max(lsn));
        Ok(())
    }

    fn compare(&self) -> Result<(), ReadError> {
        let (found, summary) = (&self.found, &self.reader.footer.summary);
        let equal = (found.entry_count, found.key_count, found.block_count)
            == (summary.entry_count, summary.key_count, summary.block_count)
            && (found.raw_bytes, found.stored_bytes) == (summary.raw_bytes, summary.stored_bytes)
            && found.entry_lsns == summary.entry_lsns;
        if !equal {
            let what = "the counts in the footer are not those of what the file has";
            return Err(ReadError::corrupt(self.at)(what));
        }
        Ok(())
    }
}
