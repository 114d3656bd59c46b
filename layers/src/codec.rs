//! Compression of blocks.

use std::cell::RefCell;
use std::io;

use crate::spare;

/// How a builder compresses. Readers read them all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4, its block format: fast both ways.
    Lz4,
    /// Zstandard at this level (from 1, fast, to 22; negative ones are faster, and leave what is not repeated as it is).
    Zstd {
        /// The level.
        level: i32,
    },
    /// Zstandard, each block at the level that suits it: at -1, which is read half again as fast as 1, where
    /// that makes it small, and else at 1.
    Adaptive,
}

impl Default for Compression {
    /// What README.md gives the figures for.
    fn default() -> Self {
        Compression::Zstd { level: 1 }
    }
}

/// What `Compression::Adaptive` tries first, and then.
const LEVELS: [i32; 2] = [-1, 1];
/// A block is small if this part of it is left. Of one that consists of repetitions mostly, the other level would take
/// hardly more away.
const SMALL_PART: usize = 5;

/// How a block is stored: a code in its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Codec {
    None,
    Lz4,
    Zstd,
}

impl Codec {
    pub(crate) fn code(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Codec> {
        match code {
            0 => Some(Codec::None),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// Compresses one block after the other.
pub(crate) struct Compressor {
    method: Method,
    buffer: Vec<u8>,
}

enum Method {
    None,
    Lz4,
    /// One level after the other, until a block is small.
    Zstd(Vec<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> io::Result<Compressor> {
        let method = match compression {
            Compression::None => Method::None,
            Compression::Lz4 => Method::Lz4,
            Compression::Zstd { level } => Method::Zstd(vec![zstd::bulk::Compressor::new(level)?]),
            Compression::Adaptive => {
                let levels = LEVELS.into_iter().map(zstd::bulk::Compressor::new);
                Method::Zstd(levels.collect::<io::Result<_>>()?)
            }
        };
        Ok(Compressor { method, buffer: Vec::new() })
    }

    /// How `raw` is to be stored: as it is, unless compression makes it smaller.
    pub(crate) fn compress<'a>(&'a mut self, raw: &'a [u8]) -> io::Result<(Codec, &'a [u8])> {
        let (codec, length) = match &mut self.method {
            Method::None => return Ok((Codec::None, raw)),
            Method::Lz4 => {
                let bound = lz4_flex::block::get_maximum_output_size(raw.len());
                self.buffer.resize(self.buffer.len().max(bound), 0);
                let length = lz4_flex::block::compress_into(raw, &mut self.buffer)
                    .map_err(io::Error::other)?;
                (Codec::Lz4, length)
            }
            Method::Zstd(contexts) => {
                let bound = zstd::zstd_safe::compress_bound(raw.len());
                self.buffer.resize(self.buffer.len().max(bound), 0);
                let mut length = 0;
                for context in contexts.iter_mut() {
                    length = context.compress_to_buffer(raw, self.buffer.as_mut_slice())?;
                    if length <= raw.len() / SMALL_PART {
                        break;
                    }
                }
                (Codec::Zstd, length)
            }
        };
        match self.buffer.get(..length) {
            Some(compressed) if length < raw.len() => Ok((codec, compressed)),
            _ => Ok((Codec::None, raw)),
        }
    }
}

thread_local! {
    /// Making a context costs more than decompressing a block with it.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// What was compressed to `stored`: exactly `raw_len` bytes, which the caller has found acceptable.
pub(crate) fn decompress(codec: Codec, stored: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    let raw = match codec {
        Codec::None => {
            let mut raw = spare::take(stored.len());
            raw.extend_from_slice(stored);
            raw
        }
        Codec::Lz4 => {
            let mut raw = vec![0; raw_len];
            let length = lz4_flex::block::decompress_into(stored, &mut raw).ok()?;
            raw.truncate(length);
            raw
        }
        Codec::Zstd => ZSTD.with_borrow_mut(|context| {
            if context.is_none() {
                *context = zstd::bulk::Decompressor::new().ok();
            }
            // Not filled with zeros first: whatever becomes a part of it has been written.
            let mut raw = spare::take(raw_len);
            context.as_mut()?.decompress_to_buffer(stored, &mut raw).ok()?;
            Some(raw)
        })?,
    };
    (raw.len() == raw_len).then_some(raw)
}
