//! The versions of one key in a layer, newest first.

use std::ops::Range;
use std::sync::Arc;

use crate::blocks::Keep;
use crate::cursor::Cursor;
use crate::data_block::{DataBlock, Place};
use crate::error::ReadError;
use crate::filter;
use crate::{LayerKind, Lsn, ReadAt, Reader, Version};

/// An iterator over versions. After an error it gives nothing more.
#[derive(Debug)]
pub struct Versions<'a, R> {
    reader: &'a Reader<R>,
    key: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was read yet. The position is the highest that is wanted.
    Begin(Lsn),
    Within(Within),
    End,
}

/// In a block.
#[derive(Debug)]
struct Within {
    cursor: Cursor,
    block: Arc<DataBlock>,
    /// Those versions of the block that are still to be given, from the back.
    slots: Range<usize>,
    /// The key is the first of the block: it may have older versions in the block before.
    first_key: bool,
    /// Lower than all given so far.
    below: Option<Lsn>,
}

impl<'a, R: ReadAt> Versions<'a, R> {
    pub(crate) fn new(reader: &'a Reader<R>, key: &[u8], lsn_max: Lsn) -> Versions<'a, R> {
        let possible = reader.footer.summary.keys.contains(key)
            && reader
                .footer
                .summary
                .entry_lsns
                .as_ref()
                .is_some_and(|lsns| *lsns.start() <= lsn_max);
        let state = if possible { State::Begin(lsn_max) } else { State::End };
        Versions { reader, key: key.to_vec(), state }
    }

    fn advance(&mut self) -> Result<Option<Version>, ReadError> {
        let mut within = match std::mem::replace(&mut self.state, State::End) {
            State::Begin(lsn_max) => match self.begin(lsn_max)? {
                Some(within) => within,
                None => return Ok(None),
            },
            State::Within(within) => within,
            State::End => return Ok(None),
        };
        loop {
            if let Some(slot) = within.slots.next_back() {
                let version = self.version(&mut within, slot)?;
                self.state = State::Within(within);
                return Ok(version);
            }
            if !within.first_key || !self.previous(&mut within)? {
                return Ok(None);
            }
        }
    }

    fn begin(&self, lsn_max: Lsn) -> Result<Option<Within>, ReadError> {
        let blocks = &self.reader.blocks;
        let hash = Some(filter::hash(&self.key));
        let target = (self.key.as_slice(), lsn_max);
        let Some(cursor) = Cursor::seek(blocks, &self.reader.root, target, hash)? else {
            return Ok(None);
        };
        let Some(block) = cursor.block(blocks, Keep::Yes)? else { return Ok(None) };
        let (group, true) = block.find(&self.key) else { return Ok(None) };
        let slots = block.slots_up_to(group, lsn_max);
        // An image has no older version that could be in the block before.
        let first_key = group == 0 && self.reader.kind() == LayerKind::Delta;
        Ok(Some(Within { cursor, block, slots, first_key, below: None }))
    }

    /// Goes to the block before; `false` if it has no version of the key.
    fn previous(&self, within: &mut Within) -> Result<bool, ReadError> {
        let blocks = &self.reader.blocks;
        if !within.cursor.previous(blocks)? {
            return Ok(false);
        }
        let Some(block) = within.cursor.block(blocks, Keep::Yes)? else { return Ok(false) };
        let last = block.key_count() - 1;
        if block.key(last) != self.key {
            return Ok(false);
        }
        within.slots = block.slots_of(last);
        within.first_key = last == 0;
        within.block = block;
        Ok(true)
    }

    fn version(&self, within: &mut Within, slot: usize) -> Result<Option<Version>, ReadError> {
        let Some(slot) = within.block.slot(slot) else { return Ok(None) };
        if within.below.is_some_and(|below| slot.lsn >= below) {
            let what = "the versions of a key are not in order over blocks";
            return Err(ReadError::corrupt(within.cursor.offset())(what));
        }
        within.below = Some(slot.lsn);
        let Some(place) = within.block.place(slot) else { return Ok(None) };
        let value = match place {
            Place::Here(value) => value,
            Place::Run(run) => self.reader.blocks.value(&run)?.into(),
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
