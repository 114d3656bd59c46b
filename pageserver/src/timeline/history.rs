//! `History`: a timeline's own history as a row of stretches, the newest of which still grows.
//!
//! The newest stretch is *open*: an index in memory over the WAL. From time to time it is *closed*, and
//! another one is begun. A closed stretch is an index like the open one, until it has been written as a
//! delta layer, which takes its place. Among the deltas stand images: each behind the deltas that begin
//! at its LSN or later, and before the older ones.

use std::sync::Arc;

use postgres_formats::Lsn;
use postgres_formats::checkpoint::CheckpointState;

use super::freeze::delta_name;
use super::manifest::Layered;
use super::{Below, Timeline};
use crate::index::{IndexOp, WalIndex};
use crate::layer::delta::{DeltaLayer, StretchFacts};
use crate::layer::image::LayerError;
use crate::layer::imaged::{ImagePieces, ImagedLayer};
use crate::memory::{MemoryShare, SharedMemory};
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
    /// What the oldest stands on. In here, so that nobody has stretches of one moment and this of another.
    below: Arc<Below>,
}

/// What the newest stretch says that knows anything, and what all stand on.
pub(super) struct Newest<T> {
    /// `None`: no stretch knows anything, so that it is as in what lies below.
    pub found: Option<T>,
    pub below: Arc<Below>,
}

/// The stretches before the open one, the newest first.
pub(super) struct OlderStretches(Arc<[Older]>);

impl OlderStretches {
    pub fn iter(&self) -> impl Iterator<Item = &dyn Stretch> {
        self.0.iter().map(Older::stretch)
    }
}

/// A stretch that does not change any more.
#[derive(Clone)]
enum Older {
    /// In memory, over the WAL.
    Closed(Arc<Closed>),
    /// A file.
    Delta(Arc<DeltaLayer>),
    /// All that was there at an LSN, in one file or in pieces.
    Image(Arc<ImagePieces>),
}

/// What happened up to an LSN, as far as it counts.
pub(super) struct Changes<T> {
    /// What each stretch says, the oldest first.
    pub oldest_first: Vec<T>,
    /// On what that happened; `None`: on nothing, for an image is the oldest that counts.
    pub below: Option<Arc<Below>>,
}

/// A stretch that is to be written.
pub(super) struct Closed {
    pub facts: StretchFacts,
    pub index: WalIndex,
    /// What the index takes, for as long as anybody has it.
    memory: MemoryShare,
}

impl Older {
    fn stretch(&self) -> &dyn Stretch {
        match self {
            Older::Closed(closed) => &closed.index,
            Older::Delta(layer) => &**layer,
            Older::Image(layer) => &**layer,
        }
    }

    /// Where it begins; an image at its LSN, as if it had no length.
    fn start(&self) -> Lsn {
        match self {
            Older::Closed(closed) => closed.facts.start,
            Older::Delta(layer) => layer.start(),
            Older::Image(layer) => layer.lsn(),
        }
    }
}

fn begun(at: Lsn, state: &CheckpointState) -> WalIndex {
    let mut index = WalIndex::default();
    index.apply(IndexOp::Checkpoint { lsn: at, state: Box::new(*state) });
    index
}

impl History {
    /// The history in `deltas`, oldest first, which go as far as `layered` says, and `images`.
    /// They stand on `below`.
    pub fn new(
        layered: &Layered,
        deltas: Vec<DeltaLayer>,
        images: Vec<ImagedLayer>,
        below: Below,
    ) -> History {
        let older = deltas.into_iter().rev().map(|layer| Older::Delta(Arc::new(layer)));
        let mut history = History {
            open: begun(layered.end, &layered.state),
            open_from: layered.end,
            state: layered.state,
            older: older.collect(),
            below: Arc::new(below),
        };
        images.into_iter().for_each(|image| history.add_image(image));
        history
    }

    /// What the oldest stretch stands on.
    pub fn below(&self) -> Arc<Below> {
        self.below.clone()
    }

    /// The oldest stretch, an image, knows all there is from now on. Gives what it stood on.
    pub fn stand_alone(&mut self) -> Arc<Below> {
        std::mem::replace(&mut self.below, Arc::new(Below::Nothing))
    }

    /// Puts an image, or a piece of one, in its place.
    pub fn add_image(&mut self, image: ImagedLayer) {
        let mut older = self.older.to_vec();
        let of_same = older.iter_mut().find_map(|older| match older {
            Older::Image(pieces) if pieces.lsn() == image.lsn() => Some(pieces),
            _ => None,
        });
        match of_same {
            Some(pieces) => *pieces = Arc::new(pieces.with(image)),
            None => {
                let before = older.partition_point(|younger| younger.start() >= image.lsn());
                older.insert(before, Older::Image(Arc::new(ImagePieces::new(image))));
            }
        }
        self.older = older.into();
    }

    /// The layers that are files, the oldest first.
    pub fn layers(&self) -> (Vec<Arc<DeltaLayer>>, Vec<Arc<ImagePieces>>) {
        let (mut deltas, mut images) = (Vec::new(), Vec::new());
        for older in self.older.iter().rev() {
            match older {
                Older::Closed(_) => {}
                Older::Delta(layer) => deltas.push(layer.clone()),
                Older::Image(layer) => images.push(layer.clone()),
            }
        }
        (deltas, images)
    }

    /// How many bytes of WAL the open stretch has when the WAL ends at `end`.
    pub fn open_bytes(&self, end: Lsn) -> u64 {
        end.distance_from(self.open_from).unwrap_or(0)
    }

    /// Closes the open stretch at `end`, the end of its last record, where the state is `state`. Its memory
    /// counts as a part of `memory`.
    pub fn close(
        &mut self,
        timeline: postgres_formats::TimelineId,
        end: Lsn,
        state: &CheckpointState,
        memory: &Arc<SharedMemory>,
    ) {
        let index = std::mem::replace(&mut self.open, begun(end, state));
        let facts = StretchFacts {
            timeline,
            start: self.open_from,
            state: self.state,
            end,
            end_state: *state,
        };
        let closed = Older::Closed(Arc::new(Closed {
            facts,
            memory: memory.share(index.memory_bytes()),
            index,
        }));
        self.older = std::iter::once(closed).chain(self.older.iter().cloned()).collect();
        self.open_from = end;
        self.state = *state;
    }

    /// The oldest stretch that is to be written.
    pub fn oldest_closed(&self) -> Option<Arc<Closed>> {
        self.older.iter().rev().find_map(|older| match older {
            Older::Closed(closed) => Some(closed.clone()),
            Older::Delta(_) | Older::Image(_) => None,
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

    /// Puts a layer in the place of those that it was merged of.
    pub fn merge(&mut self, parts: &[Arc<DeltaLayer>], merged: DeltaLayer) {
        let is_part = |older: &Older| match older {
            Older::Delta(layer) => parts.iter().any(|part| Arc::ptr_eq(part, layer)),
            _ => false,
        };
        let mut older = self.older.to_vec();
        let at = older.iter().position(is_part).unwrap_or(older.len());
        older.retain(|older| !is_part(older));
        older.insert(at, Older::Delta(Arc::new(merged)));
        self.older = older.into();
    }

    /// How many closed stretches there are.
    pub fn waiting(&self) -> usize {
        self.closed().count()
    }

    /// How many bytes of WAL are not in layers when the WAL ends at `end`.
    pub fn unlayered_bytes(&self, end: Lsn) -> u64 {
        let from = self.closed().last().map_or(self.open_from, |oldest| oldest.facts.start);
        end.distance_from(from).unwrap_or(0)
    }

    /// How much memory the indexes take, about.
    pub fn memory_bytes(&self) -> u64 {
        let closed: u64 = self.closed().map(|closed| closed.memory.bytes()).sum();
        self.open.memory_bytes() + closed
    }

    fn closed(&self) -> impl Iterator<Item = &Closed> {
        self.older.iter().filter_map(|older| match older {
            Older::Closed(closed) => Some(&**closed),
            Older::Delta(_) | Older::Image(_) => None,
        })
    }

    /// Removes layers of these names.
    pub fn remove(&mut self, names: &[String]) {
        let remaining = |older: &Older| match older {
            Older::Delta(layer) if names.contains(&delta_name(layer.start(), layer.end())) => None,
            Older::Closed(_) | Older::Delta(_) => Some(older.clone()),
            Older::Image(pieces) => {
                let pieces = pieces.only(|piece| !names.contains(&piece.name()))?;
                Some(Older::Image(Arc::new(pieces)))
            }
        };
        self.older = self.older.iter().filter_map(remaining).collect();
    }

    /// How many versions of pages are in memory.
    pub fn version_count(&self) -> u64 {
        let closed = self.older.iter().map(|older| match older {
            Older::Closed(closed) => closed.index.version_count(),
            Older::Delta(_) | Older::Image(_) => 0,
        });
        self.open.version_count() + closed.sum::<u64>()
    }
}

impl Timeline {
    /// What the newest stretch says that knows anything of what is asked.
    pub(super) fn newest<T>(
        &self,
        mut ask: impl FnMut(&dyn Stretch) -> Result<Option<T>, LayerError>,
    ) -> Result<Newest<T>, LayerError> {
        let (older, below) = {
            let history = self.history.read();
            if let Some(found) = ask(&history.open)? {
                return Ok(Newest { found: Some(found), below: history.below() });
            }
            // Under the same lock: what leaves the open stretch is in an older one at that moment.
            (history.older.clone(), history.below())
        };
        for older in older.iter() {
            if let Some(found) = ask(older.stretch())? {
                return Ok(Newest { found: Some(found), below });
            }
        }
        Ok(Newest { found: None, below })
    }

    /// What the open stretch says, those before it, and what all stand on.
    pub(super) fn ask_open<T>(
        &self,
        ask: impl FnOnce(&dyn Stretch) -> T,
    ) -> (T, OlderStretches, Arc<Below>) {
        let history = self.history.read();
        // Under the same lock: what leaves the open stretch is in an older one at that moment.
        (ask(&history.open), OlderStretches(history.older.clone()), history.below())
    }

    /// What each stretch says, the oldest first, and what they stand on.
    pub(super) fn oldest_first<T>(
        &self,
        ask: impl Fn(&dyn Stretch) -> Result<T, LayerError>,
    ) -> Result<(Vec<T>, Arc<Below>), LayerError> {
        let (newest, older, below) = {
            let history = self.history.read();
            (ask(&history.open)?, history.older.clone(), history.below())
        };
        let mut answers = Vec::with_capacity(older.len() + 1);
        for older in older.iter().rev() {
            answers.push(ask(older.stretch())?);
        }
        answers.push(newest);
        Ok((answers, below))
    }

    /// What each stretch says of what happened up to `at`, back to the last image before.
    pub(super) fn changes<T>(
        &self,
        at: Lsn,
        ask: impl Fn(&dyn Stretch) -> Result<T, LayerError>,
    ) -> Result<Changes<T>, LayerError> {
        let (newest, older, below) = {
            let history = self.history.read();
            (ask(&history.open)?, history.older.clone(), history.below())
        };
        let mut changes = Changes { oldest_first: vec![newest], below: Some(below) };
        for older in older.iter() {
            changes.oldest_first.push(ask(older.stretch())?);
            if older.stretch().knows_all(at) {
                changes.below = None;
                break;
            }
        }
        changes.oldest_first.reverse();
        Ok(changes)
    }
}
