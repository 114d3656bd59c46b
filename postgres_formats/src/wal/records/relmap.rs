//! Relation map records. Source: PostgreSQL `utils/relmapper.h`, `backend/utils/cache/relmapper.c`.

use super::RecordContentError;
use super::reader::Reader;
use crate::Oid;

/// Size in bytes of `pg_filenode.map` (`RelMapFile`) in PostgreSQL 15.
pub const RELMAP_FILE_SIZE: usize = 512;

/// Content of [`UPDATE`](crate::wal::rmgr::relmap::UPDATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelMapUpdate<'a> {
    /// Database, `Oid::INVALID` for the map of shared catalogs.
    pub db: Oid,
    /// Its default tablespace.
    pub spc: Oid,
    /// The file's new content, `RELMAP_FILE_SIZE` bytes with its own checksum in it.
    pub map: &'a [u8],
}

impl<'a> RelMapUpdate<'a> {
    /// Reads `xl_relmap_update`.
    pub fn parse(data: &'a [u8]) -> Result<RelMapUpdate<'a>, RecordContentError> {
        let mut reader = Reader::new(data);
        let db = reader.oid("database")?;
        let spc = reader.oid("tablespace")?;
        let size = reader.count("size of the map")? as usize;
        if size != RELMAP_FILE_SIZE {
            let value = size as i64;
            return Err(RecordContentError::BadValue { what: "size of the map", value });
        }
        Ok(RelMapUpdate { db, spc, map: reader.bytes("map", size)? })
    }
}
