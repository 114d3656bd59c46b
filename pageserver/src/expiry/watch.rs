//! `Watch`: when what has expired may really go. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postgres_formats::TimelineId;

/// By how much the wall clock may differ from the steady one between two looks. More is a jump: it was
/// set, or the machine has slept.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// On the clock that is never set.
    pub(super) steady: Instant,
    /// Time since the beginning of 1970 on the one that may be.
    pub(super) wall: Duration,
}

/// What has expired, and since when it has been so without a break: seen by a wall clock that runs evenly,
/// and used by nobody.
#[derive(Default)]
pub(super) struct Watch {
    last: Option<Moment>,
    since: BTreeMap<TimelineId, Instant>,
}

impl Watch {
    /// Those of `expired`, which is all that is so at `now`, that have been so for `grace`.
    ///
    /// A clock that was set wrong for a moment deletes nothing: after a jump the time begins anew, and
    /// when it has been set right, what is not expired is forgotten.
    pub(super) fn look(
        &mut self,
        now: Moment,
        expired: &[TimelineId],
        grace: Duration,
    ) -> Vec<TimelineId> {
        let jumped = self.last.is_some_and(|last| {
            let steady = now.steady.saturating_duration_since(last.steady);
            now.wall.abs_diff(last.wall + steady) > CLOCK_TOLERANCE
        });
        if jumped {
            self.since.clear();
        }
        self.last = Some(now);
        self.since.retain(|id, _| expired.contains(id));
        let mut due = Vec::new();
        for id in expired {
            let since = *self.since.entry(*id).or_insert(now.steady);
            if now.steady.saturating_duration_since(since) >= grace {
                due.push(*id);
            }
        }
        due
    }

    /// Lets the time of one that turned out to be in use begin anew.
    pub(super) fn begin_anew(&mut self, id: TimelineId) {
        self.since.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    struct Clocks {
        began: Instant,
        steady: u64,
        wall: u64,
    }

    impl Clocks {
        fn pass(&mut self, seconds: u64) -> Moment {
            self.steady += seconds;
            self.wall += seconds;
            self.now()
        }

        fn now(&self) -> Moment {
            Moment {
                steady: self.began + Duration::from_secs(self.steady),
                wall: Duration::from_secs(self.wall),
            }
        }
    }

    #[test]
    fn what_has_expired_goes_after_a_while_of_even_time() {
        let [a, b] = [1, 2].map(|n| TimelineId::from_bytes([n; 16]));
        let mut clocks = Clocks { began: Instant::now(), steady: 0, wall: 1_790_000_000 };
        let mut watch = Watch::default();
        assert!(watch.look(clocks.now(), &[a], Duration::ZERO) == [a], "without any grace");
        let mut watch = Watch::default();
        assert!(watch.look(clocks.now(), &[a], GRACE).is_empty());
        assert!(watch.look(clocks.pass(59), &[a, b], GRACE).is_empty());
        assert_eq!(watch.look(clocks.pass(1), &[a, b], GRACE), [a]);
        watch.begin_anew(a);
        assert!(watch.look(clocks.pass(58), &[a, b], GRACE).is_empty());
        assert_eq!(watch.look(clocks.pass(1), &[a, b], GRACE), [b]);

        // Set forward: what is expired only by that gets its whole time.
        clocks.wall += 10 * 365 * 86_400;
        assert!(watch.look(clocks.pass(1), &[a, b], GRACE).is_empty());
        // Set right in time: it is not expired, and all is forgotten.
        clocks.wall -= 10 * 365 * 86_400;
        assert!(watch.look(clocks.pass(50), &[], GRACE).is_empty());
        assert!(watch.look(clocks.pass(50), &[a], GRACE).is_empty());
        assert!(watch.look(clocks.pass(59), &[a], GRACE).is_empty());
        assert_eq!(watch.look(clocks.pass(1), &[a], GRACE), [a]);
    }
}
