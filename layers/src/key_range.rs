//! A range of keys.

use crate::limits::BOUND_BYTES_MAX;

/// Keys from `start` up to, but without, `end`.
///
/// A bound may be one byte longer than a key: the smallest bound beyond a key is that key with a zero
/// byte after it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct KeyRange {
    /// The first key, if it is there. Empty: no lower bound.
    pub start: Vec<u8>,
    /// Greater than all keys. `None`: no upper bound.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub const ALL: KeyRange = KeyRange { start: Vec::new(), end: None };

    /// From `start` up to, but without, `end`.
    pub fn new(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> KeyRange {
        KeyRange { start: start.into(), end: Some(end.into()) }
    }

    /// One key.
    pub fn of_key(key: &[u8]) -> KeyRange {
        KeyRange { start: key.to_vec(), end: Some(bound_after(key)) }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        (self.start.is_empty() || self.start.as_slice() <= key) && !self.ends_before(key)
    }

    /// Whether `key` and all keys that follow it are beyond the range.
    pub(crate) fn ends_before(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| end.as_slice() <= key)
    }

    /// The length of a bound that is too long.
    pub(crate) fn too_long(&self) -> Option<usize> {
        let end = self.end.as_ref().map_or(0, Vec::len);
        Some(self.start.len().max(end)).filter(|&length| length > BOUND_BYTES_MAX)
    }
}

/// The smallest bound that is greater than `key`.
pub(crate) fn bound_after(key: &[u8]) -> Vec<u8> {
    let mut bound = key.to_vec();
    bound.push(0);
    bound
}
