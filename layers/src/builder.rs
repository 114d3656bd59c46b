//! Writes a layer file, front to back, from entries in order.

use std::io::Write;
use std::ops::Range;

use crate::block::BlockKind;
use crate::block_writer::BlockWriter;
use crate::codec::{Compression, Compressor};
use crate::data_block::{DataBlockBuilder, ValueRef};
use crate::error::BuildError;
use crate::footer::{FOOTER_BYTES, Footer, Summary};
use crate::header::Header;
use crate::index_builder::IndexBuilder;
use crate::limits::{
    BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCK_SLACK, BOUND_BYTES_MAX,
    ENTRY_OVERHEAD_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::node::Child;
use crate::value_run;
use crate::{FileId, KeyRange, LayerKind, Lsn, Owner};

/// What a file is to be, as is known when it is begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerSpec {
    /// Its id, which no other file has or will have.
    pub file: FileId,
    /// Whose it is.
    pub owner: Owner,
    /// What it says about its keys.
    pub kind: LayerKind,
    /// The positions that it covers. Of an image, one.
    pub lsns: Range<Lsn>,
}

/// How a file is written. Readers need not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// How blocks are compressed.
    pub compression: Compression,
    /// Size in bytes that blocks of entries have before compression, give or take a sixteenth. A value
    /// that is longer is stored beside them. At least `limits::BLOCK_BYTES_MIN` and at most `limits::BLOCK_BYTES_MAX`.
    pub block_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { compression: Compression::default(), block_bytes: BLOCK_BYTES_DEFAULT }
    }
}

/// Takes entries in order and writes them to a sink.
///
/// What is in memory does not depend on how many entries there are: a block of entries, the index's open
/// nodes, and a hash for each of some ten thousand keys. Nothing is created, synced or renamed here; what
/// the sink has got is a file only after `finish`.
pub struct Builder<W> {
    writer: BlockWriter<W>,
    index: IndexBuilder,
    block: DataBlockBuilder,
    header: Header,
    block_bytes: usize,
    first_key: Vec<u8>,
    last: Option<(Vec<u8>, Lsn)>,
    entry_count: u64,
    key_count: u64,
    block_count: u64,
    lowest: Lsn,
    highest: Lsn,
}

impl<W: Write> Builder<W> {
    /// Begins a file: writes its header to `sink`.
    pub fn new(sink: W, spec: LayerSpec, options: &Options) -> Result<Builder<W>, BuildError> {
        let LayerSpec { file, owner, kind, lsns } = spec;
        let header = Header { file, owner, kind, lsns };
        if let Some(fault) = header.fault() {
            return Err(BuildError::Unusable(fault));
        }
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&options.block_bytes) {
            return Err(BuildError::Unusable("the size of blocks is out of range"));
        }
        let compressor = Compressor::new(options.compression)
            .map_err(|_| BuildError::Unusable("the compression cannot be used"))?;
        let mut writer = BlockWriter::new(sink, file, compressor);
        writer.write_bytes(&header.encode())?;
        Ok(Builder {
            writer,
            index: IndexBuilder::new(header.lsns.start),
            block: DataBlockBuilder::default(),
            header,
            block_bytes: options.block_bytes,
            first_key: Vec::new(),
            last: None,
            entry_count: 0,
            key_count: 0,
            block_count: 0,
            lowest: Lsn::MAX,
            highest: Lsn::INVALID,
        })
    }

    /// Adds an entry. It must come after the one before it, by key and then by position.
    ///
    /// After an error that is not of the sink the file can go on with other entries.
    pub fn add(&mut self, key: &[u8], lsn: Lsn, kind: u8, value: &[u8]) -> Result<(), BuildError> {
        self.writer.usable()?;
        let same_key = self.check(key, lsn, value)?;
        let inline = value.len() <= self.block_bytes;
        let needed = if inline { value.len() } else { 0 } + key.len() + ENTRY_ROUGHLY;
        if self.block.raw().len() + needed > self.block_bytes + self.block_bytes / BLOCK_SLACK {
            self.flush_block()?;
        }
        if self.block.is_empty() {
            self.index.make_room(&mut self.writer)?;
        }
        if !same_key || self.block.is_empty() {
            self.index.add_key(key);
        }
        let value = match inline {
            true => ValueRef::Inline(value),
            false => ValueRef::Run(value_run::write(&mut self.writer, value)?),
        };
        self.block.add(key, lsn, self.header.lsns.start, kind, value);
        self.count(key, lsn, same_key);
        Ok(())
    }

    /// Whether the entry has the key of the one before it; an error if it cannot be added.
    fn check(&self, key: &[u8], lsn: Lsn, value: &[u8]) -> Result<bool, BuildError> {
        too_long("key", key.len(), KEY_BYTES_MAX)?;
        too_long("value", value.len(), VALUE_BYTES_MAX)?;
        if !self.header.lsns.contains(&lsn) {
            return Err(BuildError::LsnOutOfRange { lsn });
        }
        let Some((last_key, last_lsn)) = &self.last else { return Ok(false) };
        if (last_key.as_slice(), *last_lsn) >= (key, lsn) {
            return Err(BuildError::Unsorted { lsn });
        }
        Ok(last_key == key)
    }

    fn count(&mut self, key: &[u8], lsn: Lsn, same_key: bool) {
        self.entry_count += 1;
        self.key_count += u64::from(!same_key);
        self.lowest = self.lowest.min(lsn);
        self.highest = self.highest.max(lsn);
        match &mut self.last {
            Some((last_key, last_lsn)) => {
                last_key.clear();
                last_key.extend_from_slice(key);
                *last_lsn = lsn;
            }
            None => {
                self.first_key = key.to_vec();
                self.last = Some((key.to_vec(), lsn));
            }
        }
    }

    fn flush_block(&mut self) -> Result<(), BuildError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = self.writer.write(BlockKind::Data, self.block.raw())?;
        if let Some((key, lsn)) = self.block.clear() {
            self.index.add_block(Child { key, lsn, block, filter: None });
            self.block_count += 1;
        }
        Ok(())
    }

    /// How many bytes the sink has got. What is still in memory, and the end of the file, comes on top:
    /// less than two blocks and some dozen KiB.
    pub fn bytes_written(&self) -> u64 {
        self.writer.offset()
    }

    /// Number of entries so far.
    pub fn entry_count(&self) -> u64 {
        self.entry_count
    }

    /// The last key that was added.
    pub fn last_key(&self) -> Option<&[u8]> {
        self.last.as_ref().map(|(key, _)| key.as_slice())
    }

    /// Ends the file, which speaks of the keys in `keys`, those that it does not have included. Gives back
    /// the sink, flushed; to sync and name the file is the caller's part.
    pub fn finish(mut self, keys: KeyRange) -> Result<(Summary, W), BuildError> {
        if let Some(bytes) = keys.too_long() {
            too_long("bound", bytes, BOUND_BYTES_MAX)?;
        }
        let all_within = self
            .last
            .as_ref()
            .is_none_or(|(last, _)| keys.contains(&self.first_key) && keys.contains(last));
        if !all_within {
            return Err(BuildError::KeysOutOfRange);
        }
        self.flush_block()?;
        let root = self.index.finish(&mut self.writer)?;
        let summary = Summary {
            keys,
            entry_count: self.entry_count,
            key_count: self.key_count,
            block_count: self.block_count,
            entry_lsns: (self.entry_count > 0).then_some(self.lowest..=self.highest),
            raw_bytes: self.writer.raw_bytes,
            stored_bytes: self.writer.stored_bytes,
            file_bytes: self.writer.offset() + FOOTER_BYTES as u64,
        };
        let footer = Footer {
            file: self.header.file,
            root: root.block,
            root_filter: root.filter,
            summary: summary.clone(),
        };
        self.writer.write_bytes(&footer.encode())?;
        Ok((summary, self.writer.finish()?))
    }
}

/// What the fields of an entry, key and value apart, are taken to need when blocks are cut.
const ENTRY_ROUGHLY: usize = 12;
const _: () = assert!(KEY_BYTES_MAX + ENTRY_ROUGHLY < BLOCK_BYTES_MIN);
const _: () = assert!(ENTRY_ROUGHLY < ENTRY_OVERHEAD_MAX);

fn too_long(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), BuildError> {
    if bytes > bytes_max { Err(BuildError::TooLong { what, bytes, bytes_max }) } else { Ok(()) }
}
