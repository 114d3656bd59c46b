//! The page service: what clients can ask the page server over PostgreSQL's protocol.
//!
//! `command_spec` lists the commands, `command` reads one, `execute` answers those that give rows (`rows`, `status`), `pagestream` and
//! `basebackup` those that copy; `error` says what a client is told when one fails. One handler
//! serves one connection on a thread of its own.

pub mod command;
mod command_spec;
mod counts;
mod error;
mod execute;
mod gc;
mod leases;
mod pagestream;
mod rows;
mod status;
mod table;
mod tags;
mod windows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres_wire::server::{
    Column, Handler, QueryError, QueryWriter, StartupParameters, command_words,
};
use slog::{Logger, debug, info, warn};

use crate::basebackup::BaseBackup;
use crate::collector::Collector;
use crate::expiry::Expiry;
use crate::repository::Repository;
use crate::wal::followers::Followers;
use command::{Command, CommandSpec, ignored_tag};
use counts::StreamCounts;
use error::CommandError;
use pagestream::Common;
use table::Rows;
use windows::Windows;

/// What all connections share.
pub struct PageService {
    repository: Arc<Repository>,
    followers: Arc<Followers>,
    expiry: Arc<Expiry>,
    collector: Arc<Collector>,
    lsn_timeout: Duration,
    started: Instant,
    streams: StreamCounts,
    windows: Windows,
    log: Logger,
}

impl PageService {
    /// The service for `repository`; requests for WAL not yet received wait up to `lsn_timeout`.
    pub fn new(
        repository: Arc<Repository>,
        followers: Arc<Followers>,
        expiry: Arc<Expiry>,
        collector: Arc<Collector>,
        lsn_timeout: Duration,
        log: &Logger,
    ) -> PageService {
        PageService {
            repository,
            followers,
            expiry,
            collector,
            lsn_timeout,
            started: Instant::now(),
            streams: StreamCounts::default(),
            windows: Windows::default(),
            log: log.clone(),
        }
    }

    /// The handler of one connection.
    pub fn connection(self: &Arc<Self>) -> impl Handler + use<> {
        Connection { service: self.clone(), log: self.log.clone() }
    }
}

struct Connection {
    service: Arc<PageService>,
    log: Logger,
}

impl Handler for Connection {
    fn startup(&mut self, parameters: &StartupParameters) -> Result<(), QueryError> {
        if let Some(name) = parameters.get("application_name") {
            self.log = self.log.new(slog::o!("client" => name.to_owned()));
        }
        debug!(self.log, "client connected");
        Ok(())
    }

    fn describe(&mut self, sql: &str) -> Result<Option<Vec<Column>>, QueryError> {
        let words = command_words(sql)?;
        let Some(verb) = words.first() else { return Ok(None) };
        if ignored_tag(verb).is_some() {
            return Ok(None);
        }
        // Only the verb is looked at: the arguments may be parameters.
        let Some(spec) = CommandSpec::find(verb) else {
            let unknown = command::ParseError::Unknown(verb.clone());
            return Err(CommandError::from(unknown).into_query_error());
        };
        Ok((!spec.columns.is_empty()).then(|| columns_of(spec)))
    }

    fn query(&mut self, sql: &str, out: &mut QueryWriter<'_>) -> Result<(), QueryError> {
        let words = command_words(sql)?;
        self.run(&words, out).map_err(|error| {
            if error.is_our_fault() {
                let verb = words.first().cloned().unwrap_or_default();
                warn!(self.log, "a command failed: {}", crate::error_text::with_causes(&error);
                    "command" => verb);
            }
            error.into_query_error()
        })
    }
}

impl Connection {
    fn run(&self, words: &[String], out: &mut QueryWriter<'_>) -> Result<(), CommandError> {
        let command = Command::parse(words)?;
        if let Some(rows) = execute::execute(&self.service, &command)? {
            let spec = words.first().and_then(|verb| CommandSpec::find(verb));
            return Ok(send_rows(spec, &rows, out)?);
        }
        match command {
            Command::PageStream { timeline, generation } => {
                let (id, timeline) = self.service.timeline(&timeline)?;
                let reading = self.service.repository.readings().begin(id);
                let compute = match generation {
                    Some(generation) => self.service.compute(id, generation),
                    None => None,
                };
                let mut copy = out.copy_both()?;
                let PageService { lsn_timeout, streams: counts, windows, .. } = &*self.service;
                let common = Common { lsn_timeout: *lsn_timeout, counts, windows, log: &self.log };
                pagestream::serve(&timeline, compute, reading, &common, &mut copy)?;
                out.complete("PAGESTREAM")?;
            }
            Command::BaseBackup { timeline, lsn, form } => {
                let (id, timeline) = self.service.timeline(&timeline)?;
                let mut reading = self.service.repository.readings().begin(id);
                let began = Instant::now();
                if let Some(lsn) = lsn {
                    reading.reads_on(lsn);
                }
                let backup = BaseBackup::prepare(timeline, lsn, form, self.service.lsn_timeout)?;
                reading.reads_on(backup.base_lsn());
                let copy = backup.write_to(out.copy_out()?)?;
                copy.finish()?;
                out.complete("BASEBACKUP")?;
                info!(self.log, "base backup sent"; "lsn" => %backup.base_lsn(),
                    "milliseconds" => began.elapsed().as_millis() as u64);
            }
            Command::Ignored { tag } => out.complete(tag)?,
            _ => unreachable!("every other command answers with rows"),
        }
        Ok(())
    }
}

fn columns_of(spec: &CommandSpec) -> Vec<Column> {
    spec.columns.iter().map(|name| Column::text(*name)).collect()
}

fn send_rows(
    spec: Option<&CommandSpec>,
    rows: &Rows,
    out: &mut QueryWriter<'_>,
) -> Result<(), QueryError> {
    out.row_description(&spec.map(columns_of).unwrap_or_default())?;
    for row in rows {
        let values: Vec<_> = row.iter().map(|value| value.as_deref().map(str::as_bytes)).collect();
        out.data_row(&values)?;
    }
    out.complete(&format!("SELECT {}", rows.len()))
}
