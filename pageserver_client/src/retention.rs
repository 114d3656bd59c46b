//! `RetentionSpec`: how much of a branch's history is to be kept, as written on every command line.
//!
//! `7d` is what happened in that time, `10GB` that much WAL, `7d,10GB` what is in both windows; `unlimited` is all,
//! and `default` what the repository's configuration says.

use std::fmt;
use std::str::FromStr;

use crate::point::parse_duration;

/// Units of bytes, as PostgreSQL's settings have them, the largest first.
const UNITS: [(&str, u64); 5] =
    [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];
/// Units of time in seconds, the largest first.
const TIMES: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// How much of a branch's history is to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetentionSpec {
    /// As much as of all that say nothing else.
    Default,
    /// All of it.
    Unlimited,
    /// What is in all windows that are given: one at least.
    Window {
        /// The last so many bytes of WAL.
        bytes: Option<u64>,
        /// The last so many seconds.
        seconds: Option<u64>,
    },
}

/// The text is no retention.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no retention: expected a time as in 7d (units s, m, h, d), an amount of WAL as in 10GB (units B, kB, \
     MB, GB, TB), both as in 7d,10GB, or unlimited, or default"
)]
pub struct ParseRetentionError(String);

impl FromStr for RetentionSpec {
    type Err = ParseRetentionError;

    fn from_str(text: &str) -> Result<RetentionSpec, ParseRetentionError> {
        let bad = || ParseRetentionError(text.to_owned());
        match text {
            "default" => return Ok(RetentionSpec::Default),
            "unlimited" => return Ok(RetentionSpec::Unlimited),
            _ => {}
        }
        let (mut bytes, mut seconds) = (None, None);
        for part in text.split(',') {
            let replaced = match (parse_bytes(part), parse_duration(part)) {
                (Some(found), _) => bytes.replace(found),
                (None, Some(found)) => seconds.replace(found.as_secs()),
                (None, None) => return Err(bad()),
            };
            if replaced.is_some() {
                return Err(bad());
            }
        }
        Ok(RetentionSpec::Window { bytes, seconds })
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (unit, size) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(*size)
}

impl fmt::Display for RetentionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetentionSpec::Default => f.write_str("default"),
            RetentionSpec::Unlimited => f.write_str("unlimited"),
            RetentionSpec::Window { bytes, seconds } => {
                let time = seconds.map(|seconds| in_units(seconds, &TIMES));
                let size = bytes.map(|bytes| in_units(bytes, &UNITS));
                let parts: Vec<String> = time.into_iter().chain(size).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

/// With the largest unit that says it without a fraction.
fn in_units(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |size: u64| value > 0 && value.is_multiple_of(size);
    let unit = units.iter().find(|(_, size)| fits(*size)).or(units.last());
    let (unit, size) = unit.copied().unwrap_or_default();
    format!("{}{unit}", value.checked_div(size).unwrap_or(value))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in
            ["default", "unlimited", "7d", "10GB", "7d,10GB", "90s", "1536kB", "36h,1B", "0s", "0B"]
        {
            assert_eq!(text.parse::<RetentionSpec>().unwrap().to_string(), text);
        }
        let parse = |text: &str| text.parse::<RetentionSpec>().unwrap();
        assert_eq!(parse("1TB,60s").to_string(), "1m,1TB");
        let expected = RetentionSpec::Window { bytes: Some(10 << 30), seconds: Some(604_800) };
        assert_eq!(parse("10GB,7d"), expected);
    }

    #[test]
    fn bad_text_is_refused() {
        for text in
            ["", "7", "GB", "7d,", "7d,8d", "1GB,2MB", "-1d", "1.5GB", "1gb", "99999999TB", "never"]
        {
            assert!(text.parse::<RetentionSpec>().is_err(), "{text:?} was accepted");
        }
    }
}
