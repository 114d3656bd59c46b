//! Pages asked for before anyone waits for them.
//!
//! They are kept in this process's memory until they are demanded: whether they are still wanted is
//! decided when they are brought in, by what the presence map says then. What is asked for on a
//! connection is forgotten with it.

use std::collections::VecDeque;

use bytes::Bytes;
use pageserver_client::ResponseBody;
use postgres_formats::BLCKSZ;

use crate::segment_file::Object;

/// The most pages that may be on their way to, or in the memory of, a server process. Their responses
/// fit the buffers of a socket or nearly so: a process that goes idle leaves the page server with little
/// to hold for it.
pub(crate) const HINTED_PAGES_MAX: usize = 64;

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

/// The hints of one connection, oldest first.
#[derive(Debug)]
pub(crate) struct Hints {
    hints: VecDeque<Hint>,
    /// The most pages that may be on their way or in memory.
    pages_max: usize,
}

impl Hints {
    /// None yet, and never more than `pages_max` pages.
    pub(crate) fn new(pages_max: usize) -> Hints {
        Hints { hints: VecDeque::new(), pages_max }
    }

    /// Whether to ask for so many pages from `first` on; makes room for them by dropping what came
    /// and was never demanded.
    pub(crate) fn admit(&mut self, object: Object, first: u32, count: u16) -> bool {
        if self.hints.iter().any(|hint| hint.covers(object, first)) {
            return false;
        }
        while self.pages() + usize::from(count) > self.pages_max {
            match self.hints.front() {
                Some(oldest) if oldest.pages.is_some() => self.hints.pop_front(),
                _ => return false,
            };
        }
        true
    }

    fn pages(&self) -> usize {
        self.hints.iter().map(|hint| usize::from(hint.count)).sum()
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

    #[test]
    fn a_hinted_page_is_found_on_its_way_and_here() {
        let mut hints = Hints::new(HINTED_PAGES_MAX);
        assert!(hints.admit(REL, 10, 4));
        hints.asked(1, REL, 10, 4);
        assert!(!hints.admit(REL, 13, 1));
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
    fn what_cannot_be_used_is_forgotten() {
        let mut hints = Hints::new(HINTED_PAGES_MAX);
        hints.asked(1, REL, 10, 4);
        assert!(hints.arrived(1, &pages(3)));
        assert_eq!(hints.take(REL, 10), Hinted::No);
    }

    #[test]
    fn there_is_a_bound() {
        let mut hints = Hints::new(HINTED_PAGES_MAX);
        for n in 0..HINTED_PAGES_MAX as u32 {
            assert!(hints.admit(REL, n, 1));
            hints.asked(u64::from(n), REL, n, 1);
        }
        assert!(!hints.admit(REL, 1000, 1));
        hints.arrived(0, &pages(1));
        assert!(!hints.admit(REL, 1000, 2));
        assert!(hints.admit(REL, 1000, 1));
        assert_eq!(hints.take(REL, 0), Hinted::No);
    }
}
