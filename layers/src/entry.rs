//! What readers give out.

use bytes::Bytes;

use crate::Lsn;

/// A version of a key that the caller knows.
///
/// A short value is part of the block that it was read from, and keeps that in memory; copy what is
/// to stay for long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its position.
    pub lsn: Lsn,
    /// What the value is, in the caller's own terms.
    pub kind: u8,
    /// The value.
    pub value: Bytes,
}

/// An entry of a layer: a key and a version of it. What `Version` says of memory is true of the key, too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The version's position.
    pub lsn: Lsn,
    /// What the value is, in the caller's own terms.
    pub kind: u8,
    /// The value.
    pub value: Bytes,
}
