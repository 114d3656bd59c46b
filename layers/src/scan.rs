//! All entries of a layer in a range of keys, in order.

use std::sync::Arc;

use bytes::Bytes;

use crate::blocks::Keep;
use crate::cursor::Cursor;
use crate::data_block::{DataBlock, Place};
use crate::error::ReadError;
use crate::{Entry, KeyRange, Lsn, ReadAt, Reader};

/// An iterator over entries. After an error it gives nothing more.
#[derive(Debug)]
pub struct Scan<'a, R> {
    reader: &'a Reader<R>,
    keys: KeyRange,
    state: State,
    /// What was given last.
    last: Option<(Bytes, Lsn)>,
}

#[derive(Debug)]
enum State {
    Begin,
    Within(Within),
    End,
}

/// In a block.
#[derive(Debug)]
struct Within {
    cursor: Cursor,
    block: Arc<DataBlock>,
    /// Number of the key that is next, or whose versions are being given.
    group: usize,
    /// Number of the version that is next.
    slot: usize,
}

impl<'a, R: ReadAt> Scan<'a, R> {
    pub(crate) fn new(reader: &'a Reader<R>, keys: KeyRange) -> Scan<'a, R> {
        Scan { reader, keys, state: State::Begin, last: None }
    }

    fn advance(&mut self) -> Result<Option<Entry>, ReadError> {
        let mut within = match std::mem::replace(&mut self.state, State::End) {
            State::Begin => match self.begin()? {
                Some(within) => within,
                None => return Ok(None),
            },
            State::Within(within) => within,
            State::End => return Ok(None),
        };
        loop {
            let slots = within.block.slots_of(within.group);
            if slots.contains(&within.slot) {
                return self.entry(within);
            }
            if within.group + 1 < within.block.key_count() {
                within.group += 1;
                continue;
            }
            let blocks = &self.reader.blocks;
            if !within.cursor.next(blocks)? || self.keys.ends_before(within.cursor.first_key()) {
                return Ok(None);
            }
            let Some(block) = within.cursor.block(blocks, Keep::No)? else { return Ok(None) };
            self.check_order(&within.cursor, &block)?;
            (within.block, within.group, within.slot) = (block, 0, 0);
        }
    }

    fn begin(&self) -> Result<Option<Within>, ReadError> {
        let blocks = &self.reader.blocks;
        let root = &self.reader.root;
        let start = self.keys.start.as_slice();
        // The lowest that an entry with this key can be.
        let lowest = (start, blocks.lsns.start);
        let cursor = match Cursor::seek(blocks, root, lowest)? {
            Some(cursor) => Some(cursor),
            None => Cursor::first(blocks, root)?,
        };
        let Some(cursor) = cursor else { return Ok(None) };
        let Some(block) = cursor.block(blocks, Keep::No)? else { return Ok(None) };
        let (group, _) = block.find(start);
        let slot = match block.slots_of(group) {
            slots if slots.is_empty() => block.entry_count(),
            slots => slots.start,
        };
        Ok(Some(Within { cursor, block, group, slot }))
    }

    fn check_order(&self, cursor: &Cursor, block: &DataBlock) -> Result<(), ReadError> {
        let first = (block.key(0), block.slot(0).map_or(Lsn::INVALID, |slot| slot.lsn));
        if self.last.as_ref().is_some_and(|last| *last >= first) {
            let what = "a block does not come after the one before it";
            return Err(ReadError::corrupt(cursor.offset())(what));
        }
        Ok(())
    }

    fn entry(&mut self, mut within: Within) -> Result<Option<Entry>, ReadError> {
        let key = within.block.key(within.group);
        if self.keys.ends_before(&key) {
            return Ok(None);
        }
        let Some(slot) = within.block.slot(within.slot) else { return Ok(None) };
        let Some(place) = within.block.place(slot) else { return Ok(None) };
        let value = match place {
            Place::Here(value) => value,
            Place::Run(run) => self.reader.blocks.value(&run, &key, slot.kind)?.into(),
        };
        let entry = Entry { key: key.clone(), lsn: slot.lsn, kind: slot.kind, value };
        self.last = Some((key, slot.lsn));
        within.slot += 1;
        self.state = State::Within(within);
        Ok(Some(entry))
    }
}

impl<R: ReadAt> Iterator for Scan<'_, R> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
