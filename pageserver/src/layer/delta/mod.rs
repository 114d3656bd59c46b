//! Delta layers: a stretch of a timeline's history in an immutable file.
//!
//! The crate `layers` knows how entries are kept in a file; here is what they are. FORMAT.md describes
//! both.

mod chain;
pub(crate) mod keys;
mod merge;
pub(super) mod trail;
pub(super) mod values;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use layers::{Entry, KeyRange, LayerKind, Lsn, ReadError, Versions};
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::{BlockNumber, Oid, TimelineId};

use super::file::{LayerReader, key_of, layer_error, open_reader};
use super::memo::Memo;
use crate::index::{DbEvent, EndedBy, FoundVersion, Foundation, Known, PageHistory};
use crate::layer::image::LayerError;
use crate::layer::source::{LayerFiles, LayerSource};
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::stretch::{KnownState, PagesAt, Runs, Stretch};
use keys::{KindRange, LayerKey, sizes_in};

pub use merge::{MergeError, Merged, write_merged};
pub use values::{KeptVersion, restored_image};
pub use write::{StretchFacts, StretchWal, WriteError, write_delta};

/// An open delta layer.
pub struct DeltaLayer {
    path: PathBuf,
    reader: LayerReader,
    segment_size: WalSegmentSize,
    facts: Memo<Facts>,
    blocks: Memo<Blocks>,
}

/// Which blocks of an object a layer has versions of.
#[derive(Clone, Copy)]
enum Blocks {
    /// It was asked so many times.
    Asked(u8),
    /// These, and perhaps not all in between; `None`: none at all.
    Between(Option<(BlockNumber, BlockNumber)>),
}

/// Times that blocks of an object are looked for before it is found out which there are: that takes two blocks of
/// the layer, which is more than it spares for a small relation.
const ASKED_MAX: u8 = 8;

/// What there is in a layer about an object as a whole.
#[derive(Clone, Copy)]
struct Facts {
    /// It was not cut but once, and nothing happened to its database.
    is_plain: bool,
    /// When it was cut, and to which size.
    cut: Option<(Lsn, u32)>,
    /// The last size.
    size: Option<(Lsn, Option<u32>)>,
}

impl DeltaLayer {
    /// Opens the layer at `path`, which must be one of `timeline`. Its pages get `checksums` where the cluster
    /// has them.
    ///
    /// # Errors
    /// See `LayerError`.
    pub fn open(
        path: &Path,
        timeline: TimelineId,
        segment_size: WalSegmentSize,
        checksums: bool,
        files: &LayerFiles,
    ) -> Result<DeltaLayer, LayerError> {
        let reader = open_reader(path, timeline, LayerKind::Delta, files)?;
        let reader = match checksums {
            true => reader.finishing(values::set_checksum),
            false => reader,
        };
        Ok(DeltaLayer {
            path: path.to_owned(),
            reader,
            segment_size,
            facts: Memo::default(),
            blocks: Memo::default(),
        })
    }

    /// The end of the last record before it.
    pub fn start(&self) -> Lsn {
        self.reader.lsns().start
    }

    /// The end of its last record.
    pub fn end(&self) -> Lsn {
        Lsn::new(self.reader.lsns().end.as_u64() - 1)
    }

    /// The size of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.reader.summary().file_bytes
    }

    /// How many entries it has.
    pub fn entry_count(&self) -> u64 {
        self.reader.summary().entry_count
    }

    /// Reads the whole file and checks all of it.
    ///
    /// # Errors
    /// See `LayerError`.
    pub fn verify(&self) -> Result<(), LayerError> {
        self.reader.verify().map(drop).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: ReadError) -> LayerError {
        layer_error(&self.path, error)
    }

    fn senseless(&self, key: LayerKey) -> LayerError {
        LayerError::Corrupt {
            path: self.path.clone(),
            what: format!("an entry of {key:?} makes no sense"),
        }
    }

    /// The last version of a thing up to `at`, and what `read` makes of it.
    fn last<T>(
        &self,
        key: LayerKey,
        at: Lsn,
        read: impl Fn(u8, &Bytes) -> Option<T>,
    ) -> Result<Option<(Lsn, T)>, LayerError> {
        let Some(version) = self.reader.get(&key.encode(), at).next() else { return Ok(None) };
        let version = version.map_err(|error| self.failed(error))?;
        let value = read(version.kind, &version.value).ok_or_else(|| self.senseless(key))?;
        Ok(Some((version.lsn, value)))
    }

    /// The same for all things in a range of keys, those with no version up to `at` left out.
    fn last_of_each<T>(
        &self,
        range: impl Into<KeyRange>,
        at: Lsn,
        read: impl Fn(u8, &Bytes) -> Option<T>,
    ) -> Result<Vec<(LayerKey, Lsn, T)>, LayerError> {
        let mut found: Vec<(LayerKey, Lsn, T)> = Vec::new();
        for entry in self.reader.scan(range.into()) {
            let Entry { key, lsn, kind, value } = entry.map_err(|error| self.failed(error))?;
            if lsn > at {
                continue;
            }
            let key = key_of(&self.path, &key)?;
            let value = read(kind, &value).ok_or_else(|| self.senseless(key))?;
            match found.last_mut() {
                Some(last) if last.0 == key => *last = (key, lsn, value),
                _ => found.push((key, lsn, value)),
            }
        }
        Ok(found)
    }

    fn facts(&self, object: ObjectTag) -> Result<Facts, LayerError> {
        self.facts.get(object, || {
            let size = self.size_change(object, Lsn::MAX)?;
            let mut cuts = self.reader.get(&LayerKey::Cut(object).encode(), Lsn::MAX);
            let cut = cuts.next().transpose().map_err(|error| self.failed(error))?;
            let is_plain = self.database_event(object, Lsn::MAX)?.is_none()
                && (cut.is_none() || cuts.next().is_none());
            let cut = match cut {
                Some(cut) => Some((cut.lsn, self.cut_to(object, &cut)?)),
                None => None,
            };
            Ok(Facts { is_plain, cut, size })
        })
    }

    /// Whether the layer may have versions of the object's blocks.
    fn blocks(&self, object: ObjectTag) -> Result<Blocks, LayerError> {
        let blocks = self.blocks.change(object, |known| match known {
            None => Blocks::Asked(1),
            Some(Blocks::Asked(times)) => Blocks::Asked(times.saturating_add(1)),
            Some(known) => known,
        });
        let Blocks::Asked(ASKED_MAX..) = blocks else { return Ok(blocks) };
        let key = |block| LayerKey::Page(ObjectPage { object, block }).encode();
        let mut behind = key(BlockNumber(u32::MAX));
        behind.push(0);
        let bounds = self.reader.key_bounds(&KeyRange::new(key(BlockNumber(0)), behind));
        let bounds = bounds.map_err(|error| self.failed(error))?;
        let block = |key: &[u8]| match key_of(&self.path, key)? {
            LayerKey::Page(page) => Ok(page.block),
            other => Err(self.senseless(other)),
        };
        let bounds = match bounds {
            Some([first, last]) => Some((block(&first)?, block(&last)?)),
            None => None,
        };
        Ok(self.blocks.change(object, |_| Blocks::Between(bounds)))
    }

    /// The size that an object was cut to.
    fn cut_to(&self, object: ObjectTag, cut: &layers::Version) -> Result<u32, LayerError> {
        let size = values::read_size(cut.kind, &cut.value);
        Ok(size.ok_or_else(|| self.senseless(LayerKey::Cut(object)))?.unwrap_or(0))
    }

    fn size_change(
        &self,
        object: ObjectTag,
        at: Lsn,
    ) -> Result<Option<(Lsn, Option<u32>)>, LayerError> {
        self.last(LayerKey::Size(object), at, |kind, value| values::read_size(kind, value))
    }

    /// The moments up to `at` at which the object was cut, the last one first, with the size it was cut to; as
    /// far back as to one at which all of it from `first` on was cut off.
    fn cuts(
        &self,
        object: ObjectTag,
        first: BlockNumber,
        at: Lsn,
    ) -> Result<Vec<(Lsn, u32)>, LayerError> {
        let mut cuts = Vec::new();
        for version in self.reader.get(&LayerKey::Cut(object).encode(), at) {
            let version = version.map_err(|error| self.failed(error))?;
            let size = self.cut_to(object, &version)?;
            cuts.push((version.lsn, size));
            if size <= first.0 {
                break;
            }
        }
        Ok(cuts)
    }

    /// The versions up to `at` of one page, as far back as is needed.
    fn versions_of(
        &self,
        page: ObjectPage,
        versions: Versions<'_, LayerSource>,
        floor: Option<Lsn>,
        asked: &PagesAt<'_>,
        history: &mut PageHistory,
    ) -> Result<(), LayerError> {
        for version in versions {
            let version = version.map_err(|error| self.failed(error))?;
            if floor.is_some_and(|floor| version.lsn <= floor) {
                break;
            }
            let found = values::read_page(version.lsn, version.kind, version.value)
                .ok_or_else(|| self.senseless(LayerKey::Page(page)))?;
            let (found, record) = match found {
                KeptVersion::Record(found, record) => (found, record),
                KeptVersion::Image(page) => {
                    history.foundation = Foundation::Kept(page);
                    break;
                }
            };
            if let Some(made) = (asked.made)(page, found.end()) {
                history.foundation = Foundation::Made(made);
                break;
            }
            history.versions.push(FoundVersion { version: found, record: Some(record) });
            if found.will_init() {
                history.foundation = Foundation::Version;
                break;
            }
        }
        Ok(())
    }

    fn database_event(
        &self,
        object: ObjectTag,
        at: Lsn,
    ) -> Result<Option<(Lsn, DbEvent)>, LayerError> {
        match object.database() {
            Some(tag) => self.last(LayerKey::Database(tag), at, |kind, value| {
                values::read_database(kind, value)
            }),
            None => Ok(None),
        }
    }
}

impl Stretch for DeltaLayer {
    fn page_histories(&self, asked: &PagesAt<'_>) -> Result<Vec<PageHistory>, LayerError> {
        let PagesAt { object, at, .. } = *asked;
        let Some(first) = asked.blocks.first() else { return Ok(Vec::new()) };
        let facts = self.facts(object)?;
        let (cuts, last_event) = match facts.is_plain {
            true => (facts.cut.into_iter().filter(|(lsn, _)| *lsn <= at).collect(), None),
            false => (self.cuts(object, *first, at)?, self.database_event(object, at)?),
        };
        let blocks = self.blocks(object)?;
        let mut key = LayerKey::Page(ObjectPage { object, block: *first }).encode();
        let mut way = self.reader.walk();
        let mut runs = Runs::of(asked.blocks);
        let history = |page: ObjectPage| {
            if let Some(last) = runs.begins_at(page.block) {
                keys::set_block(&mut key, last);
                way.read_ahead(&key);
            }
            let cut = cuts.iter().find(|(_, size)| *size <= page.block.0).map(|(lsn, _)| *lsn);
            let event = last_event.filter(|(lsn, _)| Some(*lsn) > cut);
            let floor = event.map(|(lsn, _)| lsn).or(cut);
            let mut history =
                PageHistory { versions: Vec::new(), foundation: Foundation::of(event, cut) };
            if let Blocks::Between(bounds) = blocks
                && bounds.is_none_or(|(first, last)| page.block < first || last < page.block)
            {
                return Ok(history);
            }
            keys::set_block(&mut key, page.block);
            let versions = way.get(&key, at).map_err(|error| self.failed(error))?;
            self.versions_of(page, versions, floor, asked, &mut history)?;
            Ok(history)
        };
        asked.pages().map(history).collect()
    }

    #[cfg(test)]
    fn page_history(&self, page: ObjectPage, at: Lsn) -> Result<PageHistory, LayerError> {
        let mut cut = None;
        for version in self.reader.get(&LayerKey::Cut(page.object).encode(), at) {
            let version = version.map_err(|error| self.failed(error))?;
            let size = values::read_size(version.kind, &version.value).flatten();
            if cut.is_none() && size.unwrap_or(0) <= page.block.0 {
                cut = Some(version.lsn);
            }
        }
        let event = self.database_event(page.object, at)?.filter(|(lsn, _)| Some(*lsn) > cut);
        let floor = event.map(|(lsn, _)| lsn).or(cut);
        let mut history =
            PageHistory { versions: Vec::new(), foundation: Foundation::of(event, cut) };
        for version in self.reader.get(&LayerKey::Page(page).encode(), at) {
            let version = version.map_err(|error| self.failed(error))?;
            if floor.is_some_and(|floor| version.lsn <= floor) {
                break;
            }
            match values::read_page(version.lsn, version.kind, version.value) {
                Some(KeptVersion::Image(page)) => {
                    history.foundation = Foundation::Kept(page);
                    break;
                }
                Some(KeptVersion::Record(found, record)) => {
                    history.versions.push(FoundVersion { version: found, record: Some(record) });
                    if found.will_init() {
                        history.foundation = Foundation::Version;
                        break;
                    }
                }
                None => return Err(self.senseless(LayerKey::Page(page))),
            }
        }
        Ok(history)
    }

    fn size(&self, object: ObjectTag, at: Lsn) -> Result<Option<Known<u32>>, LayerError> {
        let facts = self.facts(object)?;
        if facts.is_plain && facts.size.is_none_or(|(lsn, _)| lsn <= at) {
            return Ok(facts.size.map(|(_, size)| Known::Is(size)));
        }
        let own = self.size_change(object, at)?;
        let event = self.database_event(object, at)?;
        Ok(Known::newer(own, event))
    }

    fn sizes(
        &self,
        only: Option<DbTag>,
        at: Lsn,
    ) -> Result<Vec<(ObjectTag, Option<u32>)>, LayerError> {
        let range = only.map_or_else(|| KindRange::SIZES.into(), sizes_in);
        let events: BTreeMap<DbTag, Lsn> =
            self.database_events(at)?.into_iter().map(|(tag, lsn, _)| (tag, lsn)).collect();
        let sizes = self.last_of_each(range, at, |kind, value| values::read_size(kind, value))?;
        let own = |(key, lsn, size)| match key {
            LayerKey::Size(object) => {
                let event = object.database().and_then(|tag| events.get(&tag));
                event.is_none_or(|event| *event < lsn).then_some((object, size))
            }
            _ => None,
        };
        Ok(sizes.into_iter().filter_map(own).collect())
    }

    fn database_events(&self, at: Lsn) -> Result<Vec<(DbTag, Lsn, DbEvent)>, LayerError> {
        let events = self.last_of_each(KindRange::DATABASES, at, |kind, value| {
            values::read_database(kind, value)
        })?;
        let event = |(key, lsn, event)| match key {
            LayerKey::Database(tag) => Some((tag, lsn, event)),
            _ => None,
        };
        Ok(events.into_iter().filter_map(event).collect())
    }

    fn rel_map(&self, tag: DbTag, at: Lsn) -> Result<Option<Known<Bytes>>, LayerError> {
        let own = self.last(LayerKey::RelMap(tag), at, values::read_content)?;
        let event = self
            .last(LayerKey::Database(tag), at, |kind, value| values::read_database(kind, value))?;
        // A database's first map comes with the record that makes it.
        Ok(match (own, event) {
            (Some((lsn, map)), event) if event.is_none_or(|(e, _)| e <= lsn) => {
                Some(Known::Is(map))
            }
            (_, event) => event.map(|(lsn, event)| Known::after(event, lsn)),
        })
    }

    fn tablespaces(&self, at: Lsn) -> Result<Vec<(Oid, Option<Bytes>)>, LayerError> {
        let found = self.last_of_each(KindRange::TABLESPACES, at, values::read_content)?;
        let tablespace = |(key, _, location)| match key {
            LayerKey::Tablespace(spc) => Some((spc, location)),
            _ => None,
        };
        Ok(found.into_iter().filter_map(tablespace).collect())
    }

    fn two_phase(&self, at: Lsn) -> Result<Vec<(u32, Option<Bytes>)>, LayerError> {
        let found = self.last_of_each(KindRange::TWO_PHASE, at, values::read_content)?;
        let prepared = |(key, _, state)| match key {
            LayerKey::TwoPhase(xid) => Some((xid, state)),
            _ => None,
        };
        Ok(found.into_iter().filter_map(prepared).collect())
    }

    fn origins(&self, at: Lsn) -> Result<Vec<(u16, Option<Lsn>)>, LayerError> {
        let found =
            self.last_of_each(KindRange::ORIGINS, at, |kind, value| values::read_lsn(kind, value))?;
        let origin = |(key, _, remote_lsn)| match key {
            LayerKey::Origin(origin) => Some((origin, remote_lsn)),
            _ => None,
        };
        Ok(found.into_iter().filter_map(origin).collect())
    }

    fn state_at(&self, at: Lsn) -> Result<Option<KnownState>, LayerError> {
        let key = LayerKey::Trail;
        let Some(piece) = self.reader.get(&key.encode(), at).next() else { return Ok(None) };
        let piece = piece.map_err(|error| self.failed(error))?;
        trail::state_at(&piece.value, piece.lsn, at, self.segment_size)
            .map(|state| Some(KnownState::At(state)))
            .ok_or_else(|| self.senseless(key))
    }

    fn ended_by(&self, time: i64, upto: Lsn) -> Result<EndedBy, LayerError> {
        let mut found = EndedBy { last: None, later: false };
        for entry in self.reader.scan(KeyRange::of_key(&LayerKey::XactEnds.encode())) {
            let entry = entry.map_err(|error| self.failed(error))?;
            let ends = values::read_xact_ends(entry.kind, &entry.value)
                .ok_or_else(|| self.senseless(LayerKey::XactEnds))?;
            for (lsn, latest) in ends {
                if lsn > upto {
                    return Ok(found);
                }
                if latest > time {
                    return Ok(EndedBy { later: true, ..found });
                }
                found.last = Some(lsn);
            }
        }
        Ok(found)
    }

    fn latest_end(&self, upto: Lsn) -> Result<Option<i64>, LayerError> {
        let mut latest_so_far = None;
        for entry in self.reader.scan(KeyRange::of_key(&LayerKey::XactEnds.encode())) {
            let entry = entry.map_err(|error| self.failed(error))?;
            let ends = values::read_xact_ends(entry.kind, &entry.value)
                .ok_or_else(|| self.senseless(LayerKey::XactEnds))?;
            for (lsn, latest) in ends {
                if lsn > upto {
                    return Ok(latest_so_far);
                }
                latest_so_far = Some(latest);
            }
        }
        Ok(latest_so_far)
    }
}
