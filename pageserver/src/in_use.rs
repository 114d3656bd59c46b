//! `InUse`: which timelines clients are reading now.

use std::sync::Arc;

use dashmap::DashMap;
use postgres_formats::TimelineId;

/// How many clients are reading each timeline now.
#[derive(Default)]
pub struct InUse {
    // LOCK ORDER: a leaf; a shard's lock is held for a moment.
    readers: DashMap<TimelineId, usize>,
}

impl InUse {
    /// Counts a reader of `timeline` for as long as the result lives.
    pub fn enter(self: &Arc<InUse>, timeline: TimelineId) -> Reader {
        *self.readers.entry(timeline).or_default() += 1;
        Reader { in_use: self.clone(), timeline }
    }

    /// Whether anybody is reading `timeline`.
    pub fn is_read(&self, timeline: TimelineId) -> bool {
        self.readers.contains_key(&timeline)
    }
}

/// A reader of a timeline.
pub struct Reader {
    in_use: Arc<InUse>,
    timeline: TimelineId,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.in_use.readers.remove_if_mut(&self.timeline, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_read_until_the_last_reader_has_left() {
        let in_use = Arc::new(InUse::default());
        let id = TimelineId::from_bytes([1; 16]);
        let (a, b) = (in_use.enter(id), in_use.enter(id));
        drop(a);
        assert!(in_use.is_read(id));
        drop(b);
        assert!(!in_use.is_read(id));
    }
}
