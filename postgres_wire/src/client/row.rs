//! `Row`, one line of a simple query's answer.

use std::sync::Arc;

use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use crate::client::error::ClientError;
use crate::error::ConnectionError;

/// A row in text format.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Option<Bytes>>,
}

impl Row {
    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The values; `None` is NULL.
    pub fn values(&self) -> &[Option<Bytes>] {
        &self.values
    }

    /// The value of a column by its number from zero; `None` if it is NULL or not there.
    pub fn get(&self, column: usize) -> Option<&[u8]> {
        self.values.get(column)?.as_deref()
    }

    /// The text of a column by its name. Fails if there is no such column, if the value is NULL, or
    /// if it is not UTF-8.
    pub fn text(&self, column: &str) -> Result<&str, ClientError> {
        let at =
            self.columns.iter().position(|name| name == column).ok_or_else(|| {
                ClientError::Unexpected(format!("there is no column \"{column}\""))
            })?;
        let value = self
            .get(at)
            .ok_or_else(|| ClientError::Unexpected(format!("column \"{column}\" is null")))?;
        std::str::from_utf8(value)
            .map_err(|_| ClientError::Unexpected(format!("column \"{column}\" is not UTF-8")))
    }

    pub(crate) fn parse(columns: &Arc<[String]>, body: &DataRowBody) -> Result<Row, ClientError> {
        let malformed = || ConnectionError::protocol("malformed DataRow");
        let mut values = Vec::with_capacity(columns.len());
        let mut ranges = body.ranges();
        while let Some(range) = ranges.next().map_err(|_| malformed())? {
            values.push(match range {
                None => None,
                Some(range) if range.start <= range.end && range.end <= body.buffer().len() => {
                    Some(body.buffer_bytes().slice(range))
                }
                Some(_) => return Err(malformed().into()),
            });
        }
        if values.len() != columns.len() {
            return Err(malformed().into());
        }
        Ok(Row { columns: columns.clone(), values })
    }
}

/// The column names of a RowDescription.
pub(crate) fn column_names(body: &RowDescriptionBody) -> Result<Arc<[String]>, ClientError> {
    let mut names = Vec::new();
    let mut fields = body.fields();
    let malformed = |_| ConnectionError::protocol("malformed RowDescription");
    while let Some(field) = fields.next().map_err(malformed)? {
        names.push(field.name().to_owned());
    }
    Ok(names.into())
}
