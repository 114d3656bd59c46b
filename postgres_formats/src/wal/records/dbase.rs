//! Database records. Source: PostgreSQL `commands/dbcommands_xlog.h`.

use super::RecordContentError;
use super::reader::Reader;
use crate::Oid;

/// Content of [`CREATE_FILE_COPY`](crate::wal::rmgr::dbase::CREATE_FILE_COPY): one record for each
/// tablespace in which the original has files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DbaseCreateFileCopy {
    /// The new database.
    pub db: Oid,
    /// Its tablespace.
    pub spc: Oid,
    /// The original.
    pub source_db: Oid,
    /// The original's tablespace.
    pub source_spc: Oid,
}

impl DbaseCreateFileCopy {
    /// Reads `xl_dbase_create_file_copy_rec`.
    pub fn parse(data: &[u8]) -> Result<DbaseCreateFileCopy, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(DbaseCreateFileCopy {
            db: reader.oid("database")?,
            spc: reader.oid("tablespace")?,
            source_db: reader.oid("source database")?,
            source_spc: reader.oid("source tablespace")?,
        })
    }
}

/// Content of [`CREATE_WAL_LOG`](crate::wal::rmgr::dbase::CREATE_WAL_LOG): the directory appears,
/// its content follows as ordinary records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DbaseCreateWalLog {
    /// The new database.
    pub db: Oid,
    /// Its tablespace.
    pub spc: Oid,
}

impl DbaseCreateWalLog {
    /// Reads `xl_dbase_create_wal_log_rec`.
    pub fn parse(data: &[u8]) -> Result<DbaseCreateWalLog, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(DbaseCreateWalLog { db: reader.oid("database")?, spc: reader.oid("tablespace")? })
    }
}

/// Content of [`DROP`](crate::wal::rmgr::dbase::DROP).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbaseDrop {
    /// The database.
    pub db: Oid,
    /// Every tablespace from which its directory goes.
    pub tablespaces: Vec<Oid>,
}

impl DbaseDrop {
    /// Reads `xl_dbase_drop_rec`.
    pub fn parse(data: &[u8]) -> Result<DbaseDrop, RecordContentError> {
        let mut reader = Reader::new(data);
        let db = reader.oid("database")?;
        let count = reader.count("number of tablespaces")?;
        let tablespaces = reader
            .items("tablespaces", count, 4)?
            .map(|item| Reader::new(item).oid("tablespace"))
            .collect::<Result<_, _>>()?;
        Ok(DbaseDrop { db, tablespaces })
    }
}
