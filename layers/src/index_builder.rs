//! Makes the index while the file is written: a tree from the leaves up, of which no more than one node
//! of each level is in memory.

use std::io::Write;

use crate::Lsn;
use crate::block::{BlockKind, BlockRef};
use crate::block_writer::BlockWriter;
use crate::error::BuildError;
use crate::filter;
use crate::limits::FILTER_KEYS;
use crate::node::{Child, NodeBuilder};

/// The open node of each level, and the hashes of the keys under the open leaf.
pub(crate) struct IndexBuilder {
    base: Lsn,
    /// From the leaf up. Never empty.
    open: Vec<NodeBuilder>,
    hashes: Vec<u64>,
}

/// Where the finished index begins.
pub(crate) struct Root {
    pub(crate) block: BlockRef,
    /// The filter of all keys, if the root is a leaf.
    pub(crate) filter: Option<BlockRef>,
}

impl IndexBuilder {
    pub(crate) fn new(base: Lsn) -> IndexBuilder {
        IndexBuilder { base, open: vec![NodeBuilder::new(0)], hashes: Vec::new() }
    }

    /// To be called before anything of a further block of entries is written. Writes full nodes, so that
    /// a node stands right behind the last thing under it: that is the order that FORMAT.md fixes.
    pub(crate) fn make_room(
        &mut self,
        writer: &mut BlockWriter<impl Write>,
    ) -> Result<(), BuildError> {
        if self.hashes.len() >= FILTER_KEYS {
            self.close(0, writer)?;
        }
        let mut level = 0;
        while let Some(node) = self.open.get(level) {
            if node.is_full() {
                self.close(level, writer)?;
            }
            level += 1;
        }
        Ok(())
    }

    /// Adds a key that the block of entries now being filled has. Each key once for each block.
    pub(crate) fn add_key(&mut self, key: &[u8]) {
        let hash = filter::hash(key);
        // A key that goes on from the block before is there already.
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
        }
    }

    /// Adds a block of entries, which has been written.
    pub(crate) fn add_block(&mut self, child: Child) {
        if let Some(leaf) = self.open.first_mut() {
            leaf.add(child, self.base);
        }
    }

    /// Writes the open node of `level` and refers to it from the level above.
    fn close(
        &mut self,
        level: usize,
        writer: &mut BlockWriter<impl Write>,
    ) -> Result<(), BuildError> {
        let Some(open) = self.open.get_mut(level) else { return Ok(()) };
        let node = std::mem::replace(open, NodeBuilder::new(level as u8));
        let Root { block, filter } = self.write(level, &node, writer)?;
        let Some((key, lsn)) = node.into_first() else { return Ok(()) };
        let above = level + 1;
        if self.open.len() == above {
            self.open.push(NodeBuilder::new(above as u8));
        }
        if let Some(parent) = self.open.get_mut(above) {
            parent.add(Child { key, lsn, block, filter }, self.base);
        }
        Ok(())
    }

    fn write(
        &mut self,
        level: usize,
        node: &NodeBuilder,
        writer: &mut BlockWriter<impl Write>,
    ) -> Result<Root, BuildError> {
        let filter = match level {
            0 => Some(writer.write(BlockKind::Filter, &filter::build(&self.hashes))?),
            _ => None,
        };
        if level == 0 {
            self.hashes.clear();
        }
        let block = writer.write(BlockKind::Node, node.raw())?;
        Ok(Root { block, filter })
    }

    /// Writes what is open. The highest node is the root.
    pub(crate) fn finish(
        mut self,
        writer: &mut BlockWriter<impl Write>,
    ) -> Result<Root, BuildError> {
        let top = self.open.len() - 1;
        for level in 0..top {
            if self.open.get(level).is_some_and(|node| !node.is_empty()) {
                self.close(level, writer)?;
            }
        }
        let root = self.open.pop().unwrap_or(NodeBuilder::new(0));
        self.write(top, &root, writer)
    }
}
