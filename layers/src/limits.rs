//! Limits of the format, in one place.

/// Version of the format that is written. See FORMAT.md for when it is raised.
pub const FORMAT_VERSION: u32 = 1;

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 64;

/// Longest value in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// Default size in bytes that data blocks have before compression.
pub const BLOCK_BYTES_DEFAULT: usize = 32 * 1024;

/// Smallest size of data blocks that a builder can be asked for.
pub const BLOCK_BYTES_MIN: usize = 256;

/// Largest size of data blocks that a builder can be asked for.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Longest bound of a range of keys: that which follows the longest key is a byte longer.
pub(crate) const BOUND_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

/// Most bytes that the fields of an entry have besides its value.
pub(crate) const ENTRY_OVERHEAD_MAX: usize = KEY_BYTES_MAX + 64;

/// What blocks of entries may have on top of their size: this part of it. So four pages of 8 KiB, with
/// their keys, are a block of 32 KiB.
pub(crate) const BLOCK_SLACK: usize = 16;

/// Most bytes that a block of any kind has before compression: what a reader is ready to allocate.
pub(crate) const RAW_BYTES_MAX: usize =
    BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / BLOCK_SLACK + ENTRY_OVERHEAD_MAX;

/// A value in a run of its own is cut into pieces of this many bytes, the last one excepted.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// A node of the index that has grown to this size gets no further entry.
pub(crate) const NODE_BYTES: usize = 4096;

/// Most bytes that a node has: it may be one entry over `NODE_BYTES`.
pub(crate) const NODE_BYTES_MAX: usize = NODE_BYTES + ENTRY_OVERHEAD_MAX;

/// A leaf of the index whose filter has this many keys gets no further block.
pub(crate) const FILTER_KEYS: usize = 32 * 1024;

/// Highest level of a node: far more than a file of 2^64 bytes can need.
pub(crate) const LEVEL_MAX: u8 = 12;

const _: () = assert!(PIECE_BYTES <= RAW_BYTES_MAX, "a piece is a block");
const _: () = assert!(NODE_BYTES_MAX <= RAW_BYTES_MAX, "a node is a block");
// An entry has at least five bytes, one of them its own part of the key, if its key is a new one.
const _: () = assert!(
    (FILTER_KEYS + BLOCK_BYTES_MAX / 5) * crate::filter::BITS_PER_KEY / 8 + 64 <= RAW_BYTES_MAX,
    "the filter of a leaf is a block"
);
