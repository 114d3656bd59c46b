//! What a file is and whose it is.

use std::fmt;

/// Names one file among all that ever were: chosen at random by the caller, who is the one to know.
///
/// It goes into the checksum of every block and is the key of cached blocks, so two files of
/// different content must never share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub [u8; 16]);

/// Whose file it is: any 16 bytes of the caller's, to notice a file that was put in a wrong place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub [u8; 16]);

fn write_hex(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// What a layer says about the keys in its range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LayerKind {
    /// All versions of the keys with positions in the layer's range of them.
    Delta,
    /// The value of every key that exists at one position; a key that is not there does not exist.
    Image,
}

impl LayerKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            LayerKind::Delta => 1,
            LayerKind::Image => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<LayerKind> {
        match code {
            1 => Some(LayerKind::Delta),
            2 => Some(LayerKind::Image),
            _ => None,
        }
    }
}
