//! Identifiers: `TimelineId` and `SystemId`.

use std::fmt;
use std::str::FromStr;

/// One line of history of a database cluster: 128 random bits, written as 32 hexadecimal digits.
///
/// Not PostgreSQL's small timeline number; that is a `u32` called `tli` wherever it appears.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId([u8; 16]);

impl TimelineId {
    /// A new random id.
    pub fn generate() -> TimelineId {
        TimelineId(rand::random())
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> TimelineId {
        TimelineId(bytes)
    }

    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a timeline id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a timeline id: expected 32 hexadecimal digits")]
pub struct ParseTimelineIdError(String);

impl FromStr for TimelineId {
    type Err = ParseTimelineIdError;

    fn from_str(text: &str) -> Result<TimelineId, ParseTimelineIdError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ParseTimelineIdError(text.to_owned()))?;
        Ok(TimelineId(bytes))
    }
}

/// PostgreSQL's `system_identifier`: which `initdb` a cluster's history began with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
