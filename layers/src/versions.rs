//! The versions of one key in a layer, newest first.

use std::ops::Range;
use std::sync::Arc;

use crate::blocks::Keep;
use crate::cursor::Cursor;
use crate::data_block::{DataBlock, Place};
use crate::error::ReadError;
use crate::walk::{Found, Walk};
use crate::{LayerKind, Lsn, ReadAt, Reader, Version};

/// An iterator over versions. After an error it gives nothing more.
#[derive(Debug)]
pub struct Versions<'a, R> {
    reader: &'a Reader<R>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was read yet. The position is the highest that is wanted.
    Begin(Vec<u8>, Lsn),
    Within(Within),
    End,
}

/// In a block.
#[derive(Debug)]
struct Within {
    /// Where the block begins, in bytes from the beginning of the file.
    offset: u64,
    block: Arc<DataBlock>,
    /// The number of the key in the block.
    group: usize,
    /// Those versions of the block that are still to be given, from the back.
    slots: Range<usize>,
    /// Lower than all given so far.
    below: Option<Lsn>,
}

impl<'a, R: ReadAt> Versions<'a, R> {
    pub(crate) fn new(reader: &'a Reader<R>, key: &[u8], lsn_max: Lsn) -> Versions<'a, R> {
        let state = match reader.may_have(key, lsn_max) {
            true => State::Begin(key.to_vec(), lsn_max),
            false => State::End,
        };
        Versions { reader, state }
    }

    /// No versions.
    pub(crate) fn none(reader: &'a Reader<R>) -> Versions<'a, R> {
        Versions { reader, state: State::End }
    }

    /// Those in `slots` of key number `group` of the block at `offset`, and those in blocks before.
    pub(crate) fn at(
        reader: &'a Reader<R>,
        offset: u64,
        block: Arc<DataBlock>,
        group: usize,
        slots: Range<usize>,
    ) -> Versions<'a, R> {
        let within = Within { offset, block, group, slots, below: None };
        Versions { reader, state: State::Within(within) }
    }

    fn advance(&mut self) -> Result<Option<Version>, ReadError> {
        let mut within = match std::mem::replace(&mut self.state, State::End) {
            State::Begin(key, lsn_max) => {
                let mut walk = Walk::new(self.reader);
                let Some(Found { offset, block, group }) = walk.find(&key, lsn_max)? else {
                    return Ok(None);
                };
                let slots = block.slots_up_to(group, lsn_max);
                Within { offset, block: block.clone(), group, slots, below: None }
            }
            State::Within(within) => within,
            State::End => return Ok(None),
        };
        loop {
            if let Some(slot) = within.slots.next_back() {
                let version = self.version(&mut within, slot)?;
                self.state = State::Within(within);
                return Ok(version);
            }
            // An image has no older version that could be in the block before.
            let may_go_on = within.group == 0 && self.reader.kind() == LayerKind::Delta;
            if !may_go_on || !self.previous(&mut within)? {
                return Ok(None);
            }
        }
    }

    /// Goes to the block before; `false` if it has no version of the key.
    fn previous(&self, within: &mut Within) -> Result<bool, ReadError> {
        let blocks = &self.reader.blocks;
        let key = within.block.key(0);
        let first = within.block.slot(0).map_or(Lsn::INVALID, |slot| slot.lsn);
        let cursor = Cursor::seek(blocks, &self.reader.root, (&key, first))?;
        let Some(mut cursor) = cursor.filter(|cursor| cursor.offset() == within.offset) else {
            let what = "a block is not where the index says";
            return Err(ReadError::corrupt(within.offset)(what));
        };
        if !cursor.previous(blocks)? {
            return Ok(false);
        }
        let Some(block) = cursor.block(blocks, Keep::Yes)? else { return Ok(false) };
        let last = block.key_count() - 1;
        if block.key(last) != key {
            return Ok(false);
        }
        within.slots = block.slots_of(last);
        within.group = last;
        within.offset = cursor.offset();
        within.block = block;
        Ok(true)
    }

    fn version(&self, within: &mut Within, slot: usize) -> Result<Option<Version>, ReadError> {
        let Some(slot) = within.block.slot(slot) else { return Ok(None) };
        if within.below.is_some_and(|below| slot.lsn >= below) {
            let what = "the versions of a key are not in order over blocks";
            return Err(ReadError::corrupt(within.offset)(what));
        }
        within.below = Some(slot.lsn);
        let Some(place) = within.block.place(slot) else { return Ok(None) };
        let value = match place {
            Place::Here(value) => value,
            Place::Run(run) => {
                let key = within.block.key(within.group);
                self.reader.blocks.value(&run, &key, slot.kind)?.into()
            }
        };
        Ok(Some(Version { lsn: slot.lsn, kind: slot.kind, value }))
    }
}

impl<R: ReadAt> Iterator for Versions<'_, R> {
    type Item = Result<Version, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
