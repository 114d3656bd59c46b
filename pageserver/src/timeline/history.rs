//! `History`: a timeline's own history as a row of stretches, the newest of which still grows.
//!
//! The newest stretch is *open*: an index in memory over the WAL. From time to time it is *closed*, and
//! another one is begun. A closed stretch is an index like the open one, until it has been written as a
//! delta layer, which takes its place.

use std::sync::Arc;

use postgres_formats::Lsn;
use postgres_formats::checkpoint::CheckpointState;

use super::Timeline;
use super::manifest::Layered;
use crate::index::{IndexOp, WalIndex};
use crate::layer::delta::{DeltaLayer, StretchFacts};
use crate::layer::image::LayerError;
use crate::stretch::Stretch;

/// The stretches of a timeline's own history.
pub(super) struct History {
    /// The one that grows.
    pub open: WalIndex,
    /// Where that one begins: the end of a record.
    open_from: Lsn,
    /// The checkpoint state there.
    state: CheckpointState,
    /// Those before, newest first.
    older: Arc<[Older]>,
}

/// A stretch that does not change any more.
#[derive(Clone)]
enum Older {
    /// In memory, over the WAL.
    Closed(Arc<Closed>),
    /// A file.
    Delta(Arc<DeltaLayer>),
}

/// A stretch that is to be written.
pub(super) struct Closed {
    pub facts: StretchFacts,
    pub index: WalIndex,
}

impl Older {
    fn stretch(&self) -> &dyn Stretch {
        match self {
            Older::Closed(closed) => &closed.index,
            Older::Delta(layer) => &**layer,
        }
    }
}

fn begun(at: Lsn, state: &CheckpointState) -> WalIndex {
    let mut index = WalIndex::default();
    index.apply(IndexOp::Checkpoint { lsn: at, state: Box::new(*state) });
    index
}

impl History {
    /// The history in `deltas`, oldest first, which go as far as `layered` says.
    pub fn new(layered: &Layered, deltas: Vec<DeltaLayer>) -> History {
        let older = deltas.into_iter().rev().map(|layer| Older::Delta(Arc::new(layer)));
        History {
            open: begun(layered.end, &layered.state),
            open_from: layered.end,
            state: layered.state,
            older: older.collect(),
        }
    }

    /// How many bytes of WAL the open stretch has when the WAL ends at `end`.
    pub fn open_bytes(&self, end: Lsn) -> u64 {
        end.distance_from(self.open_from).unwrap_or(0)
    }

    /// Closes the open stretch at `end`, the end of its last record, where the state is `state`.
    pub fn close(
        &mut self,
        timeline: postgres_formats::TimelineId,
        end: Lsn,
        state: &CheckpointState,
    ) {
        let index = std::mem::replace(&mut self.open, begun(end, state));
        let facts = StretchFacts {
            timeline,
            start: self.open_from,
            state: self.state,
            end,
            end_state: *state,
        };
        let closed = Older::Closed(Arc::new(Closed { facts, index }));
        self.older = std::iter::once(closed).chain(self.older.iter().cloned()).collect();
        self.open_from = end;
        self.state = *state;
    }

    /// The oldest stretch that is to be written.
    pub fn oldest_closed(&self) -> Option<Arc<Closed>> {
        self.older.iter().rev().find_map(|older| match older {
            Older::Closed(closed) => Some(closed.clone()),
            Older::Delta(_) => None,
        })
    }

    /// Puts the layer that a stretch was written as in its place.
    pub fn replace(&mut self, written: &Arc<Closed>, layer: DeltaLayer) {
        let layer = Older::Delta(Arc::new(layer));
        let replaced = self.older.iter().map(|older| match older {
            Older::Closed(closed) if Arc::ptr_eq(closed, written) => layer.clone(),
            other => other.clone(),
        });
        self.older = replaced.collect();
    }

    /// How many versions of pages are in memory.
    pub fn version_count(&self) -> u64 {
        let closed = self.older.iter().map(|older| match older {
            Older::Closed(closed) => closed.index.version_count(),
            Older::Delta(_) => 0,
        });
        self.open.version_count() + closed.sum::<u64>()
    }
}

impl Timeline {
    /// What the newest stretch says that knows anything of what is asked.
    pub(super) fn newest<T>(
        &self,
        mut ask: impl FnMut(&dyn Stretch) -> Result<Option<T>, LayerError>,
    ) -> Result<Option<T>, LayerError> {
        let older = {
            let history = self.history.read();
            if let Some(found) = ask(&history.open)? {
                return Ok(Some(found));
            }
            // Under the same lock: what leaves the open stretch is in an older one at that moment.
            history.older.clone()
        };
        for older in older.iter() {
            if let Some(found) = ask(older.stretch())? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What each stretch says, the oldest first.
    pub(super) fn oldest_first<T>(
        &self,
        ask: impl Fn(&dyn Stretch) -> Result<T, LayerError>,
    ) -> Result<Vec<T>, LayerError> {
        let (newest, older) = {
            let history = self.history.read();
            (ask(&history.open)?, history.older.clone())
        };
        let mut answers = Vec::with_capacity(older.len() + 1);
        for older in older.iter().rev() {
            answers.push(ask(older.stretch())?);
        }
        answers.push(newest);
        Ok(answers)
    }
}
