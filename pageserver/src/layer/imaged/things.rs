//! `Things`: what there is at an LSN besides pages.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::replication_origins::ReplicationOrigins;
use postgres_formats::{Lsn, Oid};

use super::ImagedLayer;
use crate::index::Known;
use crate::layer::image::LayerError;
use crate::object::{DbTag, ObjectTag};
use crate::stretch::{KnownState, Stretch};

/// What there is at an LSN besides pages. It has to fit in memory, like the lists of it elsewhere.
#[derive(Clone, Default, Debug)]
pub struct Things {
    /// The folders of databases, that of the shared relations not among them.
    pub databases: BTreeSet<DbTag>,
    /// `pg_filenode.map` of each folder that has one, the shared relations' among them.
    pub rel_maps: BTreeMap<DbTag, Bytes>,
    /// Where the server keeps each tablespace of the users' own.
    pub tablespaces: BTreeMap<Oid, Bytes>,
    /// The prepared transactions, as their files without the checksum.
    pub two_phase: BTreeMap<u32, Bytes>,
    /// The progress of replication origins.
    pub origins: ReplicationOrigins,
    /// The checkpoint state.
    pub state: CheckpointState,
    /// The latest time (in microseconds since 2000) of the transactions so far, and the last one up to
    /// which it was the latest.
    pub latest_end: Option<(Lsn, i64)>,
    /// Every object, with its size in pages.
    pub objects: BTreeMap<ObjectTag, u32>,
}

impl ImagedLayer {
    /// All that is in the image besides pages.
    ///
    /// # Errors
    /// See `LayerError`.
    pub fn things(&self) -> Result<Things, LayerError> {
        let at = self.lsn();
        let databases: BTreeSet<DbTag> =
            self.database_events(at)?.into_iter().map(|(tag, ..)| tag).collect();
        let shared = DbTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid::INVALID };
        let mut rel_maps = BTreeMap::new();
        for tag in databases.iter().copied().chain([shared]) {
            if let Some(Known::Is(Some(map))) = self.rel_map(tag, at)? {
                rel_maps.insert(tag, map);
            }
        }
        let state = match self.state_at(at)? {
            Some(KnownState::At(state)) => state.state,
            _ => CheckpointState::default(),
        };
        fn there<K: Ord, V>(all: Vec<(K, Option<V>)>) -> BTreeMap<K, V> {
            all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
        }
        Ok(Things {
            databases,
            rel_maps,
            tablespaces: there(self.tablespaces(at)?),
            two_phase: there(self.two_phase(at)?),
            origins: there(self.origins(at)?),
            state,
            latest_end: self.latest(at)?.last().copied(),
            objects: there(self.sizes(None, at)?),
        })
    }
}
