//! `Readings`: which LSNs are being read on connections, in memory only.
//!
//! A timeline that a connection reads is in use, and its branch does not expire.
//!
//! Whoever has read at an LSN may go on reading there while the connection lasts, as long as no pause is longer than
//! `LASTS`. The first read at an LSN is no race: it is answered if the history was there when it was begun
//! and when it was done, and else refused with the horizon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres_formats::{Lsn, TimelineId};

use crate::timeline::Needed;

/// How long an LSN that was read at counts as being read.
const LASTS: Duration = Duration::from_secs(60);
/// How often that is noted anew of an LSN that is read all the time.
const NOTED_EVERY: Duration = Duration::from_secs(10);
/// A stream that reads at more LSNs than that counts as reading at all from the first of them on.
const LSNS_MAX: usize = 16;

/// What is being read.
#[derive(Default)]
pub struct Readings {
    next: AtomicU64,
    // LOCK ORDER: a leaf, held for a moment.
    streams: Mutex<BTreeMap<u64, Read>>,
}

struct Read {
    timeline: TimelineId,
    /// When last; `None`: until the connection ends.
    at: BTreeMap<Lsn, Option<Instant>>,
}

impl Read {
    /// Forgets what was read long ago.
    fn expire(&mut self, now: Instant) {
        self.at
            .retain(|_, when| when.is_none_or(|when| now.saturating_duration_since(when) < LASTS));
    }
}

/// A connection that reads.
pub struct Stream {
    readings: Arc<Readings>,
    number: u64,
    /// What was noted last.
    noted: Option<(Lsn, Instant)>,
}

impl Readings {
    /// A connection that reads `timeline` from now on.
    pub fn begin(self: &Arc<Readings>, timeline: TimelineId) -> Stream {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.streams.lock().insert(number, Read { timeline, at: BTreeMap::new() });
        Stream { readings: self.clone(), number, noted: None }
    }

    /// Whether there is a connection that reads `timeline`.
    pub fn is_read(&self, timeline: TimelineId) -> bool {
        self.streams.lock().values().any(|read| read.timeline == timeline)
    }

    /// What is being read of which timeline.
    pub fn list(&self) -> Vec<(TimelineId, Needed)> {
        let (mut all, now) = (Vec::new(), Instant::now());
        for read in self.streams.lock().values_mut() {
            read.expire(now);
            let needed = match read.at.first_key_value() {
                Some((first, _)) if read.at.len() > LSNS_MAX => vec![Needed::since(*first)],
                _ => read.at.keys().copied().map(Needed::point).collect(),
            };
            all.extend(needed.into_iter().map(|needed| (read.timeline, needed)));
        }
        all
    }
}

impl Stream {
    /// Takes note that it reads at `lsn`. To be called before it is looked whether that is still there.
    pub fn reads(&mut self, lsn: Lsn) {
        let now = Instant::now();
        if self.noted.is_some_and(|(last, when)| last == lsn && now - when < NOTED_EVERY) {
            return;
        }
        self.noted = Some((lsn, now));
        self.note(lsn, Some(now));
    }

    /// Takes note that it reads at `lsn` until it ends. As above.
    pub fn reads_on(&mut self, lsn: Lsn) {
        self.note(lsn, None);
    }

    fn note(&self, lsn: Lsn, when: Option<Instant>) {
        let mut streams = self.readings.streams.lock();
        let Some(read) = streams.get_mut(&self.number) else { return };
        read.at.insert(lsn, when);
        if let Some(now) = when
            && read.at.len() > LSNS_MAX + 1
        {
            read.expire(now);
        }
        // Of so many, only the first one matters, and that there are so many.
        while read.at.len() > LSNS_MAX + 1 {
            read.at.pop_last();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.readings.streams.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_reads_counts_until_it_ends() {
        let readings = Arc::new(Readings::default());
        let id = TimelineId::from_bytes([1; 16]);
        let mut stream = readings.begin(id);
        assert!(readings.list().is_empty());
        let lsn = |n: u64| Lsn::new(1000 + n);
        for n in [5, 3, 5] {
            stream.reads(lsn(n));
        }
        let point = |n| (id, Needed::point(lsn(n)));
        assert_eq!(readings.list(), [point(3), point(5)]);
        for n in 4..100 {
            stream.reads(lsn(n));
        }
        assert_eq!(readings.list(), [(id, Needed::since(lsn(3)))]);
        drop(stream);
        assert!(readings.list().is_empty());
    }

    #[test]
    fn a_timeline_is_read_until_the_last_reader_has_left() {
        let readings = Arc::new(Readings::default());
        let id = TimelineId::from_bytes([1; 16]);
        let (a, b) = (readings.begin(id), readings.begin(id));
        drop(a);
        assert!(readings.is_read(id));
        drop(b);
        assert!(!readings.is_read(id));
    }
}
