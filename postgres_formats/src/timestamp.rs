//! `Timestamp`: a moment in UTC with microseconds, written as RFC 3339 has it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MICROS_PER_SECOND: i64 = 1_000_000;
/// From the beginning of 1970 to that of 2000, where PostgreSQL begins to count
/// (`datatype/timestamp.h`).
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800 * MICROS_PER_SECOND;
const SECONDS_PER_DAY: i64 = 86_400;

/// Microseconds since 1970-01-01 00:00 UTC, leap seconds not counted. In the years 0000 to 9999, so
/// that every value can be written and read; what is beyond becomes the first or the last of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0000-01-01T00:00:00Z
    pub const MIN: Timestamp = Timestamp(-62_167_219_200 * MICROS_PER_SECOND);
    /// 9999-12-31T23:59:59.999999Z
    pub const MAX: Timestamp = Timestamp(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// The moment `micros` microseconds after the beginning of 1970.
    pub const fn from_unix_micros(micros: i64) -> Timestamp {
        if micros < Timestamp::MIN.0 {
            Timestamp::MIN
        } else if micros > Timestamp::MAX.0 {
            Timestamp::MAX
        } else {
            Timestamp(micros)
        }
    }

    /// Microseconds since the beginning of 1970.
    pub const fn as_unix_micros(self) -> i64 {
        self.0
    }

    /// The moment `micros` microseconds after the beginning of 2000: PostgreSQL's `TimestampTz`.
    pub const fn from_postgres_micros(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(micros.saturating_add(POSTGRES_EPOCH_MICROS))
    }

    /// Microseconds since the beginning of 2000: PostgreSQL's `TimestampTz`.
    pub const fn as_postgres_micros(self) -> i64 {
        self.0 - POSTGRES_EPOCH_MICROS
    }

    /// So long before.
    pub fn saturating_sub(self, duration: Duration) -> Timestamp {
        let micros = i64::try_from(duration.as_micros());
        let micros = micros.map_or(i64::MIN, |micros| self.0.saturating_sub(micros));
        Timestamp::from_unix_micros(micros)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |n| -n),
        };
        Timestamp::from_unix_micros(micros)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let micros = self.0.rem_euclid(MICROS_PER_SECOND);
        let (year, month, day) = date_of_day(seconds.div_euclid(SECONDS_PER_DAY));
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if micros != 0 {
            write!(f, ".{}", format!("{micros:06}").trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// The text is not a time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a time: expected one like 2026-11-22T10:00:00Z or 2026-11-22T10:00:00+01:00")]
pub struct ParseTimestampError(String);

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    /// Reads `YYYY-MM-DDTHH:MM:SS[.ffffff](Z|+HH:MM|-HH:MM)`. The zone is not optional: a local
    /// time would mean another moment on another machine.
    fn from_str(text: &str) -> Result<Timestamp, ParseTimestampError> {
        parse(text).ok_or_else(|| ParseTimestampError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let mut rest = text;
    let year = number(&mut rest, 4)?;
    let month = after(&mut rest, '-').then(|| number(&mut rest, 2))??;
    let day = after(&mut rest, '-').then(|| number(&mut rest, 2))??;
    let hour = after(&mut rest, 'T').then(|| number(&mut rest, 2))??;
    let minute = after(&mut rest, ':').then(|| number(&mut rest, 2))??;
    let second = after(&mut rest, ':').then(|| number(&mut rest, 2))??;
    let mut micros = 0;
    if after(&mut rest, '.') {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let kept = digits.min(6);
        micros = number(&mut rest, kept)? * 10_i64.pow(u32::try_from(6 - kept).ok()?);
        rest = rest.get(digits - kept..)?;
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = if after(&mut rest, '-') { -1 } else { i64::from(after(&mut rest, '+')) };
            let hours = number(&mut rest, 2)?;
            let minutes = after(&mut rest, ':').then(|| number(&mut rest, 2))??;
            if sign == 0 || !rest.is_empty() || hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60)
        }
    };
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = day_of_date(year, month, day);
    if date_of_day(days) != (year, month, day) {
        return None;
    }
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp::from_unix_micros(seconds * MICROS_PER_SECOND + micros))
}

/// Takes exactly `digits` decimal digits from the front.
fn number(rest: &mut &str, digits: usize) -> Option<i64> {
    let (head, tail) = (rest.get(..digits)?, rest.get(digits..)?);
    if digits == 0 || !head.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    *rest = tail;
    head.parse().ok()
}

/// Takes `mark` from the front if it is there.
fn after(rest: &mut &str, mark: char) -> bool {
    match rest.strip_prefix(mark) {
        Some(tail) => {
            *rest = tail;
            true
        }
        None => false,
    }
}

const DAYS_PER_ERA: i64 = 146_097;
/// Day number of 1970-01-01 when day 0 is 0000-03-01.
const UNIX_EPOCH_DAY: i64 = 719_468;

/// Days since 1970-01-01 of a date of the Gregorian calendar. Years are taken to begin in March,
/// so that the leap day is the last of its year and months have a regular length pattern.
fn day_of_date(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - UNIX_EPOCH_DAY
}

/// The inverse of `day_of_date`: year, month, day.
fn date_of_day(days: i64) -> (i64, i64, i64) {
    let shifted = days + UNIX_EPOCH_DAY;
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-01-01T00:00:00Z", 946_684_800_000_000),
            ("2024-02-29T23:59:59.000001Z", 1_709_251_199_000_001),
            ("1969-12-31T23:59:59.5Z", -500_000),
        ] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(time, Timestamp(micros), "{text}");
            assert_eq!(time.to_string(), text);
        }
        let epoch: Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(epoch, Timestamp::from_postgres_micros(0));
        assert_eq!(epoch.as_postgres_micros(), 0);
    }

    #[test]
    fn postgres_counts_from_2000() {
        let epoch: Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(epoch.as_postgres_micros(), 0);
        assert_eq!(Timestamp::from_postgres_micros(-5).as_postgres_micros(), -5);
        // `DT_NOEND`, "infinity".
        assert_eq!(Timestamp::from_postgres_micros(i64::MAX), Timestamp::MAX);
    }

    #[test]
    fn the_bounds_can_be_written() {
        for (bound, text) in [
            (Timestamp::MIN, "0000-01-01T00:00:00Z"),
            (Timestamp::MAX, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(bound.to_string(), text);
            assert_eq!(text.parse(), Ok(bound));
        }
        assert_eq!(Timestamp::from_unix_micros(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.saturating_sub(Duration::MAX), Timestamp::MIN);
        assert_eq!("0000-01-01T00:00:00+23:00".parse(), Ok(Timestamp::MIN));
    }

    #[test]
    fn zones_and_fractions() {
        let utc: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        assert_eq!("2026-11-22T11:30:00+01:30".parse(), Ok(utc));
        assert_eq!("2026-11-22T05:00:00.0000000009-05:00".parse(), Ok(utc));
    }

    #[test]
    fn every_day_of_eight_centuries_round_trips() {
        for day in -146_097..146_097 {
            let (year, month, date) = date_of_day(day);
            assert_eq!(day_of_date(year, month, date), day);
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T10:00:00",
            "2026-02-29T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:00:00.Z",
            "2026-11-22T10:00:00+1:00",
            "2026-11-22T10:00:00Zx",
            "2026-11-22T10:00:00 01:00",
            "2026-00-22T10:00:00Z",
            "ä",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?} was accepted");
        }
    }
}
