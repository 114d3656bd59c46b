//! The blocks of one file, read and understood, through the cache or beside it.

use std::ops::Range;
use std::sync::Arc;

use crate::block::{self, BlockKind, BlockRef};
use crate::block_cache::{BlockKey, Cached, Content};
use crate::data_block::DataBlock;
use crate::error::ReadError;
use crate::filter::Filter;
use crate::node::Node;
use crate::value_run::{self, Run};
use crate::{BlockCache, FileId, Lsn, ReadAt};

const OTHER_KIND: &str = "a block is referred to as two different things";

/// What is needed to read any block of a file.
#[derive(Debug)]
pub(crate) struct Blocks<R> {
    pub(crate) source: R,
    pub(crate) file: FileId,
    pub(crate) lsns: Range<Lsn>,
    pub(crate) cache: BlockCache,
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
        let corrupt = ReadError::corrupt(place.offset);
        let content = match kind {
            BlockKind::Data => {
                let block = DataBlock::parse(raw, &self.lsns, place.offset).map_err(corrupt)?;
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

    /// The filter at `place`.
    pub(crate) fn filter(&self, place: BlockRef, keep: Keep) -> Result<Arc<Filter>, ReadError> {
        match self.content(place, BlockKind::Filter, keep)? {
            Content::Filter(filter) => Ok(filter),
            _ => Err(ReadError::corrupt(place.offset)(OTHER_KIND)),
        }
    }

    /// A value that has a run of its own. Not kept: it would drive out too much else.
    pub(crate) fn value(&self, run: &Run) -> Result<Vec<u8>, ReadError> {
        value_run::read(&self.source, &self.file, run)
    }
}
