//! A node of the index, written and read.
//!
//! A node of level 0, a leaf, refers to blocks of entries; one of a higher level to nodes of the level
//! below. Each reference carries the first key and position of what it refers to. References to leaves
//! carry the place of the filter of the leaf's keys, too.

use std::ops::Range;

use crate::Lsn;
use crate::block::{BLOCK_HEADER_BYTES, BlockRef};
use crate::data_block::shared_prefix;
use crate::header::HEADER_BYTES;
use crate::input::Input;
use crate::limits::{KEY_BYTES_MAX, LEVEL_MAX, NODE_BYTES};
use crate::varint;

/// A reference, as it is handed to a node that is being made.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) key: Vec<u8>,
    pub(crate) lsn: Lsn,
    pub(crate) block: BlockRef,
    /// Of a leaf: the filter of its keys.
    pub(crate) filter: Option<BlockRef>,
}

/// A node that is being made.
pub(crate) struct NodeBuilder {
    raw: Vec<u8>,
    first: Option<(Vec<u8>, Lsn)>,
    last_key: Vec<u8>,
}

impl NodeBuilder {
    pub(crate) fn new(level: u8) -> NodeBuilder {
        NodeBuilder { raw: vec![level], first: None, last_key: Vec::new() }
    }

    pub(crate) fn add(&mut self, child: Child, base: Lsn) {
        let shared = shared_prefix(&self.last_key, &child.key);
        varint::put(&mut self.raw, shared as u64);
        varint::put(&mut self.raw, (child.key.len() - shared) as u64);
        self.raw.extend(child.key.iter().skip(shared));
        varint::put(&mut self.raw, child.lsn.as_u64() - base.as_u64());
        for place in [Some(child.block), child.filter].into_iter().flatten() {
            varint::put(&mut self.raw, place.offset);
            varint::put(&mut self.raw, u64::from(place.length));
        }
        self.last_key.clone_from(&child.key);
        self.first.get_or_insert((child.key, child.lsn));
    }

    pub(crate) fn is_full(&self) -> bool {
        self.raw.len() >= NODE_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The first key and position under it, if there is any.
    pub(crate) fn into_first(self) -> Option<(Vec<u8>, Lsn)> {
        self.first
    }
}

/// A reference as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    key: Range<u32>,
    pub(crate) lsn: Lsn,
    pub(crate) block: BlockRef,
    pub(crate) filter: Option<BlockRef>,
}

/// A node as it was read: all of it checked.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) level: u8,
    keys: Vec<u8>,
    references: Vec<Reference>,
}

impl Node {
    /// Reads a node that begins at `offset` of a file with positions in `lsns`. Everything that it
    /// refers to ends no later than there, and follows one another in the file.
    pub(crate) fn parse(raw: &[u8], lsns: &Range<Lsn>, offset: u64) -> Result<Node, &'static str> {
        let mut input = Input::new(raw);
        let level = input.u8().ok_or("a node is empty")?;
        if level > LEVEL_MAX {
            return Err("a node is of a level that no file needs");
        }
        let mut node = Node { level, keys: Vec::new(), references: Vec::new() };
        let mut free = HEADER_BYTES as u64;
        while !input.is_empty() {
            node.reference(&mut input, lsns)?;
            let Some(last) = node.references.last() else { break };
            for place in [last.filter, Some(last.block)].into_iter().flatten() {
                if place.offset < free || place.length as usize <= BLOCK_HEADER_BYTES {
                    return Err("a node refers to blocks that are not one after the other");
                }
                free = place.end();
            }
        }
        if free > offset {
            return Err("a node refers to what stands behind it");
        }
        if node.references.is_empty() && level > 0 {
            return Err("a node refers to nothing");
        }
        Ok(node)
    }

    fn reference(&mut self, input: &mut Input<'_>, lsns: &Range<Lsn>) -> Result<(), &'static str> {
        const SHORT: &str = "a reference of a node is cut off";
        let shared = input.length().ok_or(SHORT)?;
        let own = input.length().and_then(|length| input.bytes(length)).ok_or(SHORT)?;
        let last = self.references.last().map_or(0..0, |last| last.key.clone());
        let last = last.start as usize..last.end as usize;
        if shared > last.len() || shared + own.len() > KEY_BYTES_MAX {
            return Err("a key of a node has a wrong length");
        }
        let start = self.keys.len();
        self.keys.extend_from_within(last.start..last.start + shared);
        self.keys.extend_from_slice(own);
        let delta = input.varint().ok_or(SHORT)?;
        let lsn = lsns.start.checked_add(delta).filter(|lsn| lsns.contains(lsn));
        let lsn = lsn.ok_or("a position in a node lies outside the file's range")?;
        let block = block_ref(input).ok_or(SHORT)?;
        let filter = match self.level {
            1 => Some(block_ref(input).ok_or(SHORT)?),
            _ => None,
        };
        let key = start as u32..self.keys.len() as u32;
        let reference = Reference { key, lsn, block, filter };
        if let Some(last) = self.references.last()
            && (self.key_of(last), last.lsn) >= (self.key_of(&reference), lsn)
        {
            return Err("the references of a node are not in order");
        }
        self.references.push(reference);
        Ok(())
    }

    fn key_of(&self, reference: &Reference) -> &[u8] {
        self.keys.get(reference.key.start as usize..reference.key.end as usize).unwrap_or(&[])
    }

    /// Number of references. Zero only in the root of an empty file.
    pub(crate) fn len(&self) -> usize {
        self.references.len()
    }

    /// Reference number `index`, and the first key of what it refers to.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], &Reference)> {
        self.references.get(index).map(|reference| (self.key_of(reference), reference))
    }

    /// The last reference to what begins at or before this key and position.
    pub(crate) fn find(&self, key: &[u8], lsn: Lsn) -> Option<usize> {
        let after = self
            .references
            .partition_point(|reference| (self.key_of(reference), reference.lsn) <= (key, lsn));
        after.checked_sub(1)
    }

    /// Whether reference number `index` is what `find` gives.
    pub(crate) fn covers(&self, index: usize, key: &[u8], lsn: Lsn) -> bool {
        let is_behind =
            |reference: &Reference| (self.key_of(reference), reference.lsn) > (key, lsn);
        self.references.get(index).is_some_and(|reference| !is_behind(reference))
            && self.references.get(index + 1).is_none_or(is_behind)
    }

    /// Whether this is the first entry under the node.
    pub(crate) fn begins_with(&self, key: &[u8], lsn: Lsn) -> bool {
        self.get(0).is_some_and(|(first, reference)| first == key && reference.lsn == lsn)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.len() + size_of_val(self.references.as_slice())
    }
}

fn block_ref(input: &mut Input<'_>) -> Option<BlockRef> {
    let offset = input.varint()?;
    let length = input.varint()?.try_into().ok()?;
    Some(BlockRef { offset, length })
}

#[cfg(test)]
mod tests;
