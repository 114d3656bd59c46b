//! Extended query: prepared statements and portals of one connection.
//!
//! Parameters are put into the statement's text as string constants, for the statements are
//! commands of our own that know no types.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits;
use crate::server::Handler;
use crate::server::error::QueryError;
use crate::server::frontend::{Bind, Target};
use crate::server::query_writer::{Column, Suspended, put_row_description};
use crate::server::statement::{parameter_count, single_statement, substitute};
use crate::sqlstate::SqlState;
use crate::write::put_message;

/// Type ids of parameters (PostgreSQL `catalog/pg_type.dat`).
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const OID: u32 = 26;
    pub(super) const UNKNOWN: u32 = 705;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const NAME: u32 = 19;
}

/// A prepared statement.
#[derive(Clone)]
struct Prepared {
    sql: String,
    parameter_types: Vec<u32>,
    columns: Option<Vec<Column>>,
}

/// A statement with its parameters, ready to run.
pub(crate) struct Portal {
    /// The statement's text; empty for an empty statement.
    pub(crate) sql: String,
    pub(crate) columns: Option<Vec<Column>>,
    pub(crate) formats: Vec<i16>,
    pub(crate) progress: Progress,
}

/// How far a portal was executed.
pub(crate) enum Progress {
    Fresh,
    Suspended(Suspended),
    Done,
}

/// The prepared statements and portals of one connection.
#[derive(Default)]
pub(crate) struct Extended {
    statements: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
}

impl Extended {
    pub(crate) fn parse(
        &mut self,
        out: &mut BytesMut,
        handler: &mut dyn Handler,
        name: String,
        sql: &Bytes,
        mut types: Vec<u32>,
    ) -> Result<(), QueryError> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(QueryError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let sql = single_statement(text_of(sql)?)?;
        check_room(self.statements.values().map(|held| &held.sql), sql)?;
        let count = parameter_count(sql)?.max(types.len());
        types.resize(count, 0);
        for kind in types.iter_mut().filter(|kind| matches!(**kind, 0 | oid::UNKNOWN)) {
            *kind = oid::TEXT;
        }
        let columns = if sql.is_empty() { None } else { handler.describe(sql)? };
        let prepared = Prepared { sql: sql.to_owned(), parameter_types: types, columns };
        self.statements.insert(name, prepared);
        put_message(out, b'1', |_| ());
        Ok(())
    }

    pub(crate) fn bind(&mut self, out: &mut BytesMut, bind: Bind) -> Result<(), QueryError> {
        let statement = self.statement(&bind.statement)?;
        if bind.parameters.len() != statement.parameter_types.len() {
            return Err(QueryError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but the statement requires {}",
                    bind.parameters.len(),
                    statement.parameter_types.len()
                ),
            ));
        }
        if bind.result_formats.iter().chain(&bind.parameter_formats).any(|f| !(0..=1).contains(f)) {
            return Err(QueryError::new(SqlState::PROTOCOL_VIOLATION, "unknown format code"));
        }
        let format = |at: usize| match bind.parameter_formats.as_slice() {
            [] => 0,
            [one] => *one,
            many => many.get(at).copied().unwrap_or(0),
        };
        let values = bind
            .parameters
            .iter()
            .zip(&statement.parameter_types)
            .enumerate()
            .map(|(at, (value, &kind))| {
                value.as_ref().map(|v| parameter_text(v, kind, format(at))).transpose()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let portal = Portal {
            sql: substitute(&statement.sql, &values)?,
            columns: statement.columns.clone(),
            formats: bind.result_formats,
            progress: Progress::Fresh,
        };
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(QueryError::new(
                SqlState::INVALID_CURSOR_NAME,
                format!("portal \"{}\" already exists", bind.portal),
            ));
        }
        check_room(self.portals.values().map(|held| &held.sql), &portal.sql)?;
        self.portals.insert(bind.portal, portal);
        put_message(out, b'2', |_| ());
        Ok(())
    }

    pub(crate) fn describe(&self, out: &mut BytesMut, target: &Target) -> Result<(), QueryError> {
        let (columns, formats) = match target {
            Target::Statement(name) => {
                let statement = self.statement(name)?;
                put_message(out, b't', |body| {
                    let count = u16::try_from(statement.parameter_types.len());
                    body.put_u16(count.unwrap_or(u16::MAX));
                    for &kind in &statement.parameter_types {
                        body.put_u32(kind);
                    }
                });
                (&statement.columns, &[][..])
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (&portal.columns, portal.formats.as_slice())
            }
        };
        match columns {
            Some(columns) => put_row_description(out, columns, formats),
            None => put_message(out, b'n', |_| ()),
        }
        Ok(())
    }

    /// The portal to execute.
    pub(crate) fn portal(&mut self, name: &str) -> Result<&mut Portal, QueryError> {
        self.portals.get_mut(name).ok_or_else(|| no_portal(name))
    }

    /// Closing what does not exist is no error.
    pub(crate) fn close(&mut self, out: &mut BytesMut, target: &Target) {
        match target {
            Target::Statement(name) => drop(self.statements.remove(name)),
            Target::Portal(name) => drop(self.portals.remove(name)),
        }
        put_message(out, b'3', |_| ());
    }

    /// Portals live as long as the transaction, which here ends with every Sync.
    pub(crate) fn sync(&mut self) {
        self.portals.clear();
    }

    fn statement(&self, name: &str) -> Result<&Prepared, QueryError> {
        self.statements.get(name).ok_or_else(|| {
            QueryError::new(
                SqlState::INVALID_SQL_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }
}

fn no_portal(name: &str) -> QueryError {
    QueryError::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

/// Whether `new` may be held besides what is held already.
fn check_room<'a>(held: impl Iterator<Item = &'a String>, new: &str) -> Result<(), QueryError> {
    let (count, bytes) = held.fold((0, 0), |(count, bytes), sql| (count + 1, bytes + sql.len()));
    if count < limits::PREPARED_MAX && bytes + new.len() <= limits::PREPARED_BYTES_MAX {
        return Ok(());
    }
    Err(QueryError::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!(
            "a connection may hold {} prepared statements and portals of {} bytes together",
            limits::PREPARED_MAX,
            limits::PREPARED_BYTES_MAX
        ),
    ))
}

/// The text of a query.
pub(crate) fn text_of(sql: &[u8]) -> Result<&str, QueryError> {
    std::str::from_utf8(sql).map_err(|_| {
        QueryError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "the statement is not valid UTF-8")
    })
}

/// A parameter's value as text.
fn parameter_text(value: &Bytes, kind: u32, format: i16) -> Result<String, QueryError> {
    let is_text = matches!(kind, oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN);
    if format == 0 || is_text {
        return std::str::from_utf8(value).map(str::to_owned).map_err(|_| {
            QueryError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "a parameter is not valid UTF-8")
        });
    }
    let mut bytes = value.clone();
    let text = match kind {
        oid::BOOL => bytes.try_get_u8().map(|b| if b == 0 { "f" } else { "t" }.to_owned()),
        oid::INT2 => bytes.try_get_i16().map(|n| n.to_string()),
        oid::INT4 => bytes.try_get_i32().map(|n| n.to_string()),
        oid::INT8 => bytes.try_get_i64().map(|n| n.to_string()),
        oid::OID => bytes.try_get_u32().map(|n| n.to_string()),
        other => {
            return Err(QueryError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("binary parameters of type {other} are not supported"),
            )
            .with_hint("Pass the parameter as text."));
        }
    };
    text.ok().filter(|_| bytes.is_empty()).ok_or_else(|| {
        QueryError::new(
            SqlState::INVALID_BINARY_REPRESENTATION,
            "a binary parameter has the wrong length",
        )
    })
}
