//! `Backlog`: which pages are worth making ahead of demand.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use postgres_formats::{BLCKSZ, Lsn, TimelineId};

use super::RECORDS_MIN;
use crate::object::ObjectPage;
use crate::timeline::Timeline;

/// How often a page is made ahead of demand without having to be made on demand in between. After that
/// it is forgotten: it is no longer asked for, or what is there is enough.
const UNASKED_MAX: u32 = 4;
/// How many pages are looked at to find the one to forget.
const LOOKED_AT: usize = 4;

type Key = (TimelineId, ObjectPage);

/// Pages of timelines that had to be made, and how much that took.
pub(crate) struct Backlog<T = Timeline> {
    pages_max: AtomicUsize,
    // LOCK ORDER: a leaf; held for a moment.
    pages: Mutex<Pages<T>>,
}

struct Pages<T> {
    by_key: HashMap<Key, Wanted<T>>,
    /// The keys; those come first that were not looked at for longest.
    order: VecDeque<Key>,
}

struct Wanted<T> {
    timeline: Weak<T>,
    /// How many records have been applied for those who asked. Halved now and then.
    records: usize,
    /// Up to where it was last looked at.
    upto: Lsn,
    unasked: u32,
}

/// A page that may be made.
pub(crate) struct Due<T = Timeline> {
    pub(crate) timeline: Arc<T>,
    pub(crate) page: ObjectPage,
}

impl<T> Default for Backlog<T> {
    fn default() -> Backlog<T> {
        let pages = Pages { by_key: HashMap::new(), order: VecDeque::new() };
        Backlog { pages_max: AtomicUsize::new(0), pages: Mutex::new(pages) }
    }
}

impl<T> Backlog<T> {
    /// Remembers pages from now on, of so many bytes.
    pub(crate) fn remember(&self, bytes: u64) {
        let pages = usize::try_from(bytes / BLCKSZ as u64).unwrap_or(usize::MAX);
        self.pages_max.store(pages, Ordering::Relaxed);
    }

    /// Somebody has asked for a page as of `upto`, and so many records are applied for that.
    pub(crate) fn add(&self, timeline: &Arc<T>, key: Key, upto: Lsn, records: usize) {
        let max = self.pages_max.load(Ordering::Relaxed);
        if max == 0 || records == 0 {
            return;
        }
        // Nobody who reads should wait for that.
        let Some(mut pages) = self.pages.try_lock() else { return };
        pages.add(timeline, key, upto, records, max);
    }

    /// The pages of which a timeline, whose history ends where `end` says, may have newer versions;
    /// those first that took most.
    pub(crate) fn due(&self, end: impl Fn(&T) -> Lsn) -> Vec<Due<T>> {
        let candidates: Vec<(usize, Key, Lsn, Weak<T>)> = {
            let pages = self.pages.lock();
            let worth = pages.by_key.iter().filter(|(_, wanted)| wanted.records >= RECORDS_MIN);
            worth.map(|(key, w)| (w.records, *key, w.upto, w.timeline.clone())).collect()
        };
        let mut due: Vec<(usize, Due<T>)> = Vec::new();
        for (records, key, upto, timeline) in candidates {
            match timeline.upgrade() {
                Some(timeline) if end(&timeline) > upto => {
                    due.push((records, Due { timeline, page: key.1 }));
                }
                Some(_) => {}
                None => self.forget(key),
            }
        }
        due.sort_by_key(|(records, _)| std::cmp::Reverse(*records));
        due.into_iter().map(|(_, due)| due).collect()
    }

    /// A page was looked at as of `upto`, and perhaps made.
    pub(crate) fn made(&self, key: Key, upto: Lsn, is_made: bool) {
        let mut pages = self.pages.lock();
        let Some(wanted) = pages.by_key.get_mut(&key) else { return };
        wanted.upto = wanted.upto.max(upto);
        wanted.unasked += u32::from(is_made);
        if wanted.unasked >= UNASKED_MAX {
            pages.by_key.remove(&key);
        }
    }

    /// Not to be looked at again until somebody asks.
    pub(crate) fn forget(&self, key: Key) {
        // `order` may name it for a while.
        self.pages.lock().by_key.remove(&key);
    }

    /// What was long ago counts less.
    pub(crate) fn age(&self) {
        let mut pages = self.pages.lock();
        pages.by_key.retain(|_, wanted| {
            wanted.records /= 2;
            wanted.records > 0 && wanted.timeline.strong_count() > 0
        });
        let Pages { by_key, order } = &mut *pages;
        order.retain(|key| by_key.contains_key(key));
    }

    /// How many pages are remembered.
    pub(crate) fn len(&self) -> usize {
        self.pages.lock().by_key.len()
    }
}

impl<T> Pages<T> {
    fn add(&mut self, timeline: &Arc<T>, key: Key, upto: Lsn, records: usize, max: usize) {
        if let Some(wanted) = self.by_key.get_mut(&key) {
            wanted.records = wanted.records.saturating_add(records);
            wanted.upto = wanted.upto.max(upto);
            wanted.unasked = 0;
            return;
        }
        if self.by_key.len() >= max && !self.make_room(records) {
            return;
        }
        let timeline = Arc::downgrade(timeline);
        self.by_key.insert(key, Wanted { timeline, records, upto, unasked: 0 });
        self.order.push_back(key);
    }

    /// Forgets one of those that were not looked at for longest, if one of them took no more than `records`.
    fn make_room(&mut self, records: usize) -> bool {
        for _ in 0..LOOKED_AT {
            let Some(key) = self.order.pop_front() else { return true };
            match self.by_key.get(&key) {
                Some(wanted) if wanted.records > records => self.order.push_back(key),
                _ => return self.by_key.remove(&key).is_some(),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use postgres_formats::{BlockNumber, ForkNumber, Oid, RelTag};

    use super::*;
    use crate::object::ObjectTag;

    fn key(timeline: u8, block: u32) -> Key {
        let rel = RelTag { spc: Oid(1), db: Oid(2), rel: Oid(3), fork: ForkNumber::Main };
        let page = ObjectPage { object: ObjectTag::Rel(rel), block: BlockNumber(block) };
        (TimelineId::from_bytes([timeline; 16]), page)
    }

    /// A backlog of at most so many pages, and a "timeline" that ends at 100.
    fn backlog(pages: u64) -> (Backlog<Lsn>, Arc<Lsn>) {
        let backlog = Backlog::default();
        backlog.remember(pages * BLCKSZ as u64);
        (backlog, Arc::new(Lsn::new(100)))
    }

    fn due(backlog: &Backlog<Lsn>) -> Vec<u32> {
        backlog.due(|end| *end).iter().map(|due| due.page.block.0).collect()
    }

    #[test]
    fn what_took_long_or_often_is_due_when_more_has_happened() {
        let (backlog, timeline) = backlog(10);
        let add = |block, upto, records| {
            backlog.add(&timeline, key(1, block), Lsn::new(upto), records);
        };
        add(1, 50, 20);
        add(2, 50, RECORDS_MIN - 1);
        add(3, 100, 30);
        add(4, 50, 40);
        assert_eq!(due(&backlog), [4, 1]);
        add(2, 60, 2);
        assert_eq!(due(&backlog), [4, 1, 2]);
        // Looked at, though there was not enough to do.
        backlog.made(key(1, 4), Lsn::new(100), false);
        assert_eq!(due(&backlog), [1, 2]);
        backlog.forget(key(1, 1));
        assert_eq!(due(&backlog), [2]);
        drop(timeline);
        // Nor is anything of a timeline that is not in memory.
        assert_eq!((due(&backlog), backlog.len()), (vec![], 0));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let (backlog, timeline) = backlog(10);
        for block in [1, 2] {
            backlog.add(&timeline, key(1, block), Lsn::new(1), 20);
        }
        for round in 1..=UNASKED_MAX {
            assert_eq!(backlog.len(), 2, "{round}");
            backlog.made(key(1, 1), Lsn::new(10), true);
            backlog.made(key(1, 2), Lsn::new(10), true);
            backlog.add(&timeline, key(1, 2), Lsn::new(11), 1);
        }
        assert_eq!((backlog.len(), due(&backlog)), (1, vec![2]));
        // 24 records, then 12, then less than is worth it.
        backlog.age();
        assert_eq!(due(&backlog), [2]);
        backlog.age();
        assert_eq!((backlog.len(), due(&backlog)), (1, vec![]));
        (0..3).for_each(|_| backlog.age());
        assert_eq!(backlog.len(), 0);
        assert_eq!(backlog.pages.lock().order.len(), 0);
    }

    #[test]
    fn it_does_not_grow() {
        let (backlog, timeline) = backlog(3);
        let add = |block, records| backlog.add(&timeline, key(1, block), Lsn::new(1), records);
        for (block, records) in [(1, 10), (2, 90), (3, 11), (4, 12), (5, 9)] {
            add(block, records);
        }
        // The cheapest of those that are long there made room, or nobody did.
        assert_eq!((backlog.len(), due(&backlog)), (3, vec![2, 4, 3]));
        for block in 10..1000 {
            add(block, 50);
            assert!(backlog.len() <= 3 && backlog.pages.lock().order.len() <= 3 + LOOKED_AT);
        }
        assert!(due(&backlog).contains(&2));
        let none = Backlog::default();
        none.add(&timeline, key(1, 1), Lsn::new(1), 100);
        assert_eq!(none.len(), 0);
    }
}
