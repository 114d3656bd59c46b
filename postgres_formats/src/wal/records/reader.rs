//! Reading of fields from a record's main data.

use crate::field_reader::{FieldReader, Truncated};
use crate::{Lsn, Oid, RelFileLocator, TransactionId};

/// A record's main data is not what its kind says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordContentError {
    /// The data ends inside a field.
    #[error("{what}: {source}")]
    Truncated {
        /// The field.
        what: &'static str,
        /// Where it ends.
        source: Truncated,
    },
    /// A field has a value that PostgreSQL never writes.
    #[error("{what} is {value}, which is not possible")]
    BadValue {
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// The record is not of a kind that the parser reads.
    #[error("record kind {info:#04x} has no {what}")]
    WrongKind {
        /// What was asked for.
        what: &'static str,
        /// The record's `info`.
        info: u8,
    },
}

/// [`FieldReader`] whose errors name the field, and which knows PostgreSQL's types.
pub(super) struct Reader<'a> {
    fields: FieldReader<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Reader<'a> {
        Reader { fields: FieldReader::new(data) }
    }

    /// The next `n` bytes.
    pub(super) fn bytes(
        &mut self,
        what: &'static str,
        n: usize,
    ) -> Result<&'a [u8], RecordContentError> {
        self.fields.bytes(n).map_err(named(what))
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, RecordContentError> {
        self.fields.u8().map_err(named(what))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, RecordContentError> {
        self.fields.u16().map_err(named(what))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, RecordContentError> {
        self.fields.u32().map_err(named(what))
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, RecordContentError> {
        self.fields.i64().map_err(named(what))
    }

    /// A count or page number that PostgreSQL keeps as a signed `int` but never makes negative.
    pub(super) fn count(&mut self, what: &'static str) -> Result<u32, RecordContentError> {
        let value = self.fields.i32().map_err(named(what))?;
        u32::try_from(value)
            .map_err(|_| RecordContentError::BadValue { what, value: i64::from(value) })
    }

    /// Skips to the next offset that is a multiple of 8 (`MAXALIGN`).
    pub(super) fn align8(&mut self, what: &'static str) -> Result<(), RecordContentError> {
        let padding = self.fields.offset().wrapping_neg() % 8;
        self.fields.skip(padding).map_err(named(what))
    }

    pub(super) fn lsn(&mut self, what: &'static str) -> Result<Lsn, RecordContentError> {
        self.fields.u64().map(Lsn::new).map_err(named(what))
    }

    pub(super) fn oid(&mut self, what: &'static str) -> Result<Oid, RecordContentError> {
        self.u32(what).map(Oid)
    }

    pub(super) fn xid(&mut self, what: &'static str) -> Result<TransactionId, RecordContentError> {
        self.u32(what).map(TransactionId)
    }

    /// `RelFileNode`: tablespace, database, relation.
    pub(super) fn locator(
        &mut self,
        what: &'static str,
    ) -> Result<RelFileLocator, RecordContentError> {
        Ok(RelFileLocator { spc: self.oid(what)?, db: self.oid(what)?, rel: self.oid(what)? })
    }

    /// `count` items of `size` bytes each; the bytes are known to be there before any is read, so
    /// a hostile count cannot make us allocate.
    pub(super) fn items(
        &mut self,
        what: &'static str,
        count: u32,
        size: usize,
    ) -> Result<std::slice::ChunksExact<'a, u8>, RecordContentError> {
        let total = (count as usize).saturating_mul(size);
        Ok(self.bytes(what, total)?.chunks_exact(size))
    }

    /// Passes over `count` items of `size` bytes each.
    pub(super) fn skip_items(
        &mut self,
        what: &'static str,
        count: u32,
        size: usize,
    ) -> Result<(), RecordContentError> {
        self.bytes(what, (count as usize).saturating_mul(size)).map(drop)
    }

    /// `count` transaction ids.
    pub(super) fn xids(
        &mut self,
        what: &'static str,
        count: u32,
    ) -> Result<Vec<TransactionId>, RecordContentError> {
        self.items(what, count, 4)?.map(|item| Reader::new(item).xid(what)).collect()
    }

    /// A string without the zero byte that ends it.
    pub(super) fn c_string(&mut self, what: &'static str) -> Result<&'a [u8], RecordContentError> {
        let mut ahead = self.fields.clone();
        let rest = ahead.bytes(ahead.remaining()).map_err(named(what))?;
        let length = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        let text = self.bytes(what, length)?;
        self.bytes(what, 1)?;
        Ok(text)
    }
}

/// Gives an error of [`FieldReader`] the field's name.
fn named(what: &'static str) -> impl FnOnce(Truncated) -> RecordContentError {
    move |source| RecordContentError::Truncated { what, source }
}
