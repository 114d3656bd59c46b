//! `Point`: a moment in the history of a branch, as written on every command line.
//!
//! `main` is the branch's end, `main@0/16B3748` an LSN, `main@2026-11-22T10:00:00Z` a time and
//! `main@-10m` a time counted back from now.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use postgres_formats::{Lsn, Timestamp};

use crate::branch_name::{BranchName, BranchNameError};

/// A moment in the history of a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// The branch.
    pub branch: BranchName,
    /// Where on it.
    pub at: At,
}

/// Where on a branch a [`Point`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// After its last record.
    End,
    /// After all records that end at or before this position.
    Lsn(Lsn),
    /// Before the first transaction that ended later than this time.
    Time(Timestamp),
    /// The same, so long before now.
    Ago(Duration),
}

impl At {
    /// The same place in words that do not depend on when they are read, if it is `now`.
    pub fn seen_at(self, now: Timestamp) -> At {
        match self {
            At::Ago(ago) => At::Time(now.saturating_sub(ago)),
            other => other,
        }
    }
}

impl Point {
    /// The end of `branch`.
    pub fn end_of(branch: impl Into<BranchName>) -> Point {
        Point { branch: branch.into(), at: At::End }
    }

    /// `lsn` on `branch`.
    pub fn at_lsn(branch: impl Into<BranchName>, lsn: Lsn) -> Point {
        Point { branch: branch.into(), at: At::Lsn(lsn) }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.branch)?;
        match self.at {
            At::End => Ok(()),
            At::Lsn(lsn) => write!(f, "@{lsn}"),
            At::Time(time) => write!(f, "@{time}"),
            At::Ago(ago) => write!(f, "@-{}", DisplayAgo(ago)),
        }
    }
}

/// The largest unit that says the duration without a fraction.
struct DisplayAgo(Duration);

impl fmt::Display for DisplayAgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
            if seconds >= length && seconds.is_multiple_of(length) {
                return write!(f, "{}{unit}", seconds / length);
            }
        }
        write!(f, "{seconds}s")
    }
}

/// The text is not a point.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParsePointError {
    /// The part before `@` cannot be the name of a branch.
    #[error(transparent)]
    Name(#[from] BranchNameError),
    /// The part after `@` is nothing that we know.
    #[error(
        "{0:?} is not a point: after @ comes an LSN (0/16B3748), \
         a time (2026-11-22T10:00:00Z) or how long ago (-10m; units s, m, h, d)"
    )]
    At(String),
}

impl FromStr for Point {
    type Err = ParsePointError;

    fn from_str(text: &str) -> Result<Point, ParsePointError> {
        let (branch, at) = match text.split_once('@') {
            None => (text, At::End),
            Some((branch, at)) => {
                (branch, parse_at(at).ok_or_else(|| ParsePointError::At(text.to_owned()))?)
            }
        };
        Ok(Point { branch: branch.parse()?, at })
    }
}

fn parse_at(text: &str) -> Option<At> {
    if let Some(ago) = text.strip_prefix('-') {
        return parse_duration(ago).map(At::Ago);
    }
    if text.contains('/') {
        return text.parse().ok().map(At::Lsn);
    }
    text.parse().ok().map(At::Time)
}

/// A whole number and a unit: `90s`, `10m`, `2h`, `7d`. `None` if it is anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let length = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(length).map(Duration::from_secs)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in [
            "main",
            "main@0/16B3748",
            "a-b_c.9@FFFFFFFF/FFFFFFFF",
            "main@2026-11-22T10:00:00Z",
            "main@2026-11-22T10:00:00.25Z",
            "main@-10m",
            "main@-90s",
            "main@-36h",
            "main@-0s",
            "main@-2d",
        ] {
            assert_eq!(text.parse::<Point>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn meaning_of_each_form() {
        let at = |text: &str| text.parse::<Point>().unwrap().at;
        assert_eq!(at("m"), At::End);
        assert_eq!(at("m@0/28"), At::Lsn(Lsn::new(0x28)));
        assert_eq!(at("m@-2h"), At::Ago(Duration::from_secs(7200)));
        assert_eq!(at("m@1970-01-01T00:00:01Z"), At::Time(Timestamp::from_unix_micros(1_000_000)));
    }

    #[test]
    fn ago_becomes_a_time() {
        let ago = At::Ago(Duration::from_secs(60));
        let time = |seconds: i64| Timestamp::from_unix_micros(seconds * 1_000_000);
        assert_eq!(ago.seen_at(time(100)), At::Time(time(40)));
        assert_eq!(At::End.seen_at(time(100)), At::End);
        let ever = At::Ago(Duration::MAX).seen_at(time(100));
        assert_eq!(ever, At::Time(Timestamp::MIN));
    }

    #[test]
    fn bad_text_is_refused() {
        for text in [
            "",
            "@",
            "main@",
            "main@@0/1",
            "@0/1",
            "main@16B3748",
            "main@0/",
            "main@0/123456789",
            "main@-",
            "main@-m",
            "main@-10",
            "main@-10w",
            "main@--1m",
            "main@-1.5h",
            "main@-99999999999999999d",
            "-main",
            "../x",
            "a b",
            ".hidden",
            "a/b",
            "ä",
            "main@yesterday",
            "main.new@0/1",
            "main@2026-13-01T00:00:00Z",
        ] {
            assert!(text.parse::<Point>().is_err(), "{text:?} was accepted");
        }
    }
}
