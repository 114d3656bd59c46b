//! `ImagePieces`: an image in several files, each for a range of keys, as far as they are there.
//!
//! The first piece has all that is no page. A page of which the piece is not there yet is looked for in what
//! is older, as if there were no image.

use std::sync::Arc;

use bytes::Bytes;
use layers::{KeyRange, Lsn};
use postgres_formats::{BlockNumber, Oid};

use super::ImagedLayer;
use crate::index::{DbEvent, EndedBy, Foundation, Known, PageHistory};
use crate::layer::delta::keys::LayerKey;
use crate::layer::image::LayerError;
use crate::layer::known_keys::KnownKeys;
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::stretch::{KnownState, PagesAt, Stretch};

/// The pieces of an image.
pub struct ImagePieces {
    lsn: Lsn,
    /// In the order of their keys.
    pieces: Vec<Arc<ImagedLayer>>,
}

impl ImagePieces {
    /// Those of an image of which there is one.
    pub fn new(piece: ImagedLayer) -> ImagePieces {
        ImagePieces { lsn: piece.lsn(), pieces: vec![Arc::new(piece)] }
    }

    /// The same with another piece of it.
    pub fn with(&self, piece: ImagedLayer) -> ImagePieces {
        let mut pieces = self.pieces.clone();
        pieces.retain(|known| known.keys() != piece.keys());
        let at = pieces.partition_point(|known| known.keys().start <= piece.keys().start);
        pieces.insert(at, Arc::new(piece));
        ImagePieces { lsn: self.lsn, pieces }
    }

    /// Those that are `wanted`; `None` if that is none.
    pub fn only(&self, wanted: impl Fn(&ImagedLayer) -> bool) -> Option<ImagePieces> {
        let pieces: Vec<_> = self.pieces.iter().filter(|piece| wanted(piece)).cloned().collect();
        (!pieces.is_empty()).then_some(ImagePieces { lsn: self.lsn, pieces })
    }

    /// The LSN at which all was so.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The pieces, in the order of their keys.
    pub fn pieces(&self) -> &[Arc<ImagedLayer>] {
        &self.pieces
    }

    /// The size of all files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.file_bytes()).sum()
    }

    /// The first range of keys of which the piece is not there; `None` if all are.
    pub fn gap(&self) -> Option<KeyRange> {
        let mut known = KnownKeys::default();
        known.extend(self.pieces.iter().map(|piece| piece.keys()));
        known.gap()
    }

    /// The piece with all that is no page.
    fn first(&self) -> Option<&ImagedLayer> {
        self.pieces.first().filter(|piece| piece.knows_all_but_pages()).map(|piece| &**piece)
    }

    fn of_page(&self, page: ObjectPage) -> Option<&ImagedLayer> {
        let key = LayerKey::Page(page).encode();
        let behind = self.pieces.partition_point(|piece| piece.keys().start <= key);
        let piece = self.pieces.get(behind.checked_sub(1)?)?;
        piece.keys().contains(&key).then_some(piece)
    }

    fn all<T>(
        &self,
        ask: impl Fn(&ImagedLayer) -> Result<Vec<T>, LayerError>,
    ) -> Result<Vec<T>, LayerError> {
        self.first().map_or(Ok(Vec::new()), ask)
    }

    fn one<T>(
        &self,
        ask: impl Fn(&ImagedLayer) -> Result<Option<T>, LayerError>,
    ) -> Result<Option<T>, LayerError> {
        self.first().map_or(Ok(None), ask)
    }
}

impl Stretch for ImagePieces {
    /// All but pages: who asks for these asks each stretch for each.
    fn knows_all(&self, at: Lsn) -> bool {
        at >= self.lsn && self.first().is_some()
    }

    fn page_histories(&self, asked: &PagesAt<'_>) -> Result<Vec<PageHistory>, LayerError> {
        if let [whole] = self.pieces.as_slice()
            && *whole.keys() == KeyRange::ALL
        {
            return whole.page_histories(asked);
        }
        let piece_of =
            |block: &BlockNumber| self.of_page(ObjectPage { object: asked.object, block: *block });
        let is_same = |a: &BlockNumber, b: &BlockNumber| match (piece_of(a), piece_of(b)) {
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let mut histories = Vec::with_capacity(asked.blocks.len());
        for blocks in asked.blocks.chunk_by(is_same) {
            let below = || PageHistory { versions: Vec::new(), foundation: Foundation::Below };
            match blocks.first().and_then(piece_of) {
                Some(piece) => {
                    histories.extend(piece.page_histories(&PagesAt { blocks, ..*asked })?);
                }
                None => histories.extend(blocks.iter().map(|_| below())),
            }
        }
        Ok(histories)
    }

    #[cfg(test)]
    fn page_history(&self, page: ObjectPage, at: Lsn) -> Result<PageHistory, LayerError> {
        match self.of_page(page) {
            Some(piece) => piece.page_history(page, at),
            None => Ok(PageHistory { versions: Vec::new(), foundation: Foundation::Below }),
        }
    }

    fn size(&self, object: ObjectTag, at: Lsn) -> Result<Option<Known<u32>>, LayerError> {
        self.one(|first| first.size(object, at))
    }

    fn sizes(
        &self,
        only: Option<DbTag>,
        at: Lsn,
    ) -> Result<Vec<(ObjectTag, Option<u32>)>, LayerError> {
        self.all(|first| first.sizes(only, at))
    }

    fn database_events(&self, at: Lsn) -> Result<Vec<(DbTag, Lsn, DbEvent)>, LayerError> {
        self.all(|first| first.database_events(at))
    }

    fn rel_map(&self, tag: DbTag, at: Lsn) -> Result<Option<Known<Bytes>>, LayerError> {
        self.one(|first| first.rel_map(tag, at))
    }

    fn tablespaces(&self, at: Lsn) -> Result<Vec<(Oid, Option<Bytes>)>, LayerError> {
        self.all(|first| first.tablespaces(at))
    }

    fn two_phase(&self, at: Lsn) -> Result<Vec<(u32, Option<Bytes>)>, LayerError> {
        self.all(|first| first.two_phase(at))
    }

    fn origins(&self, at: Lsn) -> Result<Vec<(u16, Option<Lsn>)>, LayerError> {
        self.all(|first| first.origins(at))
    }

    fn state_at(&self, at: Lsn) -> Result<Option<KnownState>, LayerError> {
        self.one(|first| first.state_at(at))
    }

    fn ended_by(&self, time: i64, upto: Lsn) -> Result<EndedBy, LayerError> {
        let nothing = EndedBy { last: None, later: false };
        self.first().map_or(Ok(nothing), |first| first.ended_by(time, upto))
    }

    fn latest_end(&self, upto: Lsn) -> Result<Option<i64>, LayerError> {
        self.one(|first| first.latest_end(upto))
    }
}
