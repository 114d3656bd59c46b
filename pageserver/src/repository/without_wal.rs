//! Which timelines have received nothing yet, without loading them. Of many branches most are such, and a list of
//! branches tells where each ends.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use postgres_formats::TimelineId;

use super::Repository;

/// Timelines that had no WAL when they were looked at. Only one that is loaded receives any.
#[derive(Default)]
pub(super) struct WithoutWal {
    // LOCK ORDER: a leaf; never held during IO.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: BTreeSet<TimelineId>,
    /// Goes up with every timeline that is loaded: whoever looks at files while that happens may
    /// have seen what is no longer so.
    changes: u64,
}

impl WithoutWal {
    /// A timeline is about to be loaded, or is gone.
    pub fn forget(&self, timeline: TimelineId) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.known.remove(&timeline);
    }
}

impl Repository {
    /// Whether nothing has been received on a timeline yet that is not loaded. Its files are looked at once.
    pub fn has_no_wal(&self, timeline: TimelineId) -> bool {
        let changes = {
            let state = self.without_wal.state.lock();
            if state.known.contains(&timeline) {
                return true;
            }
            state.changes
        };
        let dir = self.dir.join("timelines").join(timeline.to_string()).join("wal");
        let has_none = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        let mut state = self.without_wal.state.lock();
        if has_none && state.changes == changes {
            state.known.insert(timeline);
        }
        has_none
    }
}
