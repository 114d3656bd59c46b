//! `OpenFiles`: how many files of one kind all who read such files keep open together.
//!
//! Whoever reads a file has a place of his own for it and finds it there without asking anybody. Only
//! when a file has been opened, one too many is looked for over all places: the one that was opened
//! first, unless it has been read since it was last looked at.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Where an open file is kept, for as long as that is there.
pub(crate) trait Place {
    /// An open file.
    type File;

    /// Takes the file out; with `unless_used` only if nobody has read it since this was last asked.
    fn take(&self, unless_used: bool) -> Taken<Self::File>;
}

/// What was found in a place.
pub(crate) enum Taken<F> {
    /// The file, which is closed when whoever reads it last lets go of it.
    File(F),
    /// A file that was read since, and stays.
    Used,
    /// None, or one that is to stay open and does not count.
    Nothing,
}

/// Bounds the open files in all places.
pub(crate) struct OpenFiles<P> {
    max: usize,
    /// The place of every open file, in the order in which they are looked at; some may have been closed since.
    // LOCK ORDER: before the locks of the places; no file is opened under it, and none closed for good.
    queue: Mutex<VecDeque<P>>,
}

impl<P: Place> OpenFiles<P> {
    /// At most `max` files, and at least one.
    pub fn new(max: usize) -> OpenFiles<P> {
        OpenFiles { max: max.max(1), queue: Mutex::default() }
    }

    /// How many are open, or have been a moment ago.
    pub fn count(&self) -> usize {
        self.queue.lock().len()
    }

    /// A file has been put into a place. Takes others out of theirs if that is one too many.
    pub fn opened(&self, place: P) {
        let mut closed = Vec::new();
        let mut queue = self.queue.lock();
        queue.push_back(place);
        // Each gets one more chance; by then all have been looked at.
        let mut chances = queue.len();
        while queue.len() > self.max {
            let Some(place) = queue.pop_front() else { break };
            match place.take(chances > 0) {
                Taken::File(file) => closed.push(file),
                Taken::Used => {
                    chances -= 1;
                    queue.push_back(place);
                }
                Taken::Nothing => {}
            }
        }
        drop(queue);
        // Closing is for whoever reads it last, perhaps us, and no lock is held for that.
        drop(closed);
    }
}
