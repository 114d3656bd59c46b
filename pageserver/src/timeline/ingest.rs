//! Taking in WAL: onto disk, through the decoder, into the index.

use std::io;
use std::sync::atomic::Ordering;

use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::slru::SlruKind;
use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::{
    DecodedRecord, RecordParseError, WalDecodeError, WalRecord, WalStreamDecoder,
};
use postgres_formats::{Lsn, TimelineId};

use super::error::TimelineError;
use super::manifest::Manifest;
use super::tip::{At, Tip};
use super::{Positions, Timeline};
use crate::cluster::Cluster;
use crate::index::IndexOp;
use crate::ingest;

/// A checkpoint state is kept each time this many bytes of WAL have passed, so that the state at
/// any LSN is found by decoding no more than that.
const CHECKPOINT_STATE_EVERY: u64 = 256 * 1024;
/// Steps gathered before the index is locked to apply them.
const BATCH_STEPS_MAX: usize = 4096;
/// How much WAL is read at once when it is indexed from disk.
const READ_CHUNK: usize = 1 << 20;

/// Why WAL was not taken in. Everything before it is kept and stays readable.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The bytes do not continue what was received.
    #[error("WAL at {got} was received where {expected} was expected")]
    Gap {
        /// Where the bytes stand.
        got: Lsn,
        /// Where they should.
        expected: Lsn,
    },
    /// The WAL is damaged, or not this cluster's.
    #[error("WAL of timeline {timeline} is not valid at {}", source.lsn)]
    Decode {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where and why.
        source: WalDecodeError,
    },
    /// A record cannot be taken apart.
    #[error("WAL record of timeline {timeline} at {lsn} makes no sense")]
    Parse {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where the record begins.
        lsn: Lsn,
        /// Why.
        source: RecordParseError,
    },
    /// What a record does is not understood.
    #[error("WAL record of timeline {timeline} at {lsn} cannot be applied")]
    Record {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where the record begins.
        lsn: Lsn,
        /// Why.
        source: ingest::IngestError,
    },
    /// A record's content is malformed.
    #[error("WAL record of timeline {timeline} at {lsn} makes no sense")]
    Content {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where the record begins.
        lsn: Lsn,
        /// Why.
        source: RecordContentError,
    },
    /// The disk refused. Receiving can be taken up again once the cause is mended.
    #[error("cannot write WAL of timeline {timeline}")]
    Io {
        /// Whose WAL.
        timeline: TimelineId,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Syncing failed before, so that nothing is known of what is on disk.
    #[error("WAL of timeline {0} could not be synced; it is taken up again after a restart")]
    SyncFailed(TimelineId),
}

/// The state of the one who writes a timeline.
pub(super) struct Writer {
    decoder: WalStreamDecoder,
    tip: Tip,
    state: CheckpointState,
    /// End of the last complete record, which may be the beginning of a page.
    record_end: Lsn,
    state_kept_at: Lsn,
    sync_failed: bool,
}

impl Writer {
    pub(super) fn new(manifest: &Manifest, cluster: &Cluster) -> Writer {
        let prev = manifest.state.prev_record;
        Writer {
            decoder: decoder(manifest.start, prev, cluster),
            tip: Tip::default(),
            state: manifest.state,
            record_end: manifest.start,
            state_kept_at: manifest.start,
            sync_failed: false,
        }
    }
}

/// A decoder that begins at the record behind the one that begins at `prev`.
fn decoder(from: Lsn, prev: Lsn, cluster: &Cluster) -> WalStreamDecoder {
    let decoder = WalStreamDecoder::new(from, cluster.segment_size, Some(cluster.system_id));
    if prev.is_valid() { decoder.with_prev(prev) } else { decoder }
}

impl Timeline {
    /// Prepares for receiving WAL anew and says from where: the end of the last complete record.
    /// Whatever was received of a record after that is given up, as its sender may be gone and
    /// another one may go on differently.
    ///
    /// # Errors
    /// `Io` if the rest cannot be cut off; `SyncFailed`.
    pub fn restart_receiving(&self) -> Result<Lsn, IngestError> {
        let mut writer = self.writer.lock();
        if writer.sync_failed {
            return Err(IngestError::SyncFailed(self.id()));
        }
        let from = writer.record_end;
        self.wal.end_at(from).map_err(|source| self.io_error(source))?;
        writer.decoder = decoder(from, writer.state.prev_record, &self.cluster);
        let mut positions = self.positions.lock();
        self.restarts.fetch_add(1, Ordering::Relaxed);
        positions.received = positions.last_record;
        // What was cut off is not there, though it had been synced; other bytes may take its place.
        positions.flushed = positions.flushed.min(from);
        Ok(from)
    }

    /// Takes in WAL bytes that stand at `start`: writes them to disk (durable after `sync_wal`)
    /// and makes the records in them readable.
    ///
    /// # Errors
    /// See `IngestError`. After an error call `restart_receiving` before more is received.
    pub fn receive_wal(&self, start: Lsn, bytes: &[u8]) -> Result<(), IngestError> {
        let mut writer = self.writer.lock();
        if writer.sync_failed {
            return Err(IngestError::SyncFailed(self.id()));
        }
        let expected = writer.decoder.expected_lsn();
        if start != expected {
            return Err(IngestError::Gap { got: start, expected });
        }
        self.wal.write(start, bytes).map_err(|source| self.io_error(source))?;
        writer.decoder.feed(start, bytes).map_err(|source| self.decode_error(source))?;
        self.index_decoded(&mut writer)
    }

    /// Makes everything received so far durable and returns how far that goes.
    ///
    /// # Errors
    /// `SyncFailed`: the kernel may have thrown the bytes away, so nothing more is taken in until
    /// the timeline is loaded anew.
    pub fn sync_wal(&self) -> Result<Lsn, IngestError> {
        // Taken before the sync: bytes written during it are not covered.
        let (received, restarts) = {
            let positions = self.positions.lock();
            (positions.received, self.restarts.load(Ordering::Relaxed))
        };
        if self.flushed_lsn() >= received {
            return Ok(self.flushed_lsn());
        }
        if let Err(error) = self.wal.sync() {
            slog::error!(self.log, "syncing WAL failed"; "error" => %error);
            self.writer.lock().sync_failed = true;
            return Err(IngestError::SyncFailed(self.id()));
        }
        let positions = {
            let mut positions = self.positions.lock();
            // Unless what was synced has been cut off meanwhile: other bytes may stand there now.
            if self.restarts.load(Ordering::Relaxed) == restarts {
                positions.flushed = positions.flushed.max(received);
            }
            *positions
        };
        self.mark_flushed(positions);
        Ok(positions.flushed)
    }

    /// Indexes all records whose bytes have been fed, and makes them readable.
    fn index_decoded(&self, writer: &mut Writer) -> Result<(), IngestError> {
        let mut ops = Vec::new();
        let result = loop {
            match writer.decoder.next_record() {
                Ok(Some(record)) => {
                    if let Err(error) = self.index_record(writer, &record, &mut ops) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(source) => break Err(self.decode_error(source)),
            }
        };
        // The records before a bad one are as good as any.
        self.publish(writer, &mut ops, result.is_ok());
        result
    }

    fn index_record(
        &self,
        writer: &mut Writer,
        record: &WalRecord,
        ops: &mut Vec<IndexOp>,
    ) -> Result<(), IngestError> {
        let (timeline, lsn) = (self.id(), record.start);
        let decoded = DecodedRecord::parse(&record.bytes).map_err(|source| IngestError::Parse {
            timeline,
            lsn,
            source,
        })?;
        let changes = ingest::changes_of(record, &decoded)
            .map_err(|source| IngestError::Record { timeline, lsn, source })?;
        if let Some(text) = changes.unsupported {
            slog::error!(self.log, "WAL record is not supported yet, part of its effect is lost";
                "lsn" => %lsn, "record" => text);
        }
        let newest_xid = writer.state.checkpoint.next_xid.xid().0.wrapping_sub(1);
        let newest_clog_page = SlruKind::Clog.page_of(newest_xid);
        let at = At { start: record.start, end: record.end };
        for change in changes.list {
            let in_step = Tip::needs_index_in_step(&change);
            if in_step {
                self.apply(ops);
            }
            writer.tip.resolve(self, at, change, newest_clog_page, ops);
            if in_step {
                self.apply(ops);
            }
        }
        writer.state.observe(&decoded, record).map_err(|source| IngestError::Content {
            timeline,
            lsn,
            source,
        })?;
        writer.record_end = record.end;
        let passed = record.end.distance_from(writer.state_kept_at).unwrap_or(0);
        if passed >= CHECKPOINT_STATE_EVERY {
            let state = Box::new(writer.state);
            ops.push(IndexOp::Checkpoint { lsn: record.end, state });
            writer.state_kept_at = record.end;
        }
        if ops.len() >= BATCH_STEPS_MAX {
            self.publish(writer, ops, false);
        }
        Ok(())
    }

    fn apply(&self, ops: &mut Vec<IndexOp>) {
        if !ops.is_empty() {
            let mut index = self.index.write();
            ops.drain(..).for_each(|op| index.apply(op));
        }
    }

    /// Applies the steps, then lets readers see how far the WAL has come. `all`: everything fed to
    /// the decoder has been taken into account.
    fn publish(&self, writer: &mut Writer, ops: &mut Vec<IndexOp>, all: bool) {
        self.apply(ops);
        writer.tip.trim();
        let last_record = writer.record_end.normalized(self.cluster.segment_size);
        let received = if all { writer.decoder.expected_lsn() } else { writer.record_end };
        {
            let mut positions = self.positions.lock();
            positions.last_record = positions.last_record.max(last_record);
            positions.received = positions.received.max(received);
        }
        // A page header behind the last record holds nothing: who asks for the place where the
        // next record will begin need not wait for it.
        self.readable.advance(received.max(last_record));
    }

    /// Indexes the WAL that is on disk. Where it ends in a way that a crash explains, it is taken
    /// to end there.
    pub(super) fn index_wal_on_disk(&self) -> Result<(), TimelineError> {
        let io = |source| TimelineError::Io { path: self.wal.dir().to_owned(), source };
        let mark = self.flushed_mark.read().map_err(io)?;
        let mut writer = self.writer.lock();
        let mut chunk = vec![0; READ_CHUNK];
        let mut found = "nothing".to_owned();
        loop {
            let from = writer.decoder.expected_lsn();
            let got = self.wal.read(from, &mut chunk).map_err(io)?;
            let Some(bytes) = chunk.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
            let fed = writer.decoder.feed(from, bytes).map_err(|e| self.decode_error(e));
            match fed.and_then(|()| self.index_decoded(&mut writer)) {
                Ok(()) => {}
                Err(IngestError::Decode { source, .. }) if self.may_be_torn(&source, mark)? => {
                    slog::warn!(self.log, "WAL ends with an incomplete record";
                        "lsn" => %source.lsn, "found" => %source);
                    found = source.to_string();
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let last_record = self.positions().last_record;
        if let Some(flushed) = mark.filter(|flushed| *flushed > last_record) {
            let (timeline, lsn) = (self.id(), writer.record_end);
            return Err(TimelineError::LostWal { timeline, lsn, flushed, what: found });
        }
        self.wal.sync_recent().map_err(io)?;
        let mut positions = self.positions.lock();
        positions.received = positions.last_record;
        positions.flushed = positions.last_record;
        Ok(())
    }

    /// Whether a decoding error is what the end of the WAL looks like after a crash. With a mark
    /// the answer is left to that; without one, nothing must have been received in later segments.
    fn may_be_torn(
        &self,
        error: &WalDecodeError,
        mark: Option<Lsn>,
    ) -> Result<bool, TimelineError> {
        if mark.is_some() {
            return Ok(true);
        }
        let segments = self
            .wal
            .segments()
            .map_err(|source| TimelineError::Io { path: self.wal.dir().to_owned(), source })?;
        let at = error.lsn.segment(self.cluster.segment_size);
        Ok(segments.last().is_none_or(|last| *last <= at))
    }

    /// Leaves word of how far the WAL is durable, for whoever loads the timeline next.
    fn mark_flushed(&self, positions: Positions) {
        // Never in the middle of a record: that one may be cut off again.
        let lsn = positions.flushed.min(positions.last_record);
        if let Err(error) = self.flushed_mark.write(lsn) {
            // Nothing depends on it but that damage is found out.
            slog::warn!(self.log, "cannot note how far WAL is durable"; "error" => %error);
        }
    }

    fn io_error(&self, source: io::Error) -> IngestError {
        IngestError::Io { timeline: self.id(), source }
    }

    fn decode_error(&self, source: WalDecodeError) -> IngestError {
        IngestError::Decode { timeline: self.id(), source }
    }
}
