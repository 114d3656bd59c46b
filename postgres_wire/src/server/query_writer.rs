//! `QueryWriter`: how a handler answers one statement.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

use crate::frame::FrameReader;
use crate::server::copy::{BothDone, CopyBoth, CopyOutWriter, CopyState};
use crate::server::error::QueryError;
use crate::sqlstate::SqlState;
use crate::write::{FrameWriter, put_cstr, put_message};

/// A column of the rows that a statement gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, for drivers; the handler gives every value as text.
    pub kind: ColumnType,
}

impl Column {
    /// A column of type text.
    pub fn text(name: impl Into<String>) -> Column {
        Column { name: name.into(), kind: ColumnType::Text }
    }

    /// A column of type bigint.
    pub fn int8(name: impl Into<String>) -> Column {
        Column { name: name.into(), kind: ColumnType::Int8 }
    }

    /// A column of type boolean; its values are `t` and `f`.
    pub fn bool(name: impl Into<String>) -> Column {
        Column { name: name.into(), kind: ColumnType::Bool }
    }
}

/// The types that our commands' columns have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`
    Text,
    /// `bigint`
    Int8,
    /// `boolean`
    Bool,
}

impl ColumnType {
    /// Object id (PostgreSQL `catalog/pg_type.dat`) and size in bytes; -1 is variable.
    fn oid_and_size(self) -> (u32, i16) {
        match self {
            ColumnType::Text => (25, -1),
            ColumnType::Int8 => (20, 8),
            ColumnType::Bool => (16, 1),
        }
    }

    /// Appends a value given as text in the binary format; `false` if it is not of this type.
    fn put_binary(self, out: &mut BytesMut, text: &[u8]) -> bool {
        match self {
            ColumnType::Text => out.put_slice(text),
            ColumnType::Int8 => {
                match std::str::from_utf8(text).ok().and_then(|t| t.parse::<i64>().ok()) {
                    Some(value) => out.put_i64(value),
                    None => return false,
                }
            }
            ColumnType::Bool => match text {
                b"t" => out.put_u8(1),
                b"f" => out.put_u8(0),
                _ => return false,
            },
        }
        true
    }
}

/// Appends a RowDescription. `formats` as in Bind: none, one for all, or one per column.
pub(crate) fn put_row_description(out: &mut BytesMut, columns: &[Column], formats: &[i16]) {
    put_message(out, b'T', |body| {
        body.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
        for (at, column) in columns.iter().enumerate() {
            let (oid, size) = column.kind.oid_and_size();
            put_cstr(body, &column.name);
            body.put_u32(0); // no table,
            body.put_i16(0); // hence no column of it
            body.put_u32(oid);
            body.put_i16(size);
            body.put_i32(-1); // no type modifier
            body.put_i16(format_of(formats, at));
        }
    });
}

/// The format of column `at`: 0 text, 1 binary.
fn format_of(formats: &[i16], at: usize) -> i16 {
    match formats {
        [] => 0,
        [one] => *one,
        many => many.get(at).copied().unwrap_or(0),
    }
}

/// How the answer is to be framed.
pub(crate) enum Framing {
    /// Simple query: the handler's columns go out as a RowDescription.
    Simple,
    /// Execute of a portal: the client was told the columns before, and may want only some rows.
    Extended { columns: Option<Vec<Column>>, formats: Vec<i16>, rows_max: Option<usize> },
}

/// Rows of a portal beyond what its Execute asked for, and the tag that follows them.
#[derive(Default)]
pub(crate) struct Suspended {
    pub(crate) rows: VecDeque<Bytes>,
    pub(crate) tag: String,
}

/// Answers one statement: rows and a tag, or a COPY and a tag. An error is returned from the
/// handler instead.
pub struct QueryWriter<'c> {
    reader: &'c mut FrameReader,
    writer: &'c mut FrameWriter,
    framing: Framing,
    columns: Option<Vec<Column>>,
    rows: u64,
    suspended: Suspended,
    completed: bool,
    copy: CopyState,
}

impl<'c> QueryWriter<'c> {
    pub(crate) fn new(
        reader: &'c mut FrameReader,
        writer: &'c mut FrameWriter,
        framing: Framing,
    ) -> QueryWriter<'c> {
        QueryWriter {
            reader,
            writer,
            framing,
            columns: None,
            rows: 0,
            suspended: Suspended::default(),
            completed: false,
            copy: CopyState::default(),
        }
    }

    /// Announces the columns. Comes once, before the first row; must be what `Handler::describe`
    /// said about the statement.
    pub fn row_description(&mut self, columns: &[Column]) -> Result<(), QueryError> {
        self.expect_fresh()?;
        match &self.framing {
            Framing::Simple => put_row_description(self.writer.buffer(), columns, &[]),
            Framing::Extended { columns: described, .. } => {
                if described.as_deref() != Some(columns) {
                    return Err(misuse("the rows are not those that were described"));
                }
            }
        }
        self.columns = Some(columns.to_vec());
        Ok(())
    }

    /// One row, every value as text; `None` is NULL.
    pub fn data_row(&mut self, values: &[Option<&[u8]>]) -> Result<(), QueryError> {
        let columns = match &self.columns {
            Some(columns) if columns.len() == values.len() && !self.completed => columns,
            _ => return Err(misuse("a row does not match the announced columns")),
        };
        let (formats, rows_max): (&[i16], _) = match &self.framing {
            Framing::Simple => (&[], None),
            Framing::Extended { formats, rows_max, .. } => (formats, *rows_max),
        };
        let buffer = self.writer.buffer();
        let start = buffer.len();
        let mut wrong = None;
        put_message(buffer, b'D', |body| {
            body.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
            for (at, (value, column)) in values.iter().zip(columns).enumerate() {
                let Some(text) = value else {
                    body.put_i32(-1);
                    continue;
                };
                let length_at = body.len();
                body.put_u32(0);
                if format_of(formats, at) == 0 {
                    body.put_slice(text);
                } else if !column.kind.put_binary(body, text) {
                    wrong = Some(column.name.clone());
                }
                let length = u32::try_from(body.len() - length_at - 4).unwrap_or(u32::MAX);
                if let Some(word) = body.get_mut(length_at..length_at + 4) {
                    word.copy_from_slice(&length.to_be_bytes());
                }
            }
        });
        if let Some(column) = wrong {
            buffer.truncate(start);
            return Err(misuse(&format!("a value of column \"{column}\" is not of its type")));
        }
        self.rows += 1;
        if rows_max.is_some_and(|max| self.rows > max as u64) {
            let row = buffer.split_off(start).freeze();
            self.suspended.rows.push_back(row);
            return Ok(());
        }
        Ok(self.writer.flush_if_full()?)
    }

    /// Ends the answer. `tag` is what psql prints, such as `BRANCH`; rows are counted by PostgreSQL's
    /// convention in tags like `SELECT 3`.
    pub fn complete(&mut self, tag: &str) -> Result<(), QueryError> {
        if self.completed {
            return Err(misuse("a statement is completed twice"));
        }
        self.finish_copy()?;
        self.completed = true;
        if self.suspended.rows.is_empty() {
            put_message(self.writer.buffer(), b'C', |body| put_cstr(body, tag));
        } else {
            self.suspended.tag = tag.to_owned();
            put_message(self.writer.buffer(), b's', |_| ());
        }
        Ok(())
    }

    /// Begins a COPY OUT of bytes; `CopyOutWriter::finish` and then `complete` end it.
    pub fn copy_out(&mut self) -> Result<CopyOutWriter<'_>, QueryError> {
        self.expect_fresh()?;
        if matches!(&self.framing, Framing::Extended { rows_max: Some(_), .. }) {
            return Err(QueryError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "a COPY cannot be fetched by rows",
            ));
        }
        // Overall format 1, binary, and no columns.
        put_message(self.writer.buffer(), b'H', |body| body.put_slice(&[1, 0, 0]));
        Ok(CopyOutWriter::begin(self.writer, &mut self.copy))
    }

    /// Begins a COPY BOTH: messages in both directions until the client ends its side.
    ///
    /// Available to simple queries only: in the extended query protocol the client's Sync would
    /// have to be found among the messages.
    pub fn copy_both(&mut self) -> Result<CopyBoth<'_>, QueryError> {
        self.expect_fresh()?;
        if !matches!(self.framing, Framing::Simple) {
            return Err(QueryError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "this command needs the simple query protocol",
            ));
        }
        put_message(self.writer.buffer(), b'W', |body| body.put_slice(&[1, 0, 0]));
        self.writer.flush()?;
        self.copy = CopyState::Both(BothDone::default());
        match &mut self.copy {
            CopyState::Both(done) => Ok(CopyBoth::begin(self.reader, self.writer, done)),
            _ => Err(misuse("a COPY BOTH is not begun")),
        }
    }

    fn expect_fresh(&self) -> Result<(), QueryError> {
        if self.columns.is_some() || self.completed || self.copy.begun() {
            return Err(misuse("an answer is begun twice"));
        }
        Ok(())
    }

    fn finish_copy(&mut self) -> Result<(), QueryError> {
        match &mut self.copy {
            CopyState::None | CopyState::OutFinished => Ok(()),
            // The client would take what it has for complete.
            CopyState::Out => Err(misuse("a COPY OUT was not finished")),
            CopyState::Both(done) => Ok(CopyBoth::begin(self.reader, self.writer, done).finish()?),
        }
    }

    /// After the handler: completes what it left incomplete, gives back what was suspended.
    pub(crate) fn close(mut self) -> Result<Suspended, QueryError> {
        if !self.completed {
            let tag = match self.columns {
                Some(_) => format!("SELECT {}", self.rows),
                None => "OK".to_owned(),
            };
            self.complete(&tag)?;
        }
        Ok(self.suspended)
    }
}

/// A handler that breaks the rules of this module; the client sees an internal error.
fn misuse(what: &str) -> QueryError {
    QueryError::new(SqlState::INTERNAL_ERROR, format!("error in a command's answer: {what}"))
}
