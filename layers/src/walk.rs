//! Keys of one layer, asked for one after the other: what was read for one of them serves the next.
//!
//! The keys may come in any order. In ascending order the way through the index is taken once, each block is
//! looked for once, and blocks that are not in the cache and lie side by side are read by one call.

use std::ops::Range;
use std::sync::Arc;

use crate::block::BlockRef;
use crate::blocks::Keep;
use crate::cursor::{child, data_at};
use crate::data_block::DataBlock;
use crate::error::ReadError;
use crate::filter::{self, Filter};
use crate::node::{Node, Reference};
use crate::versions::Versions;
use crate::{Lsn, ReadAt, Reader};

/// Blocks that are looked for ahead of the one that is wanted, at most.
const AHEAD_MAX: usize = 64;
/// What of the file is read ahead at once, at most, in bytes.
const AHEAD_BYTES_MAX: u64 = 1 << 20;

/// A way through a layer.
#[derive(Debug)]
pub struct Walk<'a, R> {
    reader: &'a Reader<R>,
    /// The nodes from the root to a leaf, with the number of the reference taken in each, as far as they go.
    path: Vec<(Arc<Node>, usize)>,
    /// The filter looked at last, and where it begins.
    filter: Option<(u64, Arc<Filter>)>,
    /// Blocks of entries, by where they begin: that which was looked into last, and those read ahead.
    blocks: Vec<(u64, Arc<DataBlock>)>,
    /// The last of the keys that are asked for next and lie side by side.
    upto: Option<Vec<u8>>,
    /// Whether absent keys are likely enough to look at filters.
    use_filters: bool,
}

/// A key in a block.
pub(crate) struct Found<'a> {
    /// Where the block begins, in bytes from the beginning of the file.
    pub(crate) offset: u64,
    pub(crate) block: &'a Arc<DataBlock>,
    /// The number of the key.
    pub(crate) group: usize,
}

impl<'a, R: ReadAt> Walk<'a, R> {
    pub(crate) fn new(reader: &'a Reader<R>) -> Walk<'a, R> {
        let (path, blocks) = (Vec::new(), Vec::new());
        Walk { reader, path, filter: None, blocks, upto: None, use_filters: true }
    }

    /// All keys up to `last` will be asked for next, or most of them: blocks that they may be in are read together.
    pub fn read_ahead(&mut self, last: &[u8]) {
        let upto = self.upto.get_or_insert_default();
        upto.clear();
        upto.extend_from_slice(last);
    }

    /// The same for one who asks for keys that are there. Others are found to be absent as well, only later.
    pub fn without_filters(self) -> Walk<'a, R> {
        Walk { use_filters: false, ..self }
    }

    /// The versions of `key` at or before `lsn_max`, newest first, as `Reader::get` gives them.
    ///
    /// # Errors
    /// See `ReadError`.
    pub fn get(&mut self, key: &[u8], lsn_max: Lsn) -> Result<Versions<'a, R>, ReadError> {
        let reader = self.reader;
        Ok(match self.find(key, lsn_max)? {
            Some(Found { offset, block, group }) => {
                let slots: Range<usize> = block.slots_up_to(group, lsn_max);
                Versions::at(reader, offset, block.clone(), group, slots)
            }
            None => Versions::none(reader),
        })
    }

    /// The last block that begins at or before this key and position; `None` if the key is not in it.
    pub(crate) fn find(&mut self, key: &[u8], lsn: Lsn) -> Result<Option<Found<'_>>, ReadError> {
        if !self.is_within(key, lsn) {
            if !self.reader.may_have(key, lsn) || !self.go_to(key, lsn)? {
                return Ok(None);
            }
            self.take_block()?;
        }
        let Some((offset, block)) = self.blocks.first() else { return Ok(None) };
        let (group, found) = block.find(key);
        Ok(found.then_some(Found { offset: *offset, block, group }))
    }

    /// Whether the key and position are in the block that was looked into last, if they are there at all: it begins
    /// before them, and another one behind them.
    fn is_within(&self, key: &[u8], lsn: Lsn) -> bool {
        let (Some((leaf, index)), Some((offset, _))) = (self.path.last(), self.blocks.first())
        else {
            return false;
        };
        let is_there = |(_, reference): (&[u8], &Reference)| reference.block.offset == *offset;
        index + 1 < leaf.len()
            && leaf.level == 0
            && leaf.get(*index).is_some_and(is_there)
            && leaf.covers(*index, key, lsn)
    }

    /// Takes the way to the leaf for this key and position; `false` if the key is not there.
    fn go_to(&mut self, key: &[u8], lsn: Lsn) -> Result<bool, ReadError> {
        let hash = self.use_filters.then(|| filter::hash(key));
        let mut depth = 0;
        loop {
            if self.path.len() == depth {
                let next = match depth.checked_sub(1).and_then(|above| self.path.get(above)) {
                    None => Some(self.reader.root.node.clone()),
                    Some((node, index)) => child(&self.reader.blocks, node, *index)?,
                };
                let Some(next) = next else { return Ok(false) };
                self.path.push((next, 0));
            }
            let Some((node, index)) = self.path.get_mut(depth) else { return Ok(false) };
            let mut moved = false;
            if !node.covers(*index, key, lsn) {
                let Some(found) = node.find(key, lsn) else {
                    self.path.truncate(depth);
                    return Ok(false);
                };
                *index = found;
                moved = true;
            }
            let is_leaf = node.level == 0;
            let filter = match is_leaf {
                true if depth == 0 => self.reader.root.filter,
                true => None,
                false => node.get(*index).and_then(|(_, reference)| reference.filter),
            };
            depth += 1;
            if moved {
                self.path.truncate(depth);
            }
            if let (Some(hash), Some(place)) = (hash, filter)
                && !self.passes(place, hash)?
            {
                return Ok(false);
            }
            if is_leaf {
                return Ok(true);
            }
        }
    }

    fn passes(&mut self, place: BlockRef, hash: u64) -> Result<bool, ReadError> {
        if let Some((offset, filter)) = &self.filter
            && *offset == place.offset
        {
            return Ok(filter.may_contain(hash));
        }
        let filter = self.reader.blocks.filter(place, Keep::Yes)?;
        let passes = filter.may_contain(hash);
        self.filter = Some((place.offset, filter));
        Ok(passes)
    }

    /// Puts the block of entries at the end of the way in front of those that are at hand.
    fn take_block(&mut self) -> Result<(), ReadError> {
        let Some((leaf, index)) = self.path.last() else { return Ok(()) };
        let Some((_, reference)) = leaf.get(*index) else { return Ok(()) };
        let offset = reference.block.offset;
        if let Some(at) = self.blocks.iter().position(|(there, _)| *there == offset) {
            // What was passed is not asked for again.
            self.blocks.drain(..at);
        } else {
            let ahead = self.ahead(leaf, *index);
            self.blocks.clear();
            if ahead.len() > 1 {
                self.blocks = self.reader.blocks.data_ahead(&ahead);
            }
        }
        let (leaf, index) = (leaf.clone(), *index);
        let there = self.blocks.first().filter(|(there, _)| *there == offset);
        let there = there.map(|(_, block)| block.clone());
        let is_new = there.is_none();
        match data_at(&self.reader.blocks, &leaf, index, Keep::Yes, there) {
            Ok(Some(block)) if is_new => self.blocks.insert(0, (offset, block)),
            Ok(Some(_)) => {}
            Ok(None) => self.blocks.clear(),
            Err(error) => {
                // What is not as the index says is not to be looked into again.
                self.blocks.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Which blocks to look for, if one is.
    fn ahead(&self, leaf: &Node, index: usize) -> Vec<BlockRef> {
        let Some(upto) = self.upto.as_deref() else { return Vec::new() };
        let mut ahead: Vec<BlockRef> = Vec::new();
        for at in index..leaf.len().min(index + AHEAD_MAX) {
            let Some((key, reference)) = leaf.get(at) else { break };
            let from = ahead.first().map_or(reference.block.offset, |first| first.offset);
            if at > index && key > upto || reference.block.end() - from > AHEAD_BYTES_MAX {
                break;
            }
            ahead.push(reference.block);
        }
        ahead
    }
}
