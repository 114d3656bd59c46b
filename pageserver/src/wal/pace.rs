//! `Pace`: when a stream of WAL is read, and when what came is made durable.
//!
//! Commits either wait until their WAL is durable here, or they do not. If they do, everything is read
//! and synced as soon as it is there. If not, each sync and each wake-up of the server's WAL sender would
//! be paid for by the server's own work, on whose machine we may run: so a stream that does not rest is
//! read every few milliseconds only, and synced a few times in a second. What is lost by that in a crash
//! of this machine comes again, for the server keeps it until it has been reported as flushed.
//!
//! A stream that is quiet is always read and synced at once.

use std::time::{Duration, Instant};

/// Bounds of what is synced together while commits wait: whichever is reached first.
const AWAITED_BYTES_MAX: usize = 1 << 20;
const AWAITED_AGE_MAX: Duration = Duration::from_millis(10);
/// The same while they do not.
const BYTES_MAX: usize = 16 << 20;
const AGE_MAX: Duration = Duration::from_millis(250);
/// How far apart a stream is read that does not rest, while no commit waits.
const READ_EVERY: Duration = Duration::from_millis(10);
/// A stream that gave more than this at a time is not kept waiting: what its server can send ahead
/// is bounded by a socket's buffers.
const REST_BYTES_MAX: usize = 64 << 10;

/// Decides for one stream.
pub(super) struct Pace {
    /// Whether commits wait.
    awaited: bool,
    /// What came since the last sync.
    group: Option<Group>,
    /// What came last, and when.
    last: Option<(Instant, usize)>,
    /// Whether the stream gave something shortly before it did so last.
    busy: bool,
}

struct Group {
    bytes: usize,
    since: Instant,
}

impl Pace {
    /// For a server whose commits wait for us, or do not.
    pub(super) fn new(awaited: bool) -> Pace {
        Pace { awaited, group: None, last: None, busy: false }
    }

    /// So many bytes were taken in.
    pub(super) fn came(&mut self, bytes: usize, now: Instant) {
        self.busy = self.last.is_some_and(|(last, _)| now.duration_since(last) < 2 * READ_EVERY);
        self.last = Some((now, bytes));
        self.group.get_or_insert(Group { bytes: 0, since: now }).bytes += bytes;
    }

    /// Whether anything is to be synced.
    pub(super) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Whether it is to be synced now. `idle`: nothing more has come.
    pub(super) fn is_due(&self, idle: bool, now: Instant) -> bool {
        let (bytes_max, age_max) = match self.awaited {
            true => (AWAITED_BYTES_MAX, AWAITED_AGE_MAX),
            false => (BYTES_MAX, AGE_MAX),
        };
        self.group.as_ref().is_some_and(|group| {
            idle || group.bytes >= bytes_max || now.duration_since(group.since) >= age_max
        })
    }

    /// Everything has been synced.
    pub(super) fn synced(&mut self) {
        self.group = None;
    }

    /// Until when the stream is best left alone, unless somebody waits for what is in it.
    pub(super) fn rest_until(&self) -> Option<Instant> {
        let (last, bytes) = self.last?;
        let rests = !self.awaited && self.busy && self.has_group() && bytes < REST_BYTES_MAX;
        rests.then(|| last + READ_EVERY)
    }
}

/// Whether a server with this list of `synchronous_standby_names` may have commits wait for `name`.
pub(super) fn may_wait_for(standby_names: &str, name: &str) -> bool {
    let names = standby_names.to_ascii_lowercase();
    names.contains('*') || names.contains(&name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_quiet_stream_is_synced_at_once() {
        let now = Instant::now();
        for awaited in [false, true] {
            let mut pace = Pace::new(awaited);
            assert!(!pace.is_due(true, now), "there is nothing");
            for n in 0..3 {
                let now = now + n * 1000 * MS;
                pace.came(100, now);
                assert_eq!(pace.rest_until(), None);
                assert!(!pace.is_due(false, now) && pace.is_due(true, now));
                pace.synced();
                assert!(!pace.is_due(true, now));
            }
        }
    }

    #[test]
    fn a_stream_that_nobody_waits_for_is_read_now_and_then() {
        let began = Instant::now();
        let mut pace = Pace::new(false);
        let mut now = began;
        let mut reads = 0;
        while !pace.is_due(false, now) {
            pace.came(1000, now);
            reads += 1;
            let rested = pace.rest_until();
            assert_eq!(rested.is_some(), reads > 1, "the first is news");
            now = rested.unwrap_or(now + MS);
        }
        assert_eq!(now.duration_since(began), AGE_MAX + MS);
        assert_eq!(reads, 26);
        pace.synced();
        assert_eq!(pace.rest_until(), None, "nothing is held back by a rest");
    }

    #[test]
    fn a_stream_with_much_to_give_is_not_kept_waiting() {
        let mut pace = Pace::new(false);
        let now = Instant::now();
        for n in 0..BYTES_MAX / REST_BYTES_MAX {
            assert!(!pace.is_due(false, now), "{n}");
            pace.came(REST_BYTES_MAX, now);
            assert_eq!(pace.rest_until(), None);
        }
        assert!(pace.is_due(false, now));
    }

    #[test]
    fn commits_that_wait_are_not_kept_waiting() {
        let now = Instant::now();
        let mut pace = Pace::new(true);
        for n in 0..10 {
            let now = now + n * MS;
            assert!(!pace.is_due(false, now));
            pace.came(1000, now);
            assert_eq!(pace.rest_until(), None);
            assert!(pace.is_due(true, now));
        }
        assert!(pace.is_due(false, now + AWAITED_AGE_MAX));
    }

    #[test]
    fn lists_of_standbys() {
        let name = "zenith_pageserver";
        for awaited in ["zenith_pageserver", "*", "FIRST 1 (a, \"Zenith_PageServer\")", "ANY 2 (*)"]
        {
            assert!(may_wait_for(awaited, name), "{awaited}");
        }
        for other in ["", "other", "FIRST 1 (a, b)"] {
            assert!(!may_wait_for(other, name), "{other}");
        }
    }
}
