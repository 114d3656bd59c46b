//! Pages asked for before anyone waits for them.
//!
//! They are kept in this process's memory until they are demanded: whether they are still wanted is
//! decided when they are brought in, by what the presence map says then. What is asked for on a
//! connection is forgotten with it.

use std::collections::VecDeque;

use bytes::Bytes;
use pageserver_client::ResponseBody;
use postgres_formats::BLCKSZ;

use crate::read_ahead::BLOCKS_PER_FETCH_MAX;
use crate::segment_file::Object;

#[derive(Debug)]
struct Hint {
    id: u64,
    object: Object,
    first: u32,
    count: u16,
    /// `None` while on its way.
    pages: Option<Bytes>,
}

impl Hint {
    fn covers(&self, object: Object, block: u32) -> bool {
        self.object == object
            && block.checked_sub(self.first).is_some_and(|n| n < u32::from(self.count))
    }
}

/// Where a page is that was hinted at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hinted {
    /// Not asked for.
    No,
    /// On its way, as the response with this id.
    OnItsWay(u64),
    /// Here, together with those behind it.
    Here(Bytes),
}

/// What is to become of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The pages are to be asked for, and before them those that had been kept back.
    Ask(Option<(Object, u32, u16)>),
    /// The first of them, and those that follow up to this page, are asked for by another hint, which may
    /// have become longer for it.
    AskedUpTo(u32),
    /// Too many are on their way already.
    NoRoom,
}

/// The hints of one connection, oldest first.
#[derive(Debug)]
pub(crate) struct Hints {
    hints: VecDeque<Hint>,
    /// One that may become longer before it is sent.
    unsent: Option<(Object, u32, u16)>,
    /// The most pages that may be on their way or in memory.
    pages_max: usize,
}

impl Hints {
    /// None yet, and never more than `pages_max` pages.
    pub(crate) fn new(pages_max: usize) -> Hints {
        Hints { hints: VecDeque::new(), unsent: None, pages_max }
    }

    /// Whether so many pages from `first` on are to be asked for; makes room for them by dropping what came
    /// and was never demanded. They are kept back, since what follows them may be hinted at next.
    pub(crate) fn admit(&mut self, object: Object, first: u32, count: u16) -> Admission {
        if let Some(hint) = self.hints.iter().find(|hint| hint.covers(object, first)) {
            return Admission::AskedUpTo(hint.first.saturating_add(u32::from(hint.count)));
        }
        if let Some((of, from, length)) = self.unsent.filter(|(of, ..)| *of == object) {
            let end = from.saturating_add(u32::from(length));
            if (from..end).contains(&first) {
                return Admission::AskedUpTo(end);
            }
            let longer = length.saturating_add(count);
            if first == end && u32::from(longer) <= BLOCKS_PER_FETCH_MAX && self.has_room(count) {
                self.unsent = Some((of, from, longer));
                return Admission::AskedUpTo(end.saturating_add(u32::from(count)));
            }
        }
        while !self.has_room(count) {
            match self.hints.front() {
                Some(oldest) if oldest.pages.is_some() => self.hints.pop_front(),
                _ => return Admission::NoRoom,
            };
        }
        Admission::Ask(self.unsent.replace((object, first, count)))
    }

    /// The hint that is to be sent next, of those that are kept back.
    pub(crate) fn unsent(&mut self) -> Option<(Object, u32, u16)> {
        self.unsent.take()
    }

    /// Whether a page is one that was hinted at.
    pub(crate) fn has(&self, object: Object, page: u32) -> bool {
        let is_unsent = self.unsent.is_some_and(|(of, first, count)| {
            of == object && page.checked_sub(first).is_some_and(|n| n < u32::from(count))
        });
        is_unsent || self.hints.iter().any(|hint| hint.covers(object, page))
    }

    /// Whether so many pages more fit.
    fn has_room(&self, count: u16) -> bool {
        self.pages() + usize::from(count) <= self.pages_max
    }

    fn pages(&self) -> usize {
        let unsent = self.unsent.map_or(0, |(_, _, count)| count);
        self.hints.iter().map(|hint| usize::from(hint.count)).sum::<usize>() + usize::from(unsent)
    }

    /// Pages have been asked for with request `id`.
    pub(crate) fn asked(&mut self, id: u64, object: Object, first: u32, count: u16) {
        self.hints.push_back(Hint { id, object, first, count, pages: None });
    }

    /// Takes in a response; `false` if it answers no hint. A refusal only forgets the hint: who
    /// demands the page will ask for himself.
    pub(crate) fn arrived(&mut self, id: u64, body: &ResponseBody) -> bool {
        let Some(at) = self.hints.iter().position(|hint| hint.id == id && hint.pages.is_none())
        else {
            return false;
        };
        match (body, self.hints.get_mut(at)) {
            (ResponseBody::Pages(pages), Some(hint))
                if pages.len() == usize::from(hint.count) * BLCKSZ =>
            {
                hint.pages = Some(pages.clone());
            }
            _ => drop(self.hints.remove(at)),
        }
        true
    }

    /// Looks for a page, and takes it and those behind it out if they are here.
    pub(crate) fn take(&mut self, object: Object, block: u32) -> Hinted {
        let Some(at) = self.hints.iter().position(|hint| hint.covers(object, block)) else {
            return Hinted::No;
        };
        match self.hints.get(at) {
            Some(Hint { pages: None, id, .. }) => Hinted::OnItsWay(*id),
            _ => match self.hints.remove(at) {
                Some(Hint { pages: Some(pages), first, .. }) => {
                    Hinted::Here(pages.slice((block - first) as usize * BLCKSZ..))
                }
                _ => Hinted::No,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use postgres_formats::slru::SlruKind;
    use postgres_formats::{ForkNumber, Oid, RelTag};

    use super::*;

    const REL: Object =
        Object::Rel(RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Main });

    fn pages(count: usize) -> ResponseBody {
        ResponseBody::Pages((0..count).flat_map(|n| vec![n as u8; BLCKSZ]).collect())
    }

    /// Hints at so many pages and sends that as request `id`.
    fn ask(hints: &mut Hints, id: u64, first: u32, count: u16) -> Admission {
        let admission = hints.admit(REL, first, count);
        if let Some((object, first, count)) = hints.unsent() {
            hints.asked(id, object, first, count);
        }
        admission
    }

    #[test]
    fn a_hinted_page_is_found_on_its_way_and_here() {
        let mut hints = Hints::new(64);
        assert_eq!(ask(&mut hints, 1, 10, 4), Admission::Ask(None));
        assert_eq!(hints.admit(REL, 13, 1), Admission::AskedUpTo(14));
        assert!(hints.has(REL, 10) && !hints.has(REL, 9));
        assert_eq!(hints.take(REL, 12), Hinted::OnItsWay(1));
        assert_eq!(hints.take(REL, 14), Hinted::No);
        assert_eq!(hints.take(Object::Slru(SlruKind::Clog), 12), Hinted::No);

        assert!(!hints.arrived(2, &pages(4)));
        assert!(hints.arrived(1, &pages(4)));
        assert!(!hints.arrived(1, &pages(4)));
        let Hinted::Here(found) = hints.take(REL, 12) else { panic!("not here") };
        assert_eq!((found.len(), found[0], found[BLCKSZ]), (2 * BLCKSZ, 2, 3));
        assert_eq!(hints.take(REL, 12), Hinted::No);
    }

    #[test]
    fn neighbours_leave_together() {
        let mut hints = Hints::new(100);
        assert_eq!(hints.admit(REL, 10, 1), Admission::Ask(None));
        assert_eq!(hints.admit(REL, 11, 2), Admission::AskedUpTo(13));
        assert!(hints.has(REL, 12) && !hints.has(REL, 13));
        assert_eq!(hints.admit(REL, 12, 1), Admission::AskedUpTo(13));
        assert_eq!(hints.admit(REL, 14, 60), Admission::Ask(Some((REL, 10, 3))));
        hints.asked(1, REL, 10, 3);
        assert_eq!(hints.admit(REL, 11, 1), Admission::AskedUpTo(13));
        // No longer than one request may be, and no more than there is room for.
        assert_eq!(hints.admit(REL, 74, 5), Admission::Ask(Some((REL, 14, 60))));
        hints.asked(2, REL, 14, 60);
        assert_eq!(hints.admit(REL, 79, 33), Admission::NoRoom);
        assert_eq!(hints.unsent(), Some((REL, 74, 5)));
        assert_eq!(hints.unsent(), None);
    }

    #[test]
    fn what_cannot_be_used_is_forgotten() {
        let mut hints = Hints::new(64);
        ask(&mut hints, 1, 10, 4);
        assert!(hints.arrived(1, &pages(3)));
        assert_eq!(hints.take(REL, 10), Hinted::No);
    }

    #[test]
    fn there_is_a_bound() {
        let mut hints = Hints::new(64);
        for n in 0..64 {
            assert_eq!(ask(&mut hints, n, 2 * n as u32, 1), Admission::Ask(None));
        }
        assert_eq!(hints.admit(REL, 1000, 1), Admission::NoRoom);
        hints.arrived(0, &pages(1));
        assert_eq!(hints.admit(REL, 1000, 2), Admission::NoRoom);
        assert_eq!(hints.admit(REL, 1000, 1), Admission::Ask(None));
        assert_eq!(hints.take(REL, 0), Hinted::No);
    }
}
