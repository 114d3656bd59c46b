//! The blocks of one file, read and understood, through the cache or beside it.

use std::ops::Range;
use std::sync::Arc;

use cache::{Lookup, MakeGuard};

use crate::block::{self, BlockKind, BlockRef};
use crate::block_cache::{BlockKey, Cached, Content};
use crate::data_block::DataBlock;
use crate::error::ReadError;
use crate::filter::Filter;
use crate::node::Node;
use crate::value_run::{self, Run};
use crate::{BlockCache, FileId, Lsn, ReadAt};

const OTHER_KIND: &str = "a block is referred to as two different things";

/// Makes a value ready that was read: its key, its kind, and itself.
pub type Finish = fn(&[u8], u8, &mut [u8]);

/// What lies between two blocks that are read by one call, at most, in bytes.
const GAP_BYTES_MAX: u64 = 8 << 10;

/// What is needed to read any block of a file.
#[derive(Debug)]
pub(crate) struct Blocks<R> {
    pub(crate) source: R,
    pub(crate) file: FileId,
    pub(crate) lsns: Range<Lsn>,
    pub(crate) cache: BlockCache,
    pub(crate) finish: Option<Finish>,
}

/// Whether a block that is read is to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// It is likely to be wanted again.
    Yes,
    /// Taken from the cache if it is there, but not put there: for those who read much and once.
    No,
    /// Always read from the file: to check what is there.
    Never,
}

impl<R: ReadAt> Blocks<R> {
    fn read(&self, place: BlockRef, kind: BlockKind) -> Result<Cached, ReadError> {
        let raw = block::read(&self.source, &self.file, place, kind)?;
        self.understand(raw, place, kind)
    }

    fn understand(
        &self,
        raw: Vec<u8>,
        place: BlockRef,
        kind: BlockKind,
    ) -> Result<Cached, ReadError> {
        let corrupt = ReadError::corrupt(place.offset);
        let content = match kind {
            BlockKind::Data => {
                let block = DataBlock::parse(raw, &self.lsns, place.offset, self.finish);
                let block = block.map_err(corrupt)?;
                Content::Data(Arc::new(block))
            }
            BlockKind::Node => {
                let node = Node::parse(&raw, &self.lsns, place.offset).map_err(corrupt)?;
                Content::Node(Arc::new(node))
            }
            BlockKind::Filter => Content::Filter(Arc::new(Filter::parse(raw).map_err(corrupt)?)),
            BlockKind::Value => return Err(corrupt(OTHER_KIND)),
        };
        Ok(Cached { length: place.length, content })
    }

    fn content(&self, place: BlockRef, kind: BlockKind, keep: Keep) -> Result<Content, ReadError> {
        let key = BlockKey { file: self.file, offset: place.offset };
        let there = match keep {
            Keep::Yes => Some(self.cache.get_or_read(key, || self.read(place, kind))?),
            Keep::No => self.cache.peek(key),
            Keep::Never => None,
        };
        match there {
            // What was read through another reference has to be what this one says, too.
            Some(there) if there.length != place.length => {
                Err(ReadError::corrupt(place.offset)("a block is referred to with two lengths"))
            }
            Some(there) => Ok(there.content.clone()),
            None => Ok(self.read(place, kind)?.content),
        }
    }

    /// The node at `place`, which must be of this level.
    pub(crate) fn node(
        &self,
        place: BlockRef,
        level: u8,
        keep: Keep,
    ) -> Result<Arc<Node>, ReadError> {
        match self.content(place, BlockKind::Node, keep)? {
            Content::Node(node) if node.level == level => Ok(node),
            Content::Node(_) => Err(ReadError::corrupt(place.offset)("a node is of another level")),
            _ => Err(ReadError::corrupt(place.offset)(OTHER_KIND)),
        }
    }

    /// The root, whose level nobody knows before.
    pub(crate) fn root(&self, place: BlockRef) -> Result<Arc<Node>, ReadError> {
        match self.content(place, BlockKind::Node, Keep::Never)? {
            Content::Node(node) => Ok(node),
            _ => Err(ReadError::corrupt(place.offset)(OTHER_KIND)),
        }
    }

    /// The block of entries at `place`.
    pub(crate) fn data(&self, place: BlockRef, keep: Keep) -> Result<Arc<DataBlock>, ReadError> {
        match self.content(place, BlockKind::Data, keep)? {
            Content::Data(block) => Ok(block),
            _ => Err(ReadError::corrupt(place.offset)(OTHER_KIND)),
        }
    }

    /// Those of the blocks of entries at `places`, in ascending order, that can be had at once: those in the
    /// cache, and those that nobody else reads, of which neighbours are read together. What is not among them is
    /// to be asked for by itself, and then tells why.
    pub(crate) fn data_ahead(&self, places: &[BlockRef]) -> Vec<(u64, Arc<DataBlock>)> {
        let mut found = Vec::with_capacity(places.len());
        let mut missing: Vec<(BlockRef, MakeGuard<BlockKey, Cached>)> = Vec::new();
        let mut take = |place: BlockRef, there: &Cached| match &there.content {
            Content::Data(block) if there.length == place.length => {
                found.push((place.offset, block.clone()));
            }
            _ => {}
        };
        for &place in places {
            match self.cache.lookup(BlockKey { file: self.file, offset: place.offset }) {
                Lookup::Hit(there) => take(place, &there),
                Lookup::Make(guard) => missing.push((place, guard)),
                // Not to be waited for while others may wait for us.
                Lookup::Wait(_) => {}
            }
        }
        while !missing.is_empty() {
            let together = missing
                .windows(2)
                .take_while(|pair| {
                    pair[1].0.offset.saturating_sub(pair[0].0.end()) <= GAP_BYTES_MAX
                })
                .count()
                + 1;
            let run: Vec<_> = missing.drain(..together).collect();
            for (place, block) in self.read_together(run) {
                take(place, &block);
            }
        }
        found.sort_unstable_by_key(|(offset, _)| *offset);
        found
    }

    /// Reads neighbours by one call. What cannot be read is left to those who ask for it by itself.
    fn read_together(
        &self,
        run: Vec<(BlockRef, MakeGuard<BlockKey, Cached>)>,
    ) -> Vec<(BlockRef, Arc<Cached>)> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Vec::new() };
        let from = first.0.offset;
        let length = last.0.end().saturating_sub(from) as usize;
        let Ok(bytes) = block::read_bytes(&self.source, from, length) else { return Vec::new() };
        let read = |(place, guard): (BlockRef, MakeGuard<BlockKey, Cached>)| {
            let at = (place.offset - from) as usize;
            let bytes = bytes.get(at..at + place.length as usize)?;
            let raw = block::decode(bytes, &self.file, place.offset, BlockKind::Data).ok()?;
            let block = self.understand(raw, place, BlockKind::Data).ok()?;
            let memory_bytes = block.memory_bytes();
            Some((place, guard.fill(block, memory_bytes)))
        };
        run.into_iter().filter_map(read).collect()
    }

    /// The filter at `place`.
    pub(crate) fn filter(&self, place: BlockRef, keep: Keep) -> Result<Arc<Filter>, ReadError> {
        match self.content(place, BlockKind::Filter, keep)? {
            Content::Filter(filter) => Ok(filter),
            _ => Err(ReadError::corrupt(place.offset)(OTHER_KIND)),
        }
    }

    /// A value that has a run of its own, as it is in the file. Not kept: it would drive out too much else.
    pub(crate) fn stored_value(&self, run: &Run) -> Result<Vec<u8>, ReadError> {
        value_run::read(&self.source, &self.file, run)
    }

    /// The same, made ready.
    pub(crate) fn value(&self, run: &Run, key: &[u8], kind: u8) -> Result<Vec<u8>, ReadError> {
        let mut value = self.stored_value(run)?;
        if let Some(finish) = self.finish {
            finish(key, kind, &mut value);
        }
        Ok(value)
    }
}
