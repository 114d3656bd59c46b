//! Writes blocks one after the other into the caller's sink.

use std::io::Write;

use crate::FileId;
use crate::block::{self, BlockKind, BlockRef};
use crate::codec::{Codec, Compressor};
use crate::error::BuildError;

/// The sink, and how far it is filled.
pub(crate) struct BlockWriter<W> {
    sink: W,
    file: FileId,
    compressor: Compressor,
    offset: u64,
    /// A write failed: what the sink has is not known.
    failed: bool,
    /// Kept, so that not every block allocates.
    buffer: Vec<u8>,
    /// Sums over blocks of entries and values: before compression, and as they stand in the file.
    pub(crate) raw_bytes: u64,
    pub(crate) stored_bytes: u64,
}

impl<W: Write> BlockWriter<W> {
    pub(crate) fn new(sink: W, file: FileId, compressor: Compressor) -> BlockWriter<W> {
        BlockWriter {
            sink,
            file,
            compressor,
            offset: 0,
            failed: false,
            buffer: Vec::new(),
            raw_bytes: 0,
            stored_bytes: 0,
        }
    }

    /// How many bytes the sink has got.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// An error once a write has failed.
    pub(crate) fn usable(&self) -> Result<(), BuildError> {
        if self.failed { Err(BuildError::Failed) } else { Ok(()) }
    }

    /// Writes bytes that are no block.
    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        self.usable()?;
        self.failed = true;
        let offset = self.offset;
        self.sink.write_all(bytes).map_err(|source| BuildError::Io { offset, source })?;
        self.offset += bytes.len() as u64;
        self.failed = false;
        Ok(())
    }

    /// Writes a block. Entries and values are compressed; the index and filters are read a few bytes
    /// at a time, and filters would not shrink.
    pub(crate) fn write(&mut self, kind: BlockKind, raw: &[u8]) -> Result<BlockRef, BuildError> {
        self.usable()?;
        let offset = self.offset;
        let mut block = std::mem::take(&mut self.buffer);
        block.clear();
        let content = matches!(kind, BlockKind::Data | BlockKind::Value);
        let stored = if content {
            match self.compressor.compress(raw) {
                Ok(stored) => stored,
                Err(source) => {
                    self.failed = true;
                    return Err(BuildError::Io { offset, source });
                }
            }
        } else {
            (Codec::None, raw)
        };
        block::encode(&mut block, &self.file, offset, kind, raw.len(), stored);
        self.write_bytes(&block)?;
        if content {
            self.raw_bytes += raw.len() as u64;
            self.stored_bytes += block.len() as u64;
        }
        let length = block.len() as u32;
        self.buffer = block;
        Ok(BlockRef { offset, length })
    }

    /// Hands what is buffered on, and the sink back.
    pub(crate) fn finish(mut self) -> Result<W, BuildError> {
        let offset = self.offset;
        self.sink.flush().map_err(|source| BuildError::Io { offset, source })?;
        Ok(self.sink)
    }
}
