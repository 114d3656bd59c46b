//! Removing layers that nobody can ask for: garbage collection.
//!
//! A timeline answers for every LSN from its *horizon* on, and for single *points* before: where branches
//! were made, and whatever else is still needed. To answer for an LSN takes the last image up to there (or the
//! last ones that have all keys together, of images that are there in part) and all deltas from that one on; then no other is ever asked, for what is copied from another database
//! since was copied between the two.
//!
//! First the horizon counts for whoever asks, then the manifest says that the layers are none, then they
//! leave the history, and then the files go. Who has begun to read before looks at the horizon again
//! when done.

use std::collections::{BTreeMap, BTreeSet};

use postgres_formats::Lsn;

use super::freeze::FreezeError;
use super::layers::LayerFile;
use super::manifest::{Layered, Retained};
use super::{Below, Timeline};
use crate::layer::known_keys::KnownKeys;

/// What a collection has removed, or would remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collected {
    /// From here on every LSN can be asked for.
    pub horizon: Lsn,
    /// The layers.
    pub layers: Vec<LayerFile>,
}

impl Collected {
    /// How many bytes of files.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }
}

impl Timeline {
    /// Removes the layers that are needed neither for an LSN from `horizon` on nor for one of `points`, the
    /// latter on this timeline's own history. A horizon never goes back. With `dry` nothing is changed.
    /// `None`: somebody else is about the layers just now.
    ///
    /// # Errors
    /// See `FreezeError`. What is not needed may then be there still.
    pub fn collect(
        &self,
        horizon: Lsn,
        points: &BTreeSet<Lsn>,
        dry: bool,
    ) -> Result<Option<Collected>, FreezeError> {
        let Some(_reshaping) = self.reshaping.try_lock() else { return Ok(None) };
        let before = self.retained.read().clone();
        let wanted = horizon.max(before.horizon).min(self.last_record_lsn());
        // The end of a record, so that a branch can be made there.
        let horizon = match wanted > self.start_lsn() {
            true => self.state_at(wanted)?.base.max(before.horizon),
            false => wanted,
        };
        let files = self.layer_files();
        let own = |point: &&Lsn| **point >= self.start_lsn() && **point < horizon;
        let points: BTreeSet<Lsn> = points.iter().filter(own).copied().collect();
        let mut points = points;
        if matches!(*self.below(), Below::Nothing) || self.is_detaching() {
            // What stock PostgreSQL begins with, too, when `zenith verify` has it make all pages again; and
            // what stands for an ancestor.
            points.insert(self.start_lsn());
        }
        let removed = unneeded(&files, horizon, &points);
        let collected = Collected { horizon, layers: removed.clone() };
        if dry || removed.is_empty() {
            return Ok(Some(collected));
        }
        let next = Retained { horizon, points: points.into_iter().collect() };
        *self.retained.write() = next.clone();
        let names: Vec<String> = removed.into_iter().map(|layer| layer.name).collect();
        {
            let mut layered = self.layered.lock();
            let mut remaining = Layered::clone(&layered);
            remaining.retained = next;
            remaining.deltas.retain(|name| !names.contains(name));
            remaining.images.retain(|name| !names.contains(name));
            // If it fails, the manifest may say so already and only not be sure to last: nothing may stand
            // on these layers any more.
            self.write_layered(&mut layered, remaining)?;
            self.history.write().remove(&names);
        }
        self.remove_layers(&names);
        slog::info!(self.log, "layers that nobody needs were removed"; "horizon" => %horizon,
            "layers" => names.len(), "bytes" => collected.bytes());
        Ok(Some(collected))
    }

    /// From where on every LSN can be asked for, as far as layers of this timeline matter.
    pub(super) fn horizon(&self) -> Lsn {
        self.retained.read().horizon
    }

    /// Whether its own history at `lsn` has not been removed.
    pub(super) fn is_retained(&self, lsn: Lsn) -> bool {
        let retained = self.retained.read();
        let size = self.cluster.segment_size;
        lsn >= retained.horizon
            || retained.points.iter().any(|point| point.normalized(size) == lsn.normalized(size))
    }

    /// The oldest LSN from which on all can be asked for.
    pub fn oldest_lsn(&self) -> Lsn {
        let horizon = self.horizon();
        if horizon > self.start_lsn() {
            return horizon;
        }
        match &*self.below() {
            // What is kept for this timeline may be no more than the point where it begins.
            Below::Ancestor(ancestor, at) => {
                Some(ancestor.oldest_lsn()).filter(|oldest| oldest <= at).unwrap_or(*at)
            }
            Below::Image(layer) => layer.lsn(),
            Below::Nothing => self.start_lsn(),
        }
    }
}

/// The layers without which every LSN from `horizon` on, and each of `points`, is still answered.
fn unneeded(files: &[LayerFile], horizon: Lsn, points: &BTreeSet<Lsn>) -> Vec<LayerFile> {
    // For each of these all between its image and itself has to be there; from the horizon on, all.
    let all = points.iter().copied().chain([horizon]);
    let bases: Vec<Base<'_>> = all.map(|point| Base::of(files, point)).collect();
    let is_needed = |file: &LayerFile| {
        file.end > horizon
            || (file.is_image && file.end == horizon)
            || bases.iter().any(|base| base.takes(file))
    };
    files.iter().filter(|file| !is_needed(file)).cloned().collect()
}

/// What the answer for an LSN begins with.
struct Base<'a> {
    point: Lsn,
    /// Images from here on up to the point have all keys together; `None`: they have not.
    lsn: Option<Lsn>,
    /// The pieces of images that have keys of which none has that is nearer to the point.
    pieces: BTreeSet<&'a str>,
}

impl<'a> Base<'a> {
    fn of(files: &'a [LayerFile], point: Lsn) -> Base<'a> {
        let mut images: BTreeMap<Lsn, Vec<&LayerFile>> = BTreeMap::new();
        for file in files.iter().filter(|file| file.is_image && file.end <= point) {
            images.entry(file.end).or_default().push(file);
        }
        let mut base = Base { point, lsn: None, pieces: BTreeSet::new() };
        let mut known = KnownKeys::default();
        for (lsn, pieces) in images.iter().rev() {
            let needed = pieces.iter().filter(|piece| !known.cover(&piece.keys));
            base.pieces.extend(needed.map(|piece| piece.name.as_str()));
            known.extend(pieces.iter().map(|piece| &piece.keys));
            if known.gap().is_none() {
                base.lsn = Some(*lsn);
                break;
            }
        }
        base
    }

    /// Whether `file`, which is one of them, is needed for the answer.
    fn takes(&self, file: &LayerFile) -> bool {
        match file.is_image {
            true => self.pieces.contains(file.name.as_str()),
            false => file.start < self.point && self.lsn.is_none_or(|image| image < file.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use layers::KeyRange;

    use super::*;

    fn files(deltas: &[(u64, u64)], images: &[u64]) -> Vec<LayerFile> {
        let file = |start: u64, end: u64, is_image| LayerFile {
            name: format!("{start}-{end}"),
            start: Lsn::new(start),
            end: Lsn::new(end),
            bytes: 1,
            is_image,
            keys: KeyRange::ALL,
        };
        let deltas = deltas.iter().map(|(start, end)| file(*start, *end, false));
        deltas.chain(images.iter().map(|at| file(*at, *at, true))).collect()
    }

    fn removed(files: &[LayerFile], horizon: u64, points: &[u64]) -> Vec<String> {
        let points = points.iter().map(|point| Lsn::new(*point)).collect();
        let removed = unneeded(files, Lsn::new(horizon), &points);
        removed.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn without_an_image_all_is_needed() {
        let files = files(&[(10, 20), (20, 30), (30, 40)], &[]);
        assert_eq!(removed(&files, 35, &[]), Vec::<String>::new());
    }

    #[test]
    fn what_is_before_the_image_of_the_horizon_goes() {
        let files = files(&[(10, 20), (20, 30), (30, 40)], &[10, 20, 30]);
        assert_eq!(removed(&files, 10, &[]), Vec::<String>::new());
        assert_eq!(removed(&files, 29, &[]), ["10-20", "10-10"]);
        assert_eq!(removed(&files, 30, &[]), ["10-20", "20-30", "10-10", "20-20"]);
        // From the last image up to the horizon, too, all is needed.
        assert_eq!(removed(&files, 99, &[]), ["10-20", "20-30", "10-10", "20-20"]);
    }

    #[test]
    fn points_keep_what_they_need_and_no_more() {
        let files = files(&[(10, 20), (20, 30), (30, 40), (40, 50)], &[10, 30, 40]);
        assert_eq!(removed(&files, 45, &[20]), ["20-30", "30-40", "30-30"]);
        assert_eq!(removed(&files, 45, &[21]), ["30-40", "30-30"]);
        assert_eq!(removed(&files, 45, &[10]), ["10-20", "20-30", "30-40", "30-30"]);
        assert_eq!(removed(&files, 45, &[30]), ["10-20", "20-30", "30-40", "10-10"]);
        assert_eq!(removed(&files, 45, &[35]), ["10-20", "20-30", "10-10"]);
    }

    #[test]
    fn an_image_in_part_takes_the_place_of_that_part() {
        let piece = |at, what: &str, keys: KeyRange| LayerFile {
            name: format!("{at} {what}"),
            start: Lsn::new(at),
            end: Lsn::new(at),
            bytes: 1,
            is_image: true,
            keys,
        };
        let first = |at| piece(at, "first", KeyRange::new([], [5]));
        let last = |at| piece(at, "last", KeyRange { start: vec![5], end: None });
        let mut files = files(&[(10, 20), (20, 30), (30, 40)], &[]);
        files.extend([first(10), last(10), first(20)]);
        // Of the oldest the last piece is needed, and what comes after it.
        assert_eq!(removed(&files, 40, &[]), ["10 first"]);
        assert_eq!(removed(&files, 40, &[15]), Vec::<String>::new());
        assert_eq!(removed(&files, 25, &[]), ["10 first"]);
        files.push(last(30));
        assert_eq!(removed(&files, 40, &[]), ["10-20", "10 first", "10 last"]);
        assert_eq!(removed(&files, 25, &[]), ["10 first"]);
    }
}
