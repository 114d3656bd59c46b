//! Image layers: all there is at one LSN, in an immutable file or in several, each for a range of keys.
//!
//! In a row of stretches an image knows everything about its keys, so that nothing older is asked. What
//! is not in it does not exist. (The first releases began a root timeline with another kind of file,
//! which `layer::image` reads.)

mod pieces;
mod things;
mod write;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use layers::{Entry, KeyRange, LayerKind, Lsn};
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::{Oid, PageImage, TimelineId};

use super::delta::keys::{self, KindRange, LayerKey, first_page_key, sizes_in};
use super::delta::{trail, values};
use super::file::{LayerReader, key_of, layer_error, open_reader};
use super::image::LayerError;
use super::memo::Memo;
use super::source::LayerFiles;
use crate::index::{DbEvent, EndedBy, Foundation, Known, PageHistory};
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::stretch::{KnownState, PagesAt, Runs, Stretch};

pub use pieces::ImagePieces;
pub use things::Things;
pub use write::ImageWriter;

/// An open image layer.
pub struct ImagedLayer {
    path: PathBuf,
    reader: LayerReader,
    lsn: Lsn,
    segment_size: WalSegmentSize,
    sizes: Memo<Option<Option<u32>>>,
}

impl ImagedLayer {
    /// Opens the layer at `path`, which must be an image of `timeline`.
    ///
    /// # Errors
    /// See `LayerError`.
    pub fn open(
        path: &Path,
        timeline: TimelineId,
        segment_size: WalSegmentSize,
        files: &LayerFiles,
    ) -> Result<ImagedLayer, LayerError> {
        let reader = open_reader(path, timeline, LayerKind::Image, files)?;
        let lsn = reader.lsns().start;
        let sizes = Memo::default();
        Ok(ImagedLayer { path: path.to_owned(), reader, lsn, segment_size, sizes })
    }

    /// The LSN at which all was so.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Which keys it speaks of. What is in the range and not in the file does not exist.
    pub fn keys(&self) -> &KeyRange {
        self.reader.keys()
    }

    /// The name of the file.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn knows_all_but_pages(&self) -> bool {
        let KeyRange { start, end } = self.keys();
        start.is_empty() && end.as_ref().is_none_or(|end| *end >= first_page_key())
    }

    /// The size of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.reader.summary().file_bytes
    }

    /// Reads a page; `None` if it is not there, or all zeros.
    ///
    /// # Errors
    /// See `LayerError`.
    pub fn page(&self, page: ObjectPage) -> Result<Option<PageImage>, LayerError> {
        let read = |kind, value: &Bytes| values::read_image(kind, value.clone());
        let found = self.value(LayerKey::Page(page), self.lsn, read)?.flatten();
        Ok(found.map(|page| page.to_image()))
    }

    /// Reads the whole file and checks all of it.
    ///
    /// # Errors
    /// See `LayerError`.
    pub fn verify(&self) -> Result<(), LayerError> {
        self.reader.verify().map(drop).map_err(|error| layer_error(&self.path, error))
    }

    fn senseless(&self, key: LayerKey) -> LayerError {
        LayerError::Corrupt {
            path: self.path.clone(),
            what: format!("the entry of {key:?} makes no sense"),
        }
    }

    /// What `read` makes of the entry of `key`; outer `None`: it is not this image's to say.
    fn value<T>(
        &self,
        key: LayerKey,
        at: Lsn,
        read: impl Fn(u8, &Bytes) -> Option<T>,
    ) -> Result<Option<Option<T>>, LayerError> {
        let bytes = key.encode();
        if at < self.lsn || !self.reader.keys().contains(&bytes) {
            return Ok(None);
        }
        let Some(found) = self.reader.get(&bytes, self.lsn).next() else { return Ok(Some(None)) };
        let found = found.map_err(|error| layer_error(&self.path, error))?;
        let value = read(found.kind, &found.value).ok_or_else(|| self.senseless(key))?;
        Ok(Some(Some(value)))
    }

    /// What `read` makes of all entries in a range of keys; nothing before the image.
    fn values<T>(
        &self,
        range: impl Into<KeyRange>,
        at: Lsn,
        read: impl Fn(LayerKey, u8, &Bytes) -> Option<T>,
    ) -> Result<Vec<T>, LayerError> {
        if at < self.lsn {
            return Ok(Vec::new());
        }
        let entries = self.reader.scan(range.into());
        let value = |entry: Result<Entry, _>| {
            let Entry { key, kind, value, .. } =
                entry.map_err(|error| layer_error(&self.path, error))?;
            let key = key_of(&self.path, &key)?;
            read(key, kind, &value).ok_or_else(|| self.senseless(key))
        };
        entries.map(value).collect()
    }
}

impl Stretch for ImagedLayer {
    fn knows_all(&self, at: Lsn) -> bool {
        at >= self.lsn && *self.reader.keys() == KeyRange::ALL
    }

    fn page_histories(&self, asked: &PagesAt<'_>) -> Result<Vec<PageHistory>, LayerError> {
        let founded = |foundation| PageHistory { versions: Vec::new(), foundation };
        let Some(first) = asked.blocks.first() else { return Ok(Vec::new()) };
        let mut key = LayerKey::Page(ObjectPage { object: asked.object, block: *first }).encode();
        // Few pages are not there: those of zeros.
        let mut way = self.reader.walk().without_filters();
        let mut runs = Runs::of(asked.blocks);
        let history = |page: ObjectPage| {
            if let Some(last) = runs.begins_at(page.block) {
                keys::set_block(&mut key, last);
                way.read_ahead(&key);
            }
            keys::set_block(&mut key, page.block);
            if asked.at < self.lsn || !self.keys().contains(&key) {
                return Ok(founded(Foundation::Below));
            }
            let failed = |error| layer_error(&self.path, error);
            let Some(found) = way.get(&key, self.lsn).map_err(failed)?.next() else {
                return Ok(founded(Foundation::Zero));
            };
            let found = found.map_err(failed)?;
            let page = values::read_image(found.kind, found.value)
                .ok_or_else(|| self.senseless(LayerKey::Page(page)))?;
            Ok(founded(Foundation::Kept(page)))
        };
        asked.pages().map(history).collect()
    }

    #[cfg(test)]
    fn page_history(&self, page: ObjectPage, at: Lsn) -> Result<PageHistory, LayerError> {
        let read = |kind, value: &Bytes| values::read_image(kind, value.clone());
        let found = self.value(LayerKey::Page(page), at, read)?;
        let foundation = match found {
            None => Foundation::Below,
            // A page of zeros, or none at all.
            Some(None) => Foundation::Zero,
            Some(Some(page)) => Foundation::Kept(page),
        };
        Ok(PageHistory { versions: Vec::new(), foundation })
    }

    fn size(&self, object: ObjectTag, at: Lsn) -> Result<Option<Known<u32>>, LayerError> {
        if at < self.lsn {
            return Ok(None);
        }
        let size = |kind, value: &Bytes| values::read_size(kind, value);
        let found = self.sizes.get(object, || {
            let found = self.value(LayerKey::Size(object), self.lsn, size)?;
            Ok(found.map(Option::flatten))
        })?;
        Ok(found.map(Known::Is))
    }

    fn sizes(
        &self,
        only: Option<DbTag>,
        at: Lsn,
    ) -> Result<Vec<(ObjectTag, Option<u32>)>, LayerError> {
        let range = only.map_or_else(|| KindRange::SIZES.into(), sizes_in);
        self.values(range, at, |key, kind, value| match key {
            LayerKey::Size(object) => Some((object, values::read_size(kind, value)?)),
            _ => None,
        })
    }

    fn database_events(&self, at: Lsn) -> Result<Vec<(DbTag, Lsn, DbEvent)>, LayerError> {
        self.values(KindRange::DATABASES, at, |key, kind, value| match key {
            LayerKey::Database(tag) => Some((tag, self.lsn, values::read_database(kind, value)?)),
            _ => None,
        })
    }

    fn rel_map(&self, tag: DbTag, at: Lsn) -> Result<Option<Known<Bytes>>, LayerError> {
        let found = self.value(LayerKey::RelMap(tag), at, values::read_content)?;
        Ok(found.map(|map| Known::Is(map.flatten())))
    }

    fn tablespaces(&self, at: Lsn) -> Result<Vec<(Oid, Option<Bytes>)>, LayerError> {
        self.values(KindRange::TABLESPACES, at, |key, kind, value| match key {
            LayerKey::Tablespace(spc) => Some((spc, values::read_content(kind, value)?)),
            _ => None,
        })
    }

    fn two_phase(&self, at: Lsn) -> Result<Vec<(u32, Option<Bytes>)>, LayerError> {
        self.values(KindRange::TWO_PHASE, at, |key, kind, value| match key {
            LayerKey::TwoPhase(xid) => Some((xid, values::read_content(kind, value)?)),
            _ => None,
        })
    }

    fn origins(&self, at: Lsn) -> Result<Vec<(u16, Option<Lsn>)>, LayerError> {
        self.values(KindRange::ORIGINS, at, |key, kind, value| match key {
            LayerKey::Origin(origin) => Some((origin, values::read_lsn(kind, value)?)),
            _ => None,
        })
    }

    /// The state at the image's own LSN. Of later ones younger stretches know.
    fn state_at(&self, at: Lsn) -> Result<Option<KnownState>, LayerError> {
        let state = self.value(LayerKey::Trail, at, |_, piece| {
            trail::state_at(piece, self.lsn, self.lsn, self.segment_size)
        })?;
        Ok(state.flatten().map(KnownState::At))
    }

    fn ended_by(&self, time: i64, upto: Lsn) -> Result<EndedBy, LayerError> {
        let (mut last, mut later) = (None, false);
        for (lsn, latest) in self.latest(upto)? {
            if latest > time {
                later = true;
                break;
            }
            last = Some(lsn);
        }
        Ok(EndedBy { last, later })
    }

    fn latest_end(&self, upto: Lsn) -> Result<Option<i64>, LayerError> {
        Ok(self.latest(upto)?.last().map(|(_, time)| *time))
    }
}

impl ImagedLayer {
    /// The last transaction before the image with the latest time.
    fn latest(&self, upto: Lsn) -> Result<Vec<(Lsn, i64)>, LayerError> {
        let ends = self
            .value(LayerKey::XactEnds, upto, |kind, value| values::read_xact_ends(kind, value))?;
        Ok(ends.flatten().unwrap_or_default())
    }
}
