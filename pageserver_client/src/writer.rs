//! Who may write a timeline, in words that the page server and a compute both use.
//!
//! At any time one compute may continue a timeline: its *writer*. Each time the role goes to another
//! compute the timeline's *generation* grows by one, so that an earlier writer can be told from
//! the present one for ever, wherever it comes back.

use std::fmt;
use std::str::FromStr;

use postgres_formats::TimelineId;

/// How the page server calls itself where it receives WAL: in `pg_stat_replication`, and where commits wait
/// for it, in `synchronous_standby_names`.
pub const STANDBY_NAME: &str = "zenith_pageserver";
/// The PostgreSQL setting in which a compute carries its [`WriterId`], or [`NO_WRITER`]. The page
/// server asks for it before it takes any WAL.
pub const WRITER_SETTING: &str = "zenith.writer";
/// What a compute of ours that writes no timeline has in [`WRITER_SETTING`].
pub const NO_WRITER: &str = "none";

/// The longest [`InstanceId`], in bytes.
const INSTANCE_BYTES_MAX: usize = 63;

/// How often the role of a timeline's writer has been given to another compute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

impl Generation {
    /// Of a timeline that has never had a writer.
    pub const NONE: Generation = Generation(0);

    /// The generation of whoever comes next.
    pub fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriterTextError {
    /// It is no number of a generation.
    #[error("{0:?} is no generation: expected a number")]
    Generation(String),
    /// It cannot name an instance.
    #[error(
        "{0:?} cannot name an instance: use 1 to {INSTANCE_BYTES_MAX} letters, digits, '-', '_'"
    )]
    Instance(String),
    /// It does not name a writer.
    #[error("{0:?} names no writer: expected a timeline, an instance and a generation")]
    Writer(String),
}

impl FromStr for Generation {
    type Err = WriterTextError;

    fn from_str(text: &str) -> Result<Generation, WriterTextError> {
        text.parse().map(Generation).map_err(|_| WriterTextError::Generation(text.to_owned()))
    }
}

/// Tells a compute from all others, also those that had its name before. Made at random with it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstanceId(String);

impl InstanceId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InstanceId {
    type Err = WriterTextError;

    fn from_str(text: &str) -> Result<InstanceId, WriterTextError> {
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let ok = (1..=INSTANCE_BYTES_MAX).contains(&text.len()) && text.chars().all(of_name);
        ok.then(|| InstanceId(text.to_owned()))
            .ok_or_else(|| WriterTextError::Instance(text.to_owned()))
    }
}

/// Names one compute as the writer of one timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriterId {
    /// What it writes.
    pub timeline: TimelineId,
    /// Which compute it is.
    pub instance: InstanceId,
    /// When it got the role, as a count.
    pub generation: Generation,
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.timeline, self.instance, self.generation)
    }
}

impl FromStr for WriterId {
    type Err = WriterTextError;

    fn from_str(text: &str) -> Result<WriterId, WriterTextError> {
        let bad = || WriterTextError::Writer(text.to_owned());
        let words: Vec<&str> = text.split(' ').collect();
        let &[timeline, instance, generation] = words.as_slice() else { return Err(bad()) };
        Ok(WriterId {
            timeline: timeline.parse().map_err(|_| bad())?,
            instance: instance.parse()?,
            generation: generation.parse()?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn writers_come_back_from_their_text() {
        let id = WriterId {
            timeline: TimelineId::from_bytes([0xAB; 16]),
            instance: "0123456789abcdef".parse().unwrap(),
            generation: Generation(7),
        };
        assert_eq!(id.to_string(), "abababababababababababababababab 0123456789abcdef 7");
        assert_eq!(id.to_string().parse::<WriterId>().unwrap(), id);
        for bad in ["", NO_WRITER, "ab x 1", &format!("{id} 1"), &format!("{id}x")] {
            assert!(bad.parse::<WriterId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generations_and_instances() {
        assert_eq!("18".parse::<Generation>().unwrap(), Generation(18));
        assert_eq!(Generation::NONE.next(), Generation(1));
        for bad in ["", "-1", "x", "18446744073709551616"] {
            assert!(bad.parse::<Generation>().is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a'b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
        }
    }
}
