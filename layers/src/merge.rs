//! Several ordered sequences of entries as one.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use bytes::Bytes;

use crate::{Entry, Lsn};

/// An iterator over the entries of several sources, each in order, by key and then by position.
///
/// Of entries with the same key and position only one is given: that of the source which stands first
/// among the sources. An error of a source is given at once, and nothing after it: what other sources
/// have before that place could be given, but would not be all.
#[derive(Debug)]
pub struct Merge<I> {
    sources: Vec<I>,
    /// The next entry of each source that has one.
    heads: BinaryHeap<Reverse<Head>>,
    /// Sources whose next entry is not among the heads: all at first, then the one given last.
    due: Vec<usize>,
    last: Option<(Bytes, Lsn)>,
}

#[derive(Debug)]
struct Head {
    entry: Entry,
    source: usize,
}

impl Head {
    fn order(&self) -> (&Bytes, Lsn, usize) {
        (&self.entry.key, self.entry.lsn, self.source)
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl<I, E> Merge<I>
where
    I: Iterator<Item = Result<Entry, E>>,
{
    /// Merges `sources`; where they have the same, earlier ones are preferred.
    pub fn new(sources: impl IntoIterator<Item = I>) -> Merge<I> {
        let sources: Vec<I> = sources.into_iter().collect();
        let due = (0..sources.len()).collect();
        Merge { sources, heads: BinaryHeap::new(), due, last: None }
    }

    fn advance(&mut self) -> Result<Option<Entry>, E> {
        loop {
            while let Some(source) = self.due.pop() {
                if let Some(entry) = self.sources.get_mut(source).and_then(Iterator::next) {
                    self.heads.push(Reverse(Head { entry: entry?, source }));
                }
            }
            let Some(Reverse(Head { entry, source })) = self.heads.pop() else { return Ok(None) };
            self.due.push(source);
            let place = (entry.key.clone(), entry.lsn);
            if self.last.as_ref() != Some(&place) {
                self.last = Some(place);
                return Ok(Some(entry));
            }
        }
    }
}

impl<I, E> Iterator for Merge<I>
where
    I: Iterator<Item = Result<Entry, E>>,
{
    type Item = Result<Entry, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.sources.clear();
            self.heads.clear();
            self.due.clear();
        }
        next.transpose()
    }
}
