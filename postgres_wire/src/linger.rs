//! `Linger`: looking for more for a moment before sleeping.
//!
//! To put a thread to sleep and to wake it up again costs more than to ask for a page and to get it,
//! above all on a machine with an idle processor, which has to be woken up itself. So where the peer has
//! answered soon, its next message is looked for a few times before the thread sleeps. Between two looks
//! the processor goes to whoever wants it.

use std::thread;
use std::time::{Duration, Instant};

/// How long it is looked for more.
const LOOK_FOR: Duration = Duration::from_micros(50);
/// What came within this time after it began to be waited for came soon; being woken up takes a part.
const SOON: Duration = Duration::from_micros(100);

/// Remembers whether it was worth it.
#[derive(Debug, Default)]
pub(crate) struct Linger {
    is_on: bool,
    is_expected_soon: bool,
}

impl Linger {
    /// From now on.
    pub(crate) fn switch_on(&mut self) {
        self.is_on = true;
    }

    /// Looks for a moment whether `look` finds something, if that is likely. Says whether it did.
    pub(crate) fn look<E>(&mut self, mut look: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
        if !(self.is_on && self.is_expected_soon) {
            return Ok(false);
        }
        let began = Instant::now();
        while began.elapsed() < LOOK_FOR {
            if look()? {
                return Ok(true);
            }
            thread::yield_now();
        }
        self.is_expected_soon = false;
        Ok(false)
    }

    /// Something came after it had been waited for so long.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.is_expected_soon = time < SOON;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it looks when the `found`th look would find something.
    fn looks(linger: &mut Linger, found: usize) -> (usize, bool) {
        let mut looks = 0;
        let looked = linger.look(|| -> Result<bool, ()> {
            looks += 1;
            Ok(looks == found)
        });
        (looks, looked == Ok(true))
    }

    #[test]
    fn looks_only_where_something_came_soon() {
        let mut linger = Linger::default();
        linger.waited(Duration::ZERO);
        assert_eq!(looks(&mut linger, 1), (0, false), "it is off");
        linger.switch_on();
        assert_eq!(looks(&mut linger, 1), (1, true));
        let (many, found) = looks(&mut linger, usize::MAX);
        assert!(many >= 1 && !found);
        assert_eq!(looks(&mut linger, 1), (0, false), "it was not worth it");
        linger.waited(SOON);
        assert_eq!(looks(&mut linger, 1), (0, false), "nor is it now");
        linger.waited(SOON / 2);
        assert_eq!(looks(&mut linger, 1), (1, true));
    }

    #[test]
    fn a_failed_look_ends_it() {
        let mut linger = Linger::default();
        linger.switch_on();
        linger.waited(Duration::ZERO);
        assert_eq!(linger.look(|| Err("gone")), Err("gone"));
    }
}
