//! Writing a stretch that is in memory, with the WAL that it refers to, as a delta layer.

use std::io::Write;

use layers::{BuildError, Builder, FileId, KeyRange, LayerKind, LayerSpec, Lsn, Options, Summary};
use postgres_formats::TimelineId;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::wal::{DecodedRecord, RecordParseError, WalRecord};

use super::keys::LayerKey;
use super::trail::TrailWriter;
use super::values;
use crate::index::{Version, WalIndex};
use crate::layer::file::owner;
use crate::object::ObjectPage;
use crate::timeline::error::TimelineError;

/// Ends of transactions that are kept in one entry.
const XACT_ENDS_OF_ENTRY: usize = 4096;
/// Records that are asked for together.
const RECORDS_AT_ONCE: usize = 64;

/// Why a layer could not be written. What was written so far is no layer.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file cannot be written, or the entries are none.
    #[error("cannot write a layer")]
    Build(#[from] BuildError),
    /// The WAL cannot be read.
    #[error(transparent)]
    Wal(#[from] TimelineError),
    /// A record that was indexed before makes no sense now.
    #[error("WAL record at {lsn} is damaged")]
    DamagedRecord {
        /// Where it begins.
        lsn: Lsn,
        /// What is wrong with it.
        source: RecordParseError,
    },
}

/// The WAL of a stretch.
pub trait StretchWal {
    /// Gives each record between `start` and `end` in turn, with the state after it, to `take`.
    ///
    /// # Errors
    /// The WAL cannot be read.
    fn each_record(
        &self,
        take: &mut dyn FnMut(&WalRecord, &CheckpointState) -> Result<(), WriteError>,
    ) -> Result<(), WriteError>;

    /// Adds the records that make these versions to `records`, in the same order.
    ///
    /// # Errors
    /// The WAL cannot be read.
    fn records(&self, versions: &[Version], records: &mut Vec<WalRecord>)
    -> Result<(), WriteError>;
}

/// What a stretch is.
#[derive(Clone, Debug)]
pub struct StretchFacts {
    /// Whose history it is.
    pub timeline: TimelineId,
    /// The end of the last record before it.
    pub start: Lsn,
    /// The state there.
    pub state: CheckpointState,
    /// The end of its last record.
    pub end: Lsn,
    /// The state there.
    pub end_state: CheckpointState,
}

/// Writes the stretch in `index` to `out`. Nothing is synced.
///
/// # Errors
/// See `WriteError`.
pub fn write_delta<W: Write>(
    out: W,
    facts: &StretchFacts,
    index: &WalIndex,
    wal: &impl StretchWal,
) -> Result<(Summary, W), WriteError> {
    let spec = LayerSpec {
        file: FileId(rand::random()),
        owner: owner(facts.timeline),
        kind: LayerKind::Delta,
        lsns: facts.start..facts.end.saturating_add(1),
    };
    let mut builder = Builder::new(out, spec, &Options::default())?;
    write_small(&mut builder, index)?;
    write_trail(&mut builder, facts, wal)?;
    for ends in index.xact_ends.all().chunks(XACT_ENDS_OF_ENTRY) {
        if let Some((first, _)) = ends.first() {
            let (kind, value) = values::xact_ends(ends);
            builder.add(&LayerKey::XactEnds.encode(), *first, kind, &value)?;
        }
    }
    for (object, history) in &index.objects {
        let key = LayerKey::Size(*object).encode();
        for (lsn, size) in history.changes() {
            let (kind, value) = values::size(*size);
            builder.add(&key, *lsn, kind, &value)?;
        }
    }
    for (object, history) in &index.objects {
        let key = LayerKey::Cut(*object).encode();
        for (lsn, size) in history.cuts() {
            let (kind, value) = values::size(Some(size));
            builder.add(&key, lsn, kind, &value)?;
        }
    }
    write_pages(&mut builder, index, wal)?;
    Ok(builder.finish(KeyRange::ALL)?)
}

/// What is not of pages and sizes.
fn write_small<W: Write>(builder: &mut Builder<W>, index: &WalIndex) -> Result<(), WriteError> {
    for (tag, history) in &index.databases {
        let key = LayerKey::Database(*tag).encode();
        for (lsn, event) in last_of_each_lsn(history) {
            let (kind, value) = values::database(*event);
            builder.add(&key, *lsn, kind, &value)?;
        }
    }
    for (tag, history) in &index.rel_maps {
        let key = LayerKey::RelMap(*tag).encode();
        for (lsn, map) in last_of_each_lsn(history) {
            let (kind, value) = values::content(Some(map));
            builder.add(&key, *lsn, kind, &value)?;
        }
    }
    for (spc, history) in &index.tablespaces {
        let key = LayerKey::Tablespace(*spc).encode();
        for (lsn, location) in last_of_each_lsn(history) {
            let (kind, value) = values::content(location.as_deref());
            builder.add(&key, *lsn, kind, &value)?;
        }
    }
    for (xid, history) in &index.two_phase {
        let key = LayerKey::TwoPhase(*xid).encode();
        for (lsn, state) in last_of_each_lsn(history) {
            let (kind, value) = values::content(state.as_deref());
            builder.add(&key, *lsn, kind, &value)?;
        }
    }
    for (origin, history) in &index.origins {
        let key = LayerKey::Origin(*origin).encode();
        for (lsn, remote_lsn) in last_of_each_lsn(history) {
            let (kind, value) = values::lsn(*remote_lsn);
            builder.add(&key, *lsn, kind, &value)?;
        }
    }
    Ok(())
}

/// Of several entries of one record the last one counts.
fn last_of_each_lsn<T>(history: &[(Lsn, T)]) -> impl Iterator<Item = &(Lsn, T)> {
    let is_last = |(number, entry): &(usize, &(Lsn, T))| {
        history.get(number + 1).is_none_or(|(next, _)| *next != entry.0)
    };
    history.iter().enumerate().filter(is_last).map(|(_, entry)| entry)
}

fn write_trail<W: Write>(
    builder: &mut Builder<W>,
    facts: &StretchFacts,
    wal: &impl StretchWal,
) -> Result<(), WriteError> {
    let key = LayerKey::Trail.encode();
    let mut trail = TrailWriter::new(facts.start, &facts.state);
    wal.each_record(&mut |record, state| {
        if let Some((begin, piece)) = trail.add(record.start, record.end, state) {
            builder.add(&key, begin, values::IS, &piece)?;
        }
        Ok(())
    })?;
    let (begin, piece) = trail.finish();
    Ok(builder.add(&key, begin, values::IS, &piece)?)
}

fn write_pages<W: Write>(
    builder: &mut Builder<W>,
    index: &WalIndex,
    wal: &impl StretchWal,
) -> Result<(), WriteError> {
    let mut pages: Vec<(ObjectPage, &[Version])> =
        index.pages.iter().map(|(page, versions)| (*page, versions.as_slice())).collect();
    pages.sort_unstable_by_key(|(page, _)| *page);
    let mut rest = pages.iter().flat_map(|(page, all)| all.iter().map(|version| (*page, *version)));
    let (mut of_pages, mut versions) = (Vec::new(), Vec::new());
    let mut records = Vec::new();
    let mut key = (None, Vec::new());
    loop {
        of_pages.clear();
        versions.clear();
        records.clear();
        for (page, version) in rest.by_ref().take(RECORDS_AT_ONCE) {
            of_pages.push(page);
            versions.push(version);
        }
        if versions.is_empty() {
            return Ok(());
        }
        wal.records(&versions, &mut records)?;
        for ((page, version), record) in of_pages.iter().zip(&versions).zip(&records) {
            let decoded = DecodedRecord::parse(&record.bytes)
                .map_err(|source| WriteError::DamagedRecord { lsn: record.start, source })?;
            let (kind, value) = values::page(*page, *version, record, &decoded);
            if key.0 != Some(*page) {
                key = (Some(*page), LayerKey::Page(*page).encode());
            }
            builder.add(&key.1, version.end(), kind, &value)?;
        }
    }
}
