//! `SpareTime`: whether the machine has processors that nobody uses.

use std::fs;
use std::thread;

/// How much of one processor must have been idle, in percent.
const SPARE_PERCENT: u64 = 60;

/// Compares what the system says of its processors with what it said before.
#[derive(Default)]
pub(super) struct SpareTime {
    before: Option<Ticks>,
}

/// Sums over all processors since the system was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl SpareTime {
    /// Whether there was enough since it was asked before. A system that does not tell is taken for
    /// a busy one; so is one that was never asked.
    pub(super) fn is_enough(&mut self) -> bool {
        let now = fs::read_to_string("/proc/stat").ok().and_then(|text| Ticks::parse(&text));
        let processors = thread::available_parallelism().map_or(1, |n| n.get() as u64);
        match (std::mem::replace(&mut self.before, now), now) {
            (Some(before), Some(now)) => now.is_spare_since(before, processors),
            _ => false,
        }
    }
}

impl Ticks {
    /// Reads the line `cpu` of `/proc/stat`: user, nice, system, idle, waiting for disks, and others.
    fn parse(text: &str) -> Option<Ticks> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
        // Time of guests is in that of users already.
        let all = ticks.iter().take(8).try_fold(0u64, |sum, n| sum.checked_add(*n))?;
        let idle = ticks.get(3)?.checked_add(*ticks.get(4)?)?;
        Some(Ticks { idle, all })
    }

    fn is_spare_since(self, before: Ticks, processors: u64) -> bool {
        let idle = self.idle.saturating_sub(before.idle);
        let all = self.all.saturating_sub(before.all);
        all > 0
            && idle.saturating_mul(processors).saturating_mul(100)
                >= all.saturating_mul(SPARE_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_processor_must_be_idle_for_most_of_the_time() {
        let at = |idle, all| Ticks { idle, all };
        let before = at(1000, 5000);
        // Two processors for a second.
        for (idle, is_spare) in [(0, false), (59, false), (60, true), (200, true)] {
            assert_eq!(at(1000 + idle, 5200).is_spare_since(before, 2), is_spare, "{idle}");
        }
        assert!(!before.is_spare_since(before, 2));
        // A container may count less than its host.
        assert!(!at(900, 4000).is_spare_since(before, 2));
    }

    #[test]
    fn the_system_is_understood() {
        let text = "cpu  10 20 30 400 5 6 7 8 9 10\ncpu0 1 2 3 4\n";
        assert_eq!(Ticks::parse(text).unwrap(), Ticks { idle: 405, all: 486 });
        for text in ["", "cpu", "cpu 1 2 3", "cpux 1 2 3 4 5 6 7 8", "cpu  1 2 x 4 5"] {
            assert_eq!(Ticks::parse(text), None, "{text:?}");
        }
        let own = fs::read_to_string("/proc/stat").unwrap();
        assert!(Ticks::parse(&own).unwrap().all > 0);
        assert!(!SpareTime::default().is_enough());
    }
}
