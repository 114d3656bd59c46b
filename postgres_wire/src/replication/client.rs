//! `ReplicationClient`: the commands of a WAL sender.

use std::str::FromStr;

use postgres_formats::id::SystemId;
use postgres_formats::lsn::{Lsn, WalSegmentSize};

use crate::client::{
    ClientError, ConnectParams, Connection, CopyOrRows, Replication, Row, Timeouts,
};
use crate::replication::error::ReplicationError;
use crate::replication::stream::ReplicationStream;
use crate::sqlstate::SqlState;
use crate::stop::StopSignal;

/// A replication connection that is not streaming.
#[derive(Debug)]
pub struct ReplicationClient {
    connection: Connection,
}

/// The answer to IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentifySystem {
    /// Which cluster this is.
    pub system_id: SystemId,
    /// Its current PostgreSQL timeline.
    pub tli: u32,
    /// Its end of flushed WAL (on a standby: of replayed or received WAL).
    pub wal_end: Lsn,
}

/// The state of a physical slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// WAL from here on is kept; `None` until the slot reserves any.
    pub restart_lsn: Option<Lsn>,
    /// The PostgreSQL timeline of `restart_lsn`.
    pub restart_tli: Option<u32>,
}

impl ReplicationClient {
    /// Connects as a WAL receiver, whatever `params` says about replication. Every wait ends when
    /// `stop` fires.
    pub fn connect(
        params: &ConnectParams,
        timeouts: Timeouts,
        stop: Option<&StopSignal>,
    ) -> Result<ReplicationClient, ReplicationError> {
        let params = ConnectParams { replication: Replication::Physical, ..params.clone() };
        let connection = Connection::connect_until(&params, timeouts, stop)?;
        Ok(ReplicationClient { connection })
    }

    pub(crate) fn from_connection(connection: Connection) -> ReplicationClient {
        ReplicationClient { connection }
    }

    /// Which cluster this is, and how far it is.
    pub fn identify_system(&mut self) -> Result<IdentifySystem, ReplicationError> {
        let row = one_row(self.connection.simple_query("IDENTIFY_SYSTEM")?)?;
        Ok(IdentifySystem {
            system_id: SystemId(parsed(&row, "systemid")?),
            tli: parsed(&row, "timeline")?,
            wal_end: parsed(&row, "xlogpos")?,
        })
    }

    /// The value of a server setting.
    pub fn show(&mut self, setting: &str) -> Result<String, ReplicationError> {
        let row = one_row(self.connection.simple_query(&format!("SHOW {}", quote(setting)))?)?;
        let value = row.get(0).unwrap_or_default();
        Ok(String::from_utf8_lossy(value).into_owned())
    }

    /// The size of the server's WAL segments.
    pub fn wal_segment_size(&mut self) -> Result<WalSegmentSize, ReplicationError> {
        let text = self.show("wal_segment_size")?;
        let (digits, unit) =
            text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit {
            "MB" => 1u32 << 20,
            "GB" => 1 << 30,
            "kB" => 1 << 10,
            _ => 1,
        };
        let size = digits.parse::<u32>().ok().and_then(|n| n.checked_mul(factor));
        let size = size.and_then(WalSegmentSize::new);
        Ok(size.ok_or_else(|| unexpected(format!("wal_segment_size is \"{text}\"")))?)
    }

    /// A parameter that the server reported at login, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.connection.parameter(name)
    }

    /// Creates a physical slot. With `reserve_wal` the server keeps WAL for it from now on, not only
    /// from its first use. With `if_not_exists` an existing slot of that name is as good; gives
    /// whether the slot is new. It is looked for first, which needs PostgreSQL 15: a refusal would be an error in
    /// the server's log.
    pub fn create_physical_slot(
        &mut self,
        name: &str,
        reserve_wal: bool,
        if_not_exists: bool,
    ) -> Result<bool, ReplicationError> {
        if if_not_exists && self.read_slot(name)?.is_some() {
            return Ok(false);
        }
        let reserve = if reserve_wal { " RESERVE_WAL" } else { "" };
        let sql = format!("CREATE_REPLICATION_SLOT {} PHYSICAL{reserve}", quote(name));
        match self.connection.simple_query(&sql) {
            Ok(_) => Ok(true),
            // Somebody else has made it meanwhile.
            Err(e) if if_not_exists && e.sqlstate() == Some(SqlState::DUPLICATE_OBJECT) => {
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The state of a physical slot; `None` if there is none. Needs PostgreSQL 15.
    pub fn read_slot(&mut self, name: &str) -> Result<Option<SlotState>, ReplicationError> {
        let sql = format!("READ_REPLICATION_SLOT {}", quote(name));
        let row = one_row(self.connection.simple_query(&sql)?)?;
        // A slot that does not exist is a row of NULLs.
        if row.get(0).is_none() {
            return Ok(None);
        }
        Ok(Some(SlotState {
            restart_lsn: row.get(1).map(|_| parsed(&row, "restart_lsn")).transpose()?,
            restart_tli: row.get(2).map(|_| parsed(&row, "restart_tli")).transpose()?,
        }))
    }

    /// Drops a slot. With `wait` the server waits until nobody uses it.
    pub fn drop_slot(&mut self, name: &str, wait: bool) -> Result<(), ReplicationError> {
        let wait = if wait { " WAIT" } else { "" };
        let sql = format!("DROP_REPLICATION_SLOT {}{wait}", quote(name));
        match self.connection.simple_query(&sql) {
            Ok(_) => Ok(()),
            Err(e) => Err(ReplicationError::classify(e, Some(name), Lsn::INVALID)),
        }
    }

    /// Streams WAL from `start`, which may be anywhere in a segment, on PostgreSQL timeline `tli`.
    ///
    /// The server looks for the WAL only afterwards: that there is none at `start`, or none yet, is an
    /// error of the stream. The connection is lost if this fails.
    pub fn start_physical(
        self,
        slot: Option<&str>,
        start: Lsn,
        tli: u32,
    ) -> Result<ReplicationStream, ReplicationError> {
        let slot_part = slot.map(|name| format!("SLOT {} ", quote(name))).unwrap_or_default();
        let sql = format!("START_REPLICATION {slot_part}PHYSICAL {start} TIMELINE {tli}");
        let begun = self
            .connection
            .copy_both_or_rows(&sql)
            .map_err(|error| ReplicationError::classify(error, slot, start))?;
        match begun {
            CopyOrRows::Copy(copy) => Ok(ReplicationStream::new(copy, start)),
            // Of a timeline that ended at `start` or before there is nothing to stream.
            CopyOrRows::Rows(rows) => {
                Err(ReplicationError::TimelineEnded { next: next_timeline(&rows)? })
            }
        }
    }
}

/// The row about the next timeline that follows the end of one; PostgreSQL timeline and beginning.
pub(crate) fn next_timeline(rows: &[Row]) -> Result<Option<(u32, Lsn)>, ClientError> {
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((parsed(row, "next_tli")?, parsed(row, "next_tli_startpos")?)))
}

/// A name as an identifier of the replication grammar.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn one_row(rows: Vec<Row>) -> Result<Row, ClientError> {
    rows.into_iter().next().ok_or_else(|| unexpected("no row".to_owned()))
}

fn parsed<T: FromStr>(row: &Row, column: &str) -> Result<T, ClientError> {
    let text = row.text(column)?;
    text.parse().map_err(|_| unexpected(format!("{column} is \"{text}\"")))
}

fn unexpected(what: String) -> ClientError {
    ClientError::Unexpected(what)
}
