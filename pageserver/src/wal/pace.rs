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
/// So much is synced aside. The disk needs milliseconds for it, and a thread some dozen microseconds to begin.
const ASIDE_BYTES_MIN: usize = 2 << 20;
/// How far apart a stream is read that does not rest, while no commit waits.
const READ_EVERY: Duration = Duration::from_millis(10);
/// But so often that no more than this comes meanwhile, or the server could not send any more: a socket's
/// buffer has some 200 KiB.
const REST_BYTES: usize = 128 << 10;
const REST_MIN: Duration = Duration::from_micros(500);

/// Decides for one stream.
pub(super) struct Pace {
    /// Whether commits wait.
    awaited: bool,
    /// What came since the last sync.
    group: Option<Group>,
    /// When something came last.
    last: Option<Instant>,
    /// Whether the stream gave something shortly before it did so last.
    busy: bool,
    /// What came since there was nothing more the last time.
    since_rest: Group,
    /// How long the stream is to be left alone, from when on; `None`: there may be more at once.
    rest: Option<(Instant, Duration)>,
}

struct Group {
    bytes: usize,
    since: Instant,
}

impl Pace {
    /// For a server whose commits wait for us, or do not.
    pub(super) fn new(awaited: bool, now: Instant) -> Pace {
        let since_rest = Group { bytes: 0, since: now };
        Pace { awaited, group: None, last: None, busy: false, since_rest, rest: None }
    }

    /// So many bytes were taken in.
    pub(super) fn came(&mut self, bytes: usize, now: Instant) {
        self.busy = self.last.is_some_and(|last| now.duration_since(last) < 2 * READ_EVERY);
        self.last = Some(now);
        self.group.get_or_insert(Group { bytes: 0, since: now }).bytes += bytes;
        self.since_rest.bytes += bytes;
        self.rest = None;
    }

    /// All that had come was taken in.
    pub(super) fn drained(&mut self, now: Instant) {
        let Group { bytes, since } =
            std::mem::replace(&mut self.since_rest, Group { bytes: 0, since: now });
        let room = REST_BYTES as f64 / bytes.max(1) as f64;
        let rest = now.duration_since(since).mul_f64(room);
        self.rest = Some((now, rest.clamp(REST_MIN, READ_EVERY)));
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
        // One that is only a little slower than it is read does not rest.
        let quiet = self.last.is_none_or(|last| now.duration_since(last) >= READ_EVERY);
        let rests = idle && (self.awaited || !self.busy || quiet);
        self.group.as_ref().is_some_and(|group| {
            rests || group.bytes >= bytes_max || now.duration_since(group.since) >= age_max
        })
    }

    /// Whether what is to be synced is so much that more had better be received meanwhile.
    pub(super) fn is_worth_a_thread(&self) -> bool {
        self.group.as_ref().is_some_and(|group| !self.awaited && group.bytes >= ASIDE_BYTES_MIN)
    }

    /// Everything has been synced, or is being so.
    pub(super) fn synced(&mut self) {
        self.group = None;
    }

    /// Until when the stream is best left alone, unless somebody waits for what is in it.
    pub(super) fn rest_until(&self) -> Option<Instant> {
        let rests = !self.awaited && self.busy && self.has_group();
        self.rest.filter(|_| rests).map(|(since, rest)| since + rest)
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
            let mut pace = Pace::new(awaited, now);
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

    /// A stream that gives so many bytes in a millisecond, until it is synced: how often it is read by then,
    /// and how long that is.
    fn read(bytes_per_ms: u32) -> (u32, Duration) {
        let began = Instant::now();
        let mut pace = Pace::new(false, began);
        let (mut before, mut now) = (began, began + MS);
        for reads in 1.. {
            let bytes = now.duration_since(before).as_secs_f64() * 1e3 * f64::from(bytes_per_ms);
            pace.came(bytes as usize, now);
            if pace.is_due(false, now) {
                pace.synced();
                assert_eq!(pace.rest_until(), None, "nothing is held back by a rest");
                return (reads, now.duration_since(began));
            }
            assert_eq!(pace.rest_until(), None, "there may be more");
            pace.drained(now);
            assert_eq!(pace.rest_until().is_some(), reads > 1, "the first is news");
            assert_eq!(pace.is_due(true, now), reads == 1, "it does not rest");
            before = now;
            now = pace.rest_until().unwrap_or(now + MS);
        }
        unreachable!()
    }

    #[test]
    fn a_stream_that_nobody_waits_for_is_read_now_and_then() {
        let (reads, lasted) = read(1000);
        assert!(reads <= 28 && lasted < AGE_MAX + READ_EVERY + MS, "{reads} {lasted:?}");
        // So often that no more than that comes meanwhile.
        let (reads, lasted) = read(REST_BYTES as u32 / 2);
        assert!(
            (120..=160).contains(&reads) && lasted < AGE_MAX + READ_EVERY,
            "{reads} {lasted:?}"
        );
        let (_, lasted) = read(REST_BYTES as u32 * 2);
        assert!(lasted < 100 * MS, "this is much: {lasted:?}");
    }

    #[test]
    fn a_busy_stream_that_pauses_is_synced_soon() {
        let began = Instant::now();
        let mut pace = Pace::new(false, began);
        pace.came(1000, began);
        pace.came(1000, began + MS);
        assert_eq!(pace.rest_until(), None, "there may be more");
        pace.drained(began + MS);
        let next = began + MS + READ_EVERY;
        assert_eq!(pace.rest_until(), Some(next));
        assert!(pace.is_due(true, next) && !pace.is_due(false, next));
    }

    #[test]
    fn commits_that_wait_are_not_kept_waiting() {
        let now = Instant::now();
        let mut pace = Pace::new(true, now);
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
