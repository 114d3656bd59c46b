//! Removing layers that nobody can ask for: garbage collection.
//!
//! A timeline answers for every LSN from its *horizon* on, and before that for single *points* and *ranges*:
//! where branches were made, and whatever else is still needed. To answer for an LSN takes the last image
//! up to there (or the last ones that have all keys together, of images that are there in part) and all
//! deltas from that one on; then no other is ever asked, for what is copied from another database since was
//! copied between the two.
//!
//! First the horizon counts for whoever asks, then the manifest says that the layers are none, then they
//! leave the history, and then the files go. Who has begun to read before looks at the horizon again
//! when done.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::MutexGuard;
use postgres_formats::Lsn;
use postgres_formats::lsn::WalSegmentSize;

use super::error::TimelineError;
use super::freeze::FreezeError;
use super::layers::LayerFile;
use super::manifest::{Layered, Retained};
use super::{Below, Timeline};
use crate::layer::known_keys::KnownKeys;

/// Every LSN from one to another one, both included; of a single point both are the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Needed {
    /// The first.
    pub from: Lsn,
    /// The last; `Lsn::MAX`: all that will ever be.
    pub to: Lsn,
}

impl Needed {
    /// A single LSN.
    pub fn point(lsn: Lsn) -> Needed {
        Needed { from: lsn, to: lsn }
    }

    /// Every LSN from one on.
    pub fn since(lsn: Lsn) -> Needed {
        Needed { from: lsn, to: Lsn::MAX }
    }

    /// Whether `lsn` is one of them, or names the same place as one.
    fn has(&self, lsn: Lsn, size: WalSegmentSize) -> bool {
        let lsn = lsn.normalized(size);
        self.from.normalized(size) <= lsn && lsn <= self.to.normalized(size)
    }
}

/// What a collection removes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collected {
    /// From here on every LSN can be asked for; `Lsn::MAX`: none but what is needed.
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

/// Layers that nobody can ask for any more, whose files are still there. While this is there nobody else
/// changes the timeline's layers.
#[must_use = "the files are there until they are removed"]
pub struct Removal<'t> {
    timeline: &'t Timeline,
    _reshaping: MutexGuard<'t, ()>,
    /// What is removed.
    pub collected: Collected,
}

impl Removal<'_> {
    /// Removes the files. One that cannot be removed is when the timeline is loaded next.
    pub fn finish(self) -> Collected {
        let Collected { horizon, layers } = &self.collected;
        if !layers.is_empty() {
            let names: Vec<String> = layers.iter().map(|layer| layer.name.clone()).collect();
            self.timeline.remove_layers(&names);
            slog::info!(self.timeline.log, "layers that nobody needs were removed";
                "horizon" => %horizon, "layers" => names.len(), "bytes" => self.collected.bytes());
        }
        self.collected
    }
}

impl Timeline {
    /// What can be asked for once only `needed` is kept: no more than before.
    fn remaining(&self, needed: &[Needed]) -> Retained {
        let before = self.retained.read();
        let mut kept: BTreeSet<Needed> = BTreeSet::new();
        for Needed { from, to } in needed {
            // Whoever names a place in a gap, a file put back by hand, say, does not get it back.
            let of = |had: &Needed| Needed { from: *from.max(&had.from), to: *to.min(&had.to) };
            kept.extend(before.all().map(|had| of(&had)).filter(|both| both.from <= both.to));
        }
        Retained::of(kept)
    }

    /// Which layers would go if only `needed` were kept of the timeline's own history.
    pub fn unneeded(&self, needed: &[Needed]) -> Collected {
        let retained = self.remaining(needed);
        let all: Vec<Needed> = retained.all().collect();
        Collected { horizon: retained.horizon, layers: unneeded(&self.layer_files(), &all) }
    }

    /// Takes the layers out of the history that are needed for none of `needed`, so that their files can be
    /// removed. What could not be asked for before cannot be afterwards. `None`: somebody else is about
    /// the layers just now.
    ///
    /// # Errors
    /// See `FreezeError`. What is not needed may then be there still.
    pub fn collect(&self, needed: &[Needed]) -> Result<Option<Removal<'_>>, FreezeError> {
        let Some(reshaping) = self.reshaping.try_lock() else { return Ok(None) };
        let next = self.remaining(needed);
        let all: Vec<Needed> = next.all().collect();
        let layers = unneeded(&self.layer_files(), &all);
        let collected = Collected { horizon: next.horizon, layers };
        let removal = Removal { timeline: self, _reshaping: reshaping, collected };
        if removal.collected.layers.is_empty() {
            return Ok(Some(removal));
        }
        *self.retained.write() = next.clone();
        let names: Vec<&String> =
            removal.collected.layers.iter().map(|layer| &layer.name).collect();
        let mut layered = self.layered.lock();
        let mut remaining = Layered::clone(&layered);
        remaining.retained = next;
        remaining.deltas.retain(|name| !names.contains(&name));
        remaining.images.retain(|name| !names.contains(&name));
        // If it fails, the manifest may say so already and only not be sure to last: nothing may stand
        // on these layers any more.
        self.write_layered(&mut layered, remaining)?;
        self.history.write().remove(&names.into_iter().cloned().collect::<Vec<_>>());
        drop(layered);
        Ok(Some(removal))
    }

    /// The end of the last record up to `lsn` that can be asked for, so that a branch can be made there; the
    /// LSN itself where that is not the timeline's own history any more.
    ///
    /// # Errors
    /// See `TimelineError`.
    pub fn record_end_before(&self, lsn: Lsn) -> Result<Lsn, TimelineError> {
        let lsn = lsn.max(self.horizon()).min(self.last_record_lsn());
        match lsn > self.start_lsn() && self.is_retained(lsn) {
            true => Ok(self.state_at(lsn)?.base.max(self.horizon())),
            false => Ok(lsn),
        }
    }

    /// Where `zenith verify` has a stock server begin that makes all pages again, as long as the WAL from
    /// there on is kept; and what stands for an ancestor that the timeline is being detached from.
    pub fn beginning(&self) -> Option<Lsn> {
        let is_root = !matches!(*self.below(), Below::Ancestor(..));
        let is_needed = is_root && self.layers.options.keep_wal_bytes.is_none();
        (is_needed || self.is_detaching()).then(|| self.start_lsn())
    }

    /// From where on every LSN can be asked for, as far as layers of this timeline matter.
    pub(super) fn horizon(&self) -> Lsn {
        self.retained.read().horizon
    }

    /// Whether its own history at `lsn` has not been removed.
    pub(super) fn is_retained(&self, lsn: Lsn) -> bool {
        let size = self.cluster.segment_size;
        let lsn = lsn.normalized(size);
        let retained = self.retained.read();
        lsn >= retained.horizon || retained.all().any(|all| all.has(lsn, size))
    }

    /// The oldest LSN from which on all can be asked for.
    pub fn oldest_lsn(&self) -> Lsn {
        self.oldest_before(Lsn::MAX)
    }

    /// The same up to `end`, which can be asked for.
    fn oldest_before(&self, end: Lsn) -> Lsn {
        let size = self.cluster.segment_size;
        let oldest = {
            let retained = self.retained.read();
            let has_end = retained.all().filter(|all| all.has(end, size));
            let oldest = has_end.map(|all| all.from).min();
            oldest.unwrap_or(end.min(retained.horizon))
        };
        if oldest > self.start_lsn() {
            return oldest;
        }
        match &*self.below() {
            Below::Ancestor(ancestor, at) => ancestor.oldest_before(*at),
            Below::Image(layer) => layer.lsn(),
            Below::Nothing => self.start_lsn(),
        }
    }
}

impl Retained {
    /// All that is in `kept`.
    fn of(kept: BTreeSet<Needed>) -> Retained {
        let horizon = horizon_of(&kept);
        let before = kept.into_iter().filter(|all| all.from < horizon);
        let (points, ranges): (Vec<Needed>, _) = before.partition(|all| all.from == all.to);
        Retained { horizon, points: points.into_iter().map(|point| point.from).collect(), ranges }
    }

    /// What can be asked for.
    fn all(&self) -> impl Iterator<Item = Needed> + '_ {
        let points = self.points.iter().copied().map(Needed::point);
        let since = Some(Needed::since(self.horizon)).filter(|since| since.from < Lsn::MAX);
        since.into_iter().chain(points).chain(self.ranges.iter().copied())
    }
}

/// From where on all that will ever be is `needed`; `Lsn::MAX`: from nowhere.
pub(crate) fn horizon_of<'a>(needed: impl IntoIterator<Item = &'a Needed>) -> Lsn {
    let open = needed.into_iter().filter(|all| all.to == Lsn::MAX);
    open.map(|all| all.from).min().unwrap_or(Lsn::MAX)
}

/// The layers without which each of `needed` is still answered.
pub(crate) fn unneeded(files: &[LayerFile], needed: &[Needed]) -> Vec<LayerFile> {
    let needed: Vec<Span<'_>> = needed.iter().map(|needed| Span::new(files, *needed)).collect();
    let is_needed = |file: &&LayerFile| needed.iter().any(|span| span.takes(file));
    files.iter().filter(|file| !is_needed(file)).cloned().collect()
}

/// What it takes to answer for every LSN of a range: all from the last image before on.
pub(crate) struct Span<'a> {
    needed: Needed,
    base: Base<'a>,
}

impl<'a> Span<'a> {
    /// With the images that are among `files`.
    pub(crate) fn new(files: &'a [LayerFile], needed: Needed) -> Span<'a> {
        Span { needed, base: Base::of(files, needed.from) }
    }

    /// Whether it takes `file`, which is one of them.
    pub(crate) fn takes(&self, file: &LayerFile) -> bool {
        let Needed { from, to } = self.needed;
        let is_within = from < file.end && file.end <= to;
        match file.is_image {
            true => is_within || self.base.pieces.contains(file.name.as_str()),
            false => file.start < to && self.base.lsn.is_none_or(|image| image < file.end),
        }
    }
}

/// What the answer for an LSN begins with.
struct Base<'a> {
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
        let mut base = Base { lsn: None, pieces: BTreeSet::new() };
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
        let mut needed: Vec<_> =
            points.iter().map(|point| Needed::point(Lsn::new(*point))).collect();
        needed.push(Needed::since(Lsn::new(horizon)));
        removed_but(files, &needed)
    }

    fn removed_but(files: &[LayerFile], needed: &[Needed]) -> Vec<String> {
        unneeded(files, needed).into_iter().map(|file| file.name).collect()
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

    #[test]
    fn a_range_keeps_all_that_answers_within_it() {
        let files = files(&[(10, 20), (20, 30), (30, 40), (40, 50)], &[10, 20, 40, 50]);
        let range = |from, to| [Needed { from: Lsn::new(from), to: Lsn::new(to) }];
        assert_eq!(
            removed_but(&files, &range(25, 30)),
            ["10-20", "30-40", "40-50", "10-10", "40-40", "50-50"]
        );
        assert_eq!(removed_but(&files, &range(19, 31)), ["40-50", "40-40", "50-50"]);
        assert_eq!(removed_but(&files, &range(25, 45)), ["10-20", "10-10", "50-50"]);
        assert_eq!(removed_but(&files, &[]).len(), 8, "nobody needs anything");
    }

    #[test]
    fn what_is_kept_is_sorted_into_a_horizon_points_and_ranges() {
        let needed = |from, to| Needed { from: Lsn::new(from), to: Lsn::new(to) };
        let since = |from| Needed::since(Lsn::new(from));
        let kept = [needed(5, 5), needed(60, 60), needed(7, 9), since(50), since(70)];
        let retained = Retained::of(kept.into_iter().collect());
        let expected = Retained {
            horizon: Lsn::new(50),
            points: vec![Lsn::new(5)],
            ranges: vec![needed(7, 9)],
        };
        assert_eq!(retained, expected);
        assert_eq!(Retained::of(BTreeSet::new()).horizon, Lsn::MAX);
    }
}
