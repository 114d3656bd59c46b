//! A block of entries, written and read.
//!
//! Each entry: how many bytes of its key are those of the key before it, the others; the position, from
//! the version before it of the same key, or else from the beginning of the file's range; the kind; and
//! the value, or where it is. A block is understood without any other.

use std::ops::Range;

use bytes::Bytes;

use crate::Lsn;
use crate::blocks::Finish;
use crate::input::Input;
use crate::limits::KEY_BYTES_MAX;
use crate::value_run::Run;
use crate::{spare, varint};

/// How an entry's value is given to a block.
#[derive(Clone, Copy)]
pub(crate) enum ValueRef<'a> {
    Inline(&'a [u8]),
    Run(Run),
}

/// A block that is being filled.
#[derive(Default)]
pub(crate) struct DataBlockBuilder {
    raw: Vec<u8>,
    last: Option<(Vec<u8>, Lsn)>,
    first: Option<(Vec<u8>, Lsn)>,
}

impl DataBlockBuilder {
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds an entry. The caller has checked that it comes after the last one, and not before `base`,
    /// where the file's range begins.
    pub(crate) fn add(&mut self, key: &[u8], lsn: Lsn, base: Lsn, kind: u8, value: ValueRef<'_>) {
        let (shared, from) = match &self.last {
            Some((last, last_lsn)) if last == key => (key.len(), *last_lsn),
            Some((last, _)) => (shared_prefix(last, key), base),
            None => (0, base),
        };
        varint::put(&mut self.raw, shared as u64);
        varint::put(&mut self.raw, (key.len() - shared) as u64);
        self.raw.extend(key.iter().skip(shared));
        varint::put(&mut self.raw, lsn.as_u64() - from.as_u64());
        self.raw.push(kind);
        match value {
            ValueRef::Inline(bytes) => {
                varint::put(&mut self.raw, (bytes.len() as u64) << 1);
                self.raw.extend_from_slice(bytes);
            }
            ValueRef::Run(run) => {
                varint::put(&mut self.raw, u64::from(run.value_bytes) << 1 | 1);
                varint::put(&mut self.raw, run.offset);
                varint::put(&mut self.raw, run.stored_bytes);
            }
        }
        match &mut self.last {
            Some((last, last_lsn)) => {
                last.truncate(shared);
                last.extend(key.iter().skip(shared));
                *last_lsn = lsn;
            }
            None => {
                self.first = Some((key.to_vec(), lsn));
                self.last = self.first.clone();
            }
        }
    }

    /// Makes it empty; gives its first key and position, if it had any.
    pub(crate) fn clear(&mut self) -> Option<(Vec<u8>, Lsn)> {
        self.raw.clear();
        self.last = None;
        self.first.take()
    }
}

/// Number of bytes with which both begin.
pub(crate) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The versions of one key in a block.
#[derive(Clone, Debug)]
struct Group {
    /// Where the key is in `DataBlock::keys`.
    key: Range<u32>,
    /// Its versions in `DataBlock::slots`.
    slots: Range<u32>,
}

/// One version.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) lsn: Lsn,
    /// Of an inline value: where it is in the block. Else: which of `DataBlock::runs` it is.
    at: u32,
    length: u32,
    pub(crate) kind: u8,
    inline: bool,
}

/// Where the value of a version is.
pub(crate) enum Place {
    Here(Bytes),
    Run(Run),
}

/// A block as it was read: all of it checked.
#[derive(Debug)]
pub(crate) struct DataBlock {
    raw: Bytes,
    keys: Bytes,
    groups: Vec<Group>,
    slots: Vec<Slot>,
    runs: Vec<Run>,
}

impl DataBlock {
    /// Reads a block whose entries have positions in `lsns` and whose long values end no later than at
    /// `offset`, where the block itself begins. `finish` makes the other values ready.
    pub(crate) fn parse(
        mut raw: Vec<u8>,
        lsns: &Range<Lsn>,
        offset: u64,
        finish: Option<Finish>,
    ) -> Result<DataBlock, &'static str> {
        let mut parser = Parser::new(lsns);
        let mut input = Input::new(&raw);
        while !input.is_empty() {
            parser.entry(&mut input)?;
        }
        if parser.groups.is_empty() {
            return Err("a block of entries has none");
        }
        if parser.runs.iter().any(|run| run.fault().is_some() || run.end() > offset) {
            return Err("a long value cannot be where it is said to be");
        }
        let Parser { keys, groups, slots, runs, .. } = parser;
        if let Some(finish) = finish {
            for group in &groups {
                let key = keys.get(group.key.start as usize..group.key.end as usize).unwrap_or(&[]);
                let own = group.slots.start as usize..group.slots.end as usize;
                for slot in slots.get(own).unwrap_or(&[]).iter().filter(|slot| slot.inline) {
                    let value = slot.at as usize..slot.at as usize + slot.length as usize;
                    if let Some(value) = raw.get_mut(value) {
                        finish(key, slot.kind, value);
                    }
                }
            }
        }
        Ok(DataBlock { raw: spare::share(raw), keys: keys.into(), groups, slots, runs })
    }

    /// Number of different keys: at least one.
    pub(crate) fn key_count(&self) -> usize {
        self.groups.len()
    }

    /// Key number `group`; empty if there are fewer.
    pub(crate) fn key(&self, group: usize) -> Bytes {
        self.groups.get(group).map_or(Bytes::new(), |group| {
            self.keys.slice(group.key.start as usize..group.key.end as usize)
        })
    }

    fn key_ref(&self, group: &Group) -> &[u8] {
        self.keys.get(group.key.start as usize..group.key.end as usize).unwrap_or(&[])
    }

    /// Numbers of the versions of key number `group`.
    pub(crate) fn slots_of(&self, group: usize) -> Range<usize> {
        self.groups
            .get(group)
            .map_or(0..0, |group| group.slots.start as usize..group.slots.end as usize)
    }

    /// Those of them at or before `lsn_max`.
    pub(crate) fn slots_up_to(&self, group: usize, lsn_max: Lsn) -> Range<usize> {
        let all = self.slots_of(group);
        let slots = self.slots.get(all.clone()).unwrap_or(&[]);
        all.start..all.start + slots.partition_point(|slot| slot.lsn <= lsn_max)
    }

    /// Version number `slot`.
    pub(crate) fn slot(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    /// Number of the first key that is not less than `key`, and whether it is `key`.
    pub(crate) fn find(&self, key: &[u8]) -> (usize, bool) {
        match self.groups.binary_search_by(|group| self.key_ref(group).cmp(key)) {
            Ok(group) => (group, true),
            Err(group) => (group, false),
        }
    }

    /// Where the value of `slot` is.
    pub(crate) fn place(&self, slot: &Slot) -> Option<Place> {
        let at = slot.at as usize;
        if !slot.inline {
            return self.runs.get(at).copied().map(Place::Run);
        }
        let range = at..at + slot.length as usize;
        (range.end <= self.raw.len()).then(|| Place::Here(self.raw.slice(range)))
    }

    /// Long values of the block, in the order of their entries.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Number of entries.
    pub(crate) fn entry_count(&self) -> usize {
        self.slots.len()
    }

    /// Size in bytes before compression.
    pub(crate) fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// Whether this is the first entry.
    pub(crate) fn begins_with(&self, key: &[u8], lsn: Lsn) -> bool {
        self.groups.first().is_some_and(|group| self.key_ref(group) == key)
            && self.slots.first().is_some_and(|slot| slot.lsn == lsn)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.raw.len()
            + self.keys.len()
            + size_of_val(self.groups.as_slice())
            + size_of_val(self.slots.as_slice())
            + size_of_val(self.runs.as_slice())
    }
}

struct Parser<'a> {
    lsns: &'a Range<Lsn>,
    keys: Vec<u8>,
    groups: Vec<Group>,
    slots: Vec<Slot>,
    runs: Vec<Run>,
}

impl<'a> Parser<'a> {
    fn new(lsns: &'a Range<Lsn>) -> Parser<'a> {
        // As much as four pages need.
        Parser {
            lsns,
            keys: Vec::with_capacity(128),
            groups: Vec::with_capacity(4),
            slots: Vec::with_capacity(4),
            runs: Vec::new(),
        }
    }

    fn entry(&mut self, input: &mut Input<'_>) -> Result<(), &'static str> {
        const SHORT: &str = "an entry is cut off";
        let shared = input.length().ok_or(SHORT)?;
        let own = input.length().and_then(|length| input.bytes(length)).ok_or(SHORT)?;
        let same_key = self.key(shared, own)?;
        let delta = input.varint().ok_or(SHORT)?;
        let from = match self.slots.last() {
            Some(last) if same_key => last.lsn,
            _ => self.lsns.start,
        };
        let lsn = from
            .checked_add(delta)
            .filter(|lsn| self.lsns.contains(lsn))
            .ok_or("the position of an entry lies outside the file's range")?;
        if same_key && delta == 0 {
            return Err("two entries have the same key and position");
        }
        let kind = input.u8().ok_or(SHORT)?;
        let length = input.varint().ok_or(SHORT)?;
        let inline = length & 1 == 0;
        let length = u32::try_from(length >> 1).map_err(|_| "a value is too long")?;
        let at = if inline {
            let at = input.position();
            input.bytes(length as usize).ok_or("a value is longer than its block")?;
            at
        } else {
            let offset = input.varint().ok_or(SHORT)?;
            let stored_bytes = input.varint().ok_or(SHORT)?;
            self.runs.push(Run { offset, stored_bytes, value_bytes: length });
            self.runs.len() - 1
        };
        self.slots.push(Slot { lsn, at: at as u32, length, kind, inline });
        if let Some(group) = self.groups.last_mut() {
            group.slots.end = self.slots.len() as u32;
        }
        Ok(())
    }

    /// Takes the key in; gives whether it is that of the entry before.
    fn key(&mut self, shared: usize, own: &[u8]) -> Result<bool, &'static str> {
        let last = match self.groups.last() {
            Some(group) => group.key.start as usize..group.key.end as usize,
            None if shared == 0 => 0..0,
            None => return Err("the first key of a block refers to one before it"),
        };
        let last_key = self.keys.get(last.clone()).unwrap_or(&[]);
        if !self.groups.is_empty() && shared == last_key.len() && own.is_empty() {
            return Ok(true);
        }
        let (prefix, replaced) =
            last_key.split_at_checked(shared).ok_or("a key shares more than there is")?;
        if prefix.len() + own.len() > KEY_BYTES_MAX {
            return Err("a key is too long");
        }
        if !self.groups.is_empty() && own <= replaced {
            return Err("the keys of a block are not in order");
        }
        let start = self.keys.len() as u32;
        self.keys.extend_from_within(last.start..last.start + shared);
        self.keys.extend_from_slice(own);
        let slots = self.slots.len() as u32;
        self.groups.push(Group { key: start..self.keys.len() as u32, slots: slots..slots });
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
