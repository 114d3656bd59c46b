//! `Stretch`: a part of one timeline's own history, whether it is kept in memory or in a file.
//!
//! A stretch knows what happened between two LSNs and nothing else. Asked about a moment, it answers as
//! of that moment or as of its own end if that is earlier, and mostly with "as below": whoever asks
//! goes on with the stretch before, and after the oldest with what lies below the timeline. Only an image
//! knows everything at its LSN, and so answers for good whatever is asked as of a later one.

use std::sync::Arc;

use bytes::Bytes;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::{BlockNumber, Lsn, Oid, PageImage};

use crate::index::{DbEvent, EndedBy, Known, PageHistory, WalIndex};
use crate::layer::image::LayerError;
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::timeline::StateAt;

/// What a stretch knows of the checkpoint state at an LSN.
#[derive(Clone, Debug)]
pub enum KnownState {
    /// The state.
    At(StateAt),
    /// The state at the end of an earlier record; the WAL from there on tells the rest.
    Before(Lsn, Box<CheckpointState>),
}

/// Pages of one object, asked about together.
pub struct PagesAt<'a> {
    /// Whose pages.
    pub object: ObjectTag,
    /// In ascending order; one may be there more than once.
    pub blocks: &'a [BlockNumber],
    /// As of when.
    pub at: Lsn,
    /// The version of a page that a record up to that LSN makes, if it has been made and is at hand: then
    /// what is older is not needed. A stretch in memory, which may be locked, does not ask.
    pub made: &'a dyn Fn(ObjectPage, Lsn) -> Option<Arc<PageImage>>,
}

impl PagesAt<'_> {
    /// The pages by their names.
    pub fn pages(&self) -> impl Iterator<Item = ObjectPage> + '_ {
        self.blocks.iter().map(|block| ObjectPage { object: self.object, block: *block })
    }
}

/// Blocks in ascending order as runs that lie side by side, or nearly so.
pub struct Runs<'a> {
    blocks: &'a [BlockNumber],
}

/// Blocks that are not asked for in between and do not end a run: about as many as a block of a layer has.
const GAP_MAX: u32 = 4;

impl<'a> Runs<'a> {
    /// The runs of `blocks`.
    pub fn of(blocks: &'a [BlockNumber]) -> Runs<'a> {
        Runs { blocks }
    }

    /// The last block of the next run, if that begins with `block` and has others.
    pub fn begins_at(&mut self, block: BlockNumber) -> Option<BlockNumber> {
        let first = self.blocks.first().filter(|first| **first <= block)?;
        let is_near = |pair: &&[BlockNumber]| match pair {
            [a, b] => b.0.saturating_sub(a.0) <= GAP_MAX + 1,
            _ => false,
        };
        let length = self.blocks.windows(2).take_while(is_near).count() + 1;
        let (run, rest) = self.blocks.split_at(length);
        self.blocks = rest;
        run.last().copied().filter(|last| last > first)
    }
}

/// A part of one timeline's own history. Every method fails only where a file cannot be read.
pub trait Stretch: Send + Sync {
    /// Whether it says all there is at `at`, so that nothing older counts: neither older stretches nor
    /// what lies below the timeline.
    fn knows_all(&self, _at: Lsn) -> bool {
        false
    }

    /// The versions that matter of each of the pages, in their order.
    fn page_histories(&self, asked: &PagesAt<'_>) -> Result<Vec<PageHistory>, LayerError>;

    /// The versions that matter of one page, found the simple way: what `page_histories` has to agree with.
    #[cfg(test)]
    fn page_history(&self, page: ObjectPage, at: Lsn) -> Result<PageHistory, LayerError>;

    /// The size of `object` in pages at `at`; `None`: as below.
    fn size(&self, object: ObjectTag, at: Lsn) -> Result<Option<Known<u32>>, LayerError>;

    /// The last size up to `at`, `None` if it is gone, of every object that got one in this stretch
    /// and did not lose it with its database; or of those in one database.
    fn sizes(
        &self,
        only: Option<DbTag>,
        at: Lsn,
    ) -> Result<Vec<(ObjectTag, Option<u32>)>, LayerError>;

    /// The last thing up to `at` that happened to each database.
    fn database_events(&self, at: Lsn) -> Result<Vec<(DbTag, Lsn, DbEvent)>, LayerError>;

    /// The `pg_filenode.map` of a database at `at`; `None`: as below.
    fn rel_map(&self, tag: DbTag, at: Lsn) -> Result<Option<Known<Bytes>>, LayerError>;

    /// What happened up to `at` to tablespaces: the location of each that changed.
    fn tablespaces(&self, at: Lsn) -> Result<Vec<(Oid, Option<Bytes>)>, LayerError>;

    /// What happened up to `at` to prepared transactions: the last state of each that changed.
    fn two_phase(&self, at: Lsn) -> Result<Vec<(u32, Option<Bytes>)>, LayerError>;

    /// The progress up to `at` of each replication origin that made any, or was dropped.
    fn origins(&self, at: Lsn) -> Result<Vec<(u16, Option<Lsn>)>, LayerError>;

    /// What is known of the checkpoint state at `at`.
    fn state_at(&self, at: Lsn) -> Result<Option<KnownState>, LayerError>;

    /// Where a time (in microseconds since 2000) is among the ends of transactions up to `upto`.
    fn ended_by(&self, time: i64, upto: Lsn) -> Result<EndedBy, LayerError>;

    /// When the latest of the transactions up to `upto` ended, in microseconds since 2000.
    fn latest_end(&self, upto: Lsn) -> Result<Option<i64>, LayerError>;
}

impl Stretch for WalIndex {
    fn page_histories(&self, asked: &PagesAt<'_>) -> Result<Vec<PageHistory>, LayerError> {
        Ok(asked.pages().map(|page| self.page_history(page, asked.at)).collect())
    }

    #[cfg(test)]
    fn page_history(&self, page: ObjectPage, at: Lsn) -> Result<PageHistory, LayerError> {
        Ok(self.page_history(page, at))
    }

    fn size(&self, object: ObjectTag, at: Lsn) -> Result<Option<Known<u32>>, LayerError> {
        Ok(self.size(object, at))
    }

    fn sizes(
        &self,
        only: Option<DbTag>,
        at: Lsn,
    ) -> Result<Vec<(ObjectTag, Option<u32>)>, LayerError> {
        let wanted = |object: &ObjectTag| only.is_none() || object.database() == only;
        let size = |object| match self.size(object, at)? {
            Known::Is(size) => Some((object, size)),
            Known::CopyOf(..) => None,
        };
        Ok(self.objects().filter(wanted).filter_map(size).collect())
    }

    fn database_events(&self, at: Lsn) -> Result<Vec<(DbTag, Lsn, DbEvent)>, LayerError> {
        Ok(self.database_events(at))
    }

    fn rel_map(&self, tag: DbTag, at: Lsn) -> Result<Option<Known<Bytes>>, LayerError> {
        Ok(self.rel_map(tag, at))
    }

    fn tablespaces(&self, at: Lsn) -> Result<Vec<(Oid, Option<Bytes>)>, LayerError> {
        Ok(self.tablespaces(at))
    }

    fn two_phase(&self, at: Lsn) -> Result<Vec<(u32, Option<Bytes>)>, LayerError> {
        Ok(self.two_phase(at))
    }

    fn origins(&self, at: Lsn) -> Result<Vec<(u16, Option<Lsn>)>, LayerError> {
        Ok(self.origins(at))
    }

    fn state_at(&self, at: Lsn) -> Result<Option<KnownState>, LayerError> {
        Ok(self.checkpoint(at).map(|(lsn, state)| KnownState::Before(lsn, Box::new(state))))
    }

    fn ended_by(&self, time: i64, upto: Lsn) -> Result<EndedBy, LayerError> {
        Ok(self.xact_ends().ended_by(time, upto))
    }

    fn latest_end(&self, upto: Lsn) -> Result<Option<i64>, LayerError> {
        Ok(self.xact_ends().latest(upto))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_blocks_side_by_side() {
        let blocks = [3, 4, 4, 9, 20, 30, 31].map(BlockNumber);
        let mut runs = Runs::of(&blocks);
        let found = blocks.map(|block| runs.begins_at(block).map(|last| last.0));
        assert_eq!(found, [Some(9), None, None, None, None, Some(31), None]);
        assert!(Runs::of(&[]).begins_at(BlockNumber(0)).is_none());
    }
}
