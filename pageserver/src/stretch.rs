//! `Stretch`: a part of one timeline's own history, whether it is kept in memory or in a file.
//!
//! A stretch knows what happened between two LSNs and nothing else. Asked about a moment, it answers as
//! of that moment or as of its own end if that is earlier, and mostly with "as below": whoever asks
//! goes on with the stretch before, and after the oldest with what lies below the timeline. Only an image
//! knows everything at its LSN, and so answers for good whatever is asked as of a later one.

use bytes::Bytes;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::{Lsn, Oid};

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

/// A part of one timeline's own history. Every method fails only where a file cannot be read.
pub trait Stretch: Send + Sync {
    /// Whether it says all there is at `at`, so that nothing older counts: neither older stretches nor
    /// what lies below the timeline.
    fn knows_all(&self, _at: Lsn) -> bool {
        false
    }

    /// The versions of `page` that matter at `at`.
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
