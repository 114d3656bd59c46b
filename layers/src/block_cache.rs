//! The blocks of many files, as they were read: kept within a bound of bytes.

use std::sync::Arc;

use cache::{Cache, Lookup};

use crate::data_block::DataBlock;
use crate::filter::Filter;
use crate::node::Node;
use crate::{CacheStats, FileId};

/// A cache of blocks, to be shared by all readers. Clones are handles of the same cache.
///
/// Blocks that are in use are kept in memory by their users, too, and values by those who got them.
#[derive(Clone, Debug)]
pub struct BlockCache {
    blocks: Cache<BlockKey, Cached>,
}

/// Which block: offsets mean nothing without the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlockKey {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
}

/// A block, understood. The length is that in the file, with its header.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) length: u32,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Data(Arc<DataBlock>),
    Node(Arc<Node>),
    Filter(Arc<Filter>),
}

impl Cached {
    /// Bytes that it takes in memory, roughly.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let content = match &self.content {
            Content::Data(block) => size_of::<DataBlock>() + block.memory_bytes(),
            Content::Node(node) => size_of::<Node>() + node.memory_bytes(),
            Content::Filter(filter) => size_of::<Filter>() + filter.memory_bytes(),
        };
        (size_of::<BlockKey>() + size_of::<Cached>() + content) as u64
    }
}

impl BlockCache {
    /// An empty cache of at most `bytes_max` bytes. With zero, everything is read anew.
    pub fn new(bytes_max: u64) -> BlockCache {
        BlockCache { blocks: Cache::new(bytes_max) }
    }

    /// Forgets the blocks of a file, to make room at once when it is deleted. Gives their number.
    pub fn forget(&self, file: FileId) -> usize {
        self.blocks.remove_if(|key| key.file == file)
    }

    /// The counters.
    pub fn stats(&self) -> CacheStats {
        self.blocks.stats()
    }

    /// See `Cache::lookup`.
    pub(crate) fn lookup(&self, key: BlockKey) -> Lookup<BlockKey, Cached> {
        self.blocks.lookup(key)
    }

    pub(crate) fn peek(&self, key: BlockKey) -> Option<Arc<Cached>> {
        self.blocks.peek(&key)
    }

    /// The block, read by `read` unless it is there. No lock is held meanwhile.
    pub(crate) fn get_or_read<E>(
        &self,
        key: BlockKey,
        read: impl FnOnce() -> Result<Cached, E>,
    ) -> Result<Arc<Cached>, E> {
        self.blocks.get_or_make(key, || {
            let block = read()?;
            let memory_bytes = block.memory_bytes();
            Ok((block, memory_bytes))
        })
    }
}
