//! A place in the index: which block of entries, and the way to the one before or after it.

use std::sync::Arc;

use crate::Lsn;
use crate::ReadAt;
use crate::block::BlockRef;
use crate::blocks::{Blocks, Keep};
use crate::data_block::DataBlock;
use crate::error::ReadError;
use crate::node::Node;

/// The nodes from the root to a leaf, with the number of the reference taken in each.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    path: Vec<(Arc<Node>, usize)>,
}

/// Where the index begins.
#[derive(Clone, Debug)]
pub(crate) struct IndexRoot {
    pub(crate) node: Arc<Node>,
    /// The filter of all keys, if the root is a leaf.
    pub(crate) filter: Option<BlockRef>,
}

/// Which end of a node to take.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

impl Cursor {
    /// At the last block that begins at or before this key and position. `None` if there is none.
    pub(crate) fn seek<R: ReadAt>(
        blocks: &Blocks<R>,
        root: &IndexRoot,
        (key, lsn): (&[u8], Lsn),
    ) -> Result<Option<Cursor>, ReadError> {
        let mut node = root.node.clone();
        let mut path = Vec::new();
        loop {
            let Some(index) = node.find(key, lsn) else { return Ok(None) };
            path.push((node.clone(), index));
            if node.level == 0 {
                return Ok(Some(Cursor { path }));
            }
            let Some(child) = child(blocks, &node, index)? else { return Ok(None) };
            node = child;
        }
    }

    /// At the first block. `None` if there is none.
    pub(crate) fn first<R: ReadAt>(
        blocks: &Blocks<R>,
        root: &IndexRoot,
    ) -> Result<Option<Cursor>, ReadError> {
        let mut cursor = Cursor { path: Vec::new() };
        let found = root.node.len() > 0;
        cursor.descend(blocks, root.node.clone(), End::First)?;
        Ok(found.then_some(cursor))
    }

    /// Takes this end of `node` and of all below it.
    fn descend<R: ReadAt>(
        &mut self,
        blocks: &Blocks<R>,
        mut node: Arc<Node>,
        end: End,
    ) -> Result<(), ReadError> {
        loop {
            let index = match end {
                End::First => 0,
                End::Last => node.len().saturating_sub(1),
            };
            self.path.push((node.clone(), index));
            if node.level == 0 {
                return Ok(());
            }
            match child(blocks, &node, index)? {
                Some(child) => node = child,
                None => return Ok(()),
            }
        }
    }

    /// Goes to the next block; `false` if this was the last one, and there is no place any more.
    pub(crate) fn next<R: ReadAt>(&mut self, blocks: &Blocks<R>) -> Result<bool, ReadError> {
        self.step(blocks, End::First)
    }

    /// Goes to the block before; `false` if this was the first one, and there is no place any more.
    pub(crate) fn previous<R: ReadAt>(&mut self, blocks: &Blocks<R>) -> Result<bool, ReadError> {
        self.step(blocks, End::Last)
    }

    fn step<R: ReadAt>(&mut self, blocks: &Blocks<R>, end: End) -> Result<bool, ReadError> {
        while let Some((node, index)) = self.path.pop() {
            let index = match end {
                End::First => Some(index + 1).filter(|&index| index < node.len()),
                End::Last => index.checked_sub(1),
            };
            let Some(index) = index else { continue };
            self.path.push((node.clone(), index));
            if let Some(child) = child(blocks, &node, index)? {
                self.descend(blocks, child, end)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// The block of entries at this place.
    pub(crate) fn block<R: ReadAt>(
        &self,
        blocks: &Blocks<R>,
        keep: Keep,
    ) -> Result<Option<Arc<DataBlock>>, ReadError> {
        let Some((leaf, index)) = self.path.last() else { return Ok(None) };
        data_at(blocks, leaf, *index, keep, None)
    }

    /// The first key of the block at this place, by what the index says of it.
    pub(crate) fn first_key(&self) -> &[u8] {
        let reference = self.path.last().and_then(|(leaf, index)| leaf.get(*index));
        reference.map_or(&[], |(key, _)| key)
    }

    /// Where the block at this place begins, in bytes from the beginning of the file.
    pub(crate) fn offset(&self) -> u64 {
        let reference = self.path.last().and_then(|(leaf, index)| leaf.get(*index));
        reference.map_or(0, |(_, reference)| reference.block.offset)
    }
}

/// The block of entries that reference number `index` of a leaf refers to, `there` if somebody has it already.
pub(crate) fn data_at<R: ReadAt>(
    blocks: &Blocks<R>,
    leaf: &Node,
    index: usize,
    keep: Keep,
    there: Option<Arc<DataBlock>>,
) -> Result<Option<Arc<DataBlock>>, ReadError> {
    let Some((key, reference)) = leaf.get(index) else { return Ok(None) };
    let block = match there {
        Some(block) => block,
        None => blocks.data(reference.block, keep)?,
    };
    if !block.begins_with(key, reference.lsn) {
        let what = "a block begins with another entry than the index says";
        return Err(ReadError::corrupt(reference.block.offset)(what));
    }
    Ok(Some(block))
}

/// The node that reference number `index` refers to; `None` of a leaf.
pub(crate) fn child<R: ReadAt>(
    blocks: &Blocks<R>,
    node: &Node,
    index: usize,
) -> Result<Option<Arc<Node>>, ReadError> {
    let Some(level) = node.level.checked_sub(1) else { return Ok(None) };
    let Some((key, reference)) = node.get(index) else { return Ok(None) };
    let child = blocks.node(reference.block, level, Keep::Yes)?;
    if !child.begins_with(key, reference.lsn) {
        let what = "a node begins with another entry than the one above it says";
        return Err(ReadError::corrupt(reference.block.offset)(what));
    }
    Ok(Some(child))
}
