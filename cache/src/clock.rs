//! `Clock`: the order in which values are considered for eviction.
//!
//! The CLOCK algorithm (Corbató 1969): keys stand in a circle; the hand passes over those whose
//! value was used since it last came by, taking the mark of use away, and stops at the first other.

use std::collections::VecDeque;

/// The circle of keys; the hand stands at the front.
pub(crate) struct Clock<K> {
    keys: VecDeque<K>,
}

impl<K> Default for Clock<K> {
    fn default() -> Self {
        Clock { keys: VecDeque::new() }
    }
}

impl<K> Clock<K> {
    /// Puts a key behind the hand, where it is reached last.
    pub(crate) fn push(&mut self, key: K) {
        self.keys.push_back(key);
    }

    /// Takes the key under the hand out of the circle.
    pub(crate) fn next(&mut self) -> Option<K> {
        self.keys.pop_front()
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}
