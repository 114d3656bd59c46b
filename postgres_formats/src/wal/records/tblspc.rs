//! Tablespace records. Source: PostgreSQL `commands/tablespace.h`.

use super::RecordContentError;
use super::reader::Reader;
use crate::Oid;

/// Content of [`CREATE`](crate::wal::rmgr::tblspc::CREATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TblspcCreate<'a> {
    /// The new tablespace.
    pub spc: Oid,
    /// The directory it links to; empty for one inside the data directory.
    pub path: &'a [u8],
}

impl<'a> TblspcCreate<'a> {
    /// Reads `xl_tblspc_create_rec`.
    pub fn parse(data: &'a [u8]) -> Result<TblspcCreate<'a>, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(TblspcCreate { spc: reader.oid("tablespace")?, path: reader.c_string("path")? })
    }
}

/// Content of [`DROP`](crate::wal::rmgr::tblspc::DROP): the tablespace.
pub fn parse_drop(data: &[u8]) -> Result<Oid, RecordContentError> {
    Reader::new(data).oid("tablespace")
}
