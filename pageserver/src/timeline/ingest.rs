//! Taking in WAL: onto disk, through the decoder, into the index.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::wal::records::RecordContentError;
use postgres_formats::wal::{
    DecodedRecord, RecordParseError, WalDecodeError, WalRecord, WalStreamDecoder, rmgr,
};
use postgres_formats::{Lsn, TimelineId};
use walredo_pool::CustomManagers;

use super::Timeline;
use super::error::TimelineError;
use super::heal::Probe;
use super::load::kind_of;
use super::manifest::{Layered, Manifest};
use super::room::Room;
use super::tip::{At, Tip};
use crate::cluster::Cluster;
use crate::index::IndexOp;
use crate::ingest;
use crate::page_maker::MakeError;
use crate::stop::{Stop, StopKind};

/// A checkpoint state is kept each time this many bytes of WAL have passed, so that the state at
/// any LSN is found by decoding no more than that.
const CHECKPOINT_STATE_EVERY: u64 = 256 * 1024;
/// Steps gathered before the index is locked to apply them.
const BATCH_STEPS_MAX: usize = 4096;

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
    /// Whether the resource manager of an extension is known cannot be found out.
    #[error("WAL record of timeline {timeline} at {lsn} is an extension's")]
    Managers {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where the record begins.
        lsn: Lsn,
        /// Why.
        source: MakeError,
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
    /// What was known before the record cannot be read.
    #[error("WAL record of timeline {timeline} at {lsn} cannot be applied")]
    History {
        /// Whose WAL.
        timeline: TimelineId,
        /// Where the record begins.
        lsn: Lsn,
        /// Why.
        source: Box<TimelineError>,
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
    #[error("WAL of timeline {0} could not be synced")]
    SyncFailed(TimelineId),
    /// The timeline's own WAL on disk has to be mended first, or an ancestor's.
    #[error("WAL is {0}")]
    Stopped(Arc<Stop>),
}

impl IngestError {
    /// What kind of stop it makes.
    pub fn stop_kind(&self) -> StopKind {
        match self {
            IngestError::Gap { .. } => StopKind::Missing,
            IngestError::Decode { source, .. } => kind_of(&source.kind),
            IngestError::Parse { .. }
            | IngestError::Record { .. }
            | IngestError::Managers { .. }
            | IngestError::Content { .. } => StopKind::NotUnderstood,
            IngestError::History { .. } | IngestError::Io { .. } | IngestError::SyncFailed(_) => {
                StopKind::Disk
            }
            IngestError::Stopped(stop) => stop.kind,
        }
    }
}

/// The state of the one who writes a timeline.
pub(super) struct Writer {
    pub(super) decoder: WalStreamDecoder,
    tip: Tip,
    state: CheckpointState,
    /// End of the last complete record, which may be the beginning of a page.
    record_end: Lsn,
    state_kept_at: Lsn,
    pub(super) sync_failed: bool,
    /// Why the WAL on disk is not indexed to its end. Nothing behind that is changed as long as it
    /// is so.
    pub(super) on_disk: Option<StopKind>,
    /// What is received in place of WAL that is damaged on disk.
    pub(super) probe: Option<Probe>,
    room: Room,
}

impl Writer {
    pub(super) fn new(manifest: &Manifest, cluster: &Cluster) -> Writer {
        let Layered { end, state, .. } = manifest.layered;
        let prev = state.prev_record;
        Writer {
            decoder: decoder(end, prev, cluster),
            tip: Tip::default(),
            state,
            record_end: end,
            state_kept_at: end,
            sync_failed: false,
            on_disk: None,
            probe: None,
            room: Room::default(),
        }
    }

    /// Begins anew behind the last complete record.
    pub(super) fn begin_decoding(&mut self, cluster: &Cluster) {
        self.decoder = self.next_decoder(cluster);
        self.probe = None;
    }

    fn next_decoder(&self, cluster: &Cluster) -> WalStreamDecoder {
        decoder(self.record_end, self.state.prev_record, cluster)
    }

    /// Where a stretch that is closed now ends, and the state there.
    pub(super) fn stretch_end(&self) -> (Lsn, &CheckpointState) {
        (self.record_end, &self.state)
    }

    /// End of the last complete record, which may be the beginning of a page.
    pub(super) fn record_end(&self) -> Lsn {
        self.record_end
    }
}

/// A decoder that begins at the record behind the one that begins at `prev`.
fn decoder(from: Lsn, prev: Lsn, cluster: &Cluster) -> WalStreamDecoder {
    // All of a cluster's history that is kept here is on one of PostgreSQL's timelines: computes
    // are begun on it, and what a promoted server writes may not go on where our history ends.
    let decoder = WalStreamDecoder::new(from, cluster.segment_size, Some(cluster.system_id))
        .with_tli(cluster.tli);
    if prev.is_valid() { decoder.with_prev(prev) } else { decoder }
}

impl Timeline {
    /// Prepares for receiving WAL anew and says from where: the end of the last complete record.
    /// Whatever was received of a record after that is given up, as its sender may be gone and
    /// another one may go on differently. WAL that is damaged on disk is left as it is until it has
    /// been received again.
    ///
    /// # Errors
    /// `Io` if the rest cannot be cut off, `SyncFailed`, and `Stopped` where receiving is no use.
    pub fn restart_receiving(&self) -> Result<Lsn, IngestError> {
        let mut writer = self.writer.lock();
        let begun = self.begin_receiving(&mut writer);
        if let Err(error) = &begun {
            self.stop_receiving(error, error.stop_kind());
        }
        begun
    }

    fn begin_receiving(&self, writer: &mut Writer) -> Result<Lsn, IngestError> {
        self.look_again_as(writer);
        if writer.sync_failed {
            self.write_again(writer)?;
        }
        let from = writer.record_end;
        writer.begin_decoding(&self.cluster);
        match (writer.on_disk, self.stop()) {
            (None, _) => self.prepare_for_wal(from).map_err(|source| self.io_error(source))?,
            (Some(StopKind::Damaged | StopKind::Missing | StopKind::Foreign), _) | (_, None) => {
                writer.probe = Some(Probe::new(writer.next_decoder(&self.cluster)));
            }
            (Some(_), Some(stop)) => return Err(IngestError::Stopped(stop)),
        }
        let mut positions = self.positions.lock();
        self.restarts.fetch_add(1, Ordering::Relaxed);
        positions.received = positions.last_record;
        // What was cut off is not there, though it had been synced; other bytes may take its place.
        positions.flushed = positions.flushed.min(from);
        Ok(from)
    }

    /// Makes the WAL on disk end at `from`. Only where nothing on disk is damaged: the mark that is made
    /// here would have damage taken for what a crash has left.
    fn prepare_for_wal(&self, from: Lsn) -> io::Result<()> {
        self.wal.end_at(from)?;
        let claimed = Lsn::new(self.claimed.load(Ordering::Relaxed));
        self.flushed_mark.make_durable(self.positions().durable.max(claimed))
    }

    /// Takes in WAL bytes that stand at `start`: writes them to disk (durable after `sync_wal`)
    /// and makes the records in them readable.
    ///
    /// # Errors
    /// See `IngestError`. Everything before the first record that is wrong has been taken in, and
    /// nothing is left on disk behind it. After an error call `restart_receiving` before more is
    /// received.
    pub fn receive_wal(&self, start: Lsn, bytes: &[u8]) -> Result<(), IngestError> {
        let mut writer = self.writer.lock();
        let taken = self.take_in(&mut writer, start, bytes);
        if let Err(error) = &taken {
            self.cut_off_bad(&writer, error);
            self.stop_receiving(error, error.stop_kind());
        }
        taken
    }

    fn take_in(&self, writer: &mut Writer, start: Lsn, bytes: &[u8]) -> Result<(), IngestError> {
        if writer.sync_failed {
            return Err(IngestError::SyncFailed(self.id()));
        }
        let Some(probe) = writer.probe.take() else {
            return self.take_in_good(writer, start, bytes);
        };
        match self.probe(writer, probe, start, bytes)? {
            Some((start, bytes)) => self.take_in_good(writer, start, &bytes),
            None => Ok(()),
        }
    }

    fn take_in_good(
        &self,
        writer: &mut Writer,
        start: Lsn,
        bytes: &[u8],
    ) -> Result<(), IngestError> {
        let expected = writer.decoder.expected_lsn();
        if start != expected {
            return Err(IngestError::Gap { got: start, expected });
        }
        let reserve_bytes = self.layers.options.reserve_bytes;
        let has_room = writer.room.check(self.wal.dir(), reserve_bytes, bytes.len());
        has_room.map_err(|source| self.io_error(source))?;
        self.wal.write(start, bytes).map_err(|source| self.io_error(source))?;
        writer.decoder.feed(start, bytes).map_err(|source| self.decode_error(source))?;
        self.index_decoded(writer)
    }

    /// Removes what was written behind the last good record, so that it hides nothing that comes
    /// in its place. `restart_receiving` would do so, but the process may end before.
    fn cut_off_bad(&self, writer: &Writer, error: &IngestError) {
        let is_written = !matches!(error, IngestError::Io { .. } | IngestError::SyncFailed(_));
        if writer.on_disk.is_none()
            && is_written
            && let Err(error) = self.wal.end_at(writer.record_end)
        {
            slog::warn!(self.log, "cannot cut off bad WAL"; "error" => %error);
        }
    }

    /// Whether commits of the server wait from now on until their WAL is durable here. What is on disk for
    /// their sake goes when they do no longer.
    pub fn commits_wait(&self, wait: bool) {
        if let Err(error) = self.wal.expect_syncs(wait) {
            slog::warn!(self.log, "zeros behind the end of WAL cannot be cut off"; "error" => %error);
        }
    }

    /// Makes everything received so far durable and returns how far that goes.
    ///
    /// # Errors
    /// `SyncFailed`: the kernel may have thrown the bytes away, so nothing more is taken in until
    /// they have been written again: by `restart_receiving`, or by the next call of this, after which
    /// receiving goes on at the end of the last complete record. Besides, what `restart_receiving` gives.
    pub fn sync_wal(&self) -> Result<Lsn, IngestError> {
        self.sync_wal_and_tell(&mut || ())
    }

    /// The same; `tell` is called as soon as it is durable: somebody may be waiting, and to leave word of it on disk
    /// can wait.
    ///
    /// # Errors
    /// As `sync_wal`; then `tell` has not been called.
    pub fn sync_wal_and_tell(&self, tell: &mut dyn FnMut()) -> Result<Lsn, IngestError> {
        match self.sync_wal_once(tell) {
            Err(IngestError::SyncFailed(_)) if self.make_up_for_failed_sync()? => {
                self.sync_wal_once(tell)
            }
            synced => synced,
        }
    }

    /// If an earlier call has failed, writes again what it was about. Nobody else may ever do so: the
    /// server that was followed may be gone.
    fn make_up_for_failed_sync(&self) -> Result<bool, IngestError> {
        let mut writer = self.writer.lock();
        // The first failure is told to the caller; what is tried again at once mostly fails again.
        if !std::mem::replace(&mut writer.sync_failed, true) {
            return Ok(false);
        }
        self.begin_receiving(&mut writer).map(|_| true)
    }

    fn sync_wal_once(&self, tell: &mut dyn FnMut()) -> Result<Lsn, IngestError> {
        // Taken before the sync: bytes written during it are not covered.
        let (before, restarts) = {
            let positions = self.positions.lock();
            (*positions, self.restarts.load(Ordering::Relaxed))
        };
        if before.flushed >= before.received {
            tell();
            return Ok(before.flushed);
        }
        if let Err(error) = self.wal.sync() {
            slog::error!(self.log, "syncing WAL failed"; "error" => %error);
            let error = IngestError::SyncFailed(self.id());
            self.stop_receiving(&error, error.stop_kind());
            return Err(error);
        }
        let flushed = {
            let mut positions = self.positions.lock();
            // Unless what was synced has been cut off meanwhile: other bytes may stand there now.
            if self.restarts.load(Ordering::Relaxed) == restarts {
                positions.flushed = positions.flushed.max(before.received);
                // Of the last record nothing is missing but padding, the header of the page behind it, or the rest of
                // the segment that it leaves.
                positions.durable = positions.durable.max(before.last_record);
            }
            positions.flushed
        };
        tell();
        self.mark_flushed();
        Ok(flushed)
    }

    /// Indexes all records whose bytes have been fed, and makes them readable.
    pub(super) fn index_decoded(&self, writer: &mut Writer) -> Result<(), IngestError> {
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
        let custom = match decoded.header.rmid {
            rmgr::CUSTOM_MIN.. => self
                .maker
                .custom_managers(&self.cluster.control_file_bytes)
                .map_err(|source| IngestError::Managers { timeline, lsn, source })?,
            _ => CustomManagers::default(),
        };
        let changes = ingest::changes_of(record, &decoded, custom)
            .map_err(|source| IngestError::Record { timeline, lsn, source })?;
        let before = writer.state;
        let mut state = before;
        state.observe(&decoded, record).map_err(|source| IngestError::Content {
            timeline,
            lsn,
            source,
        })?;
        let at = At { start: record.start, end: record.end, before: &before };
        let mut before_record = ops.len();
        for change in changes.list {
            let in_step = Tip::needs_index_in_step(&change);
            if in_step {
                self.apply(ops);
                before_record = 0;
            }
            if let Err(source) = writer.tip.resolve(self, at, change, ops) {
                // The record will come again: nothing of it counts now.
                ops.truncate(before_record);
                writer.tip = Tip::default();
                return Err(IngestError::History { timeline, lsn, source: Box::new(source) });
            }
            if in_step {
                self.apply(ops);
            }
        }
        writer.state = state;
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
            let mut history = self.history.write();
            ops.drain(..).for_each(|op| history.open.apply(op));
        }
    }

    /// Applies the steps, then lets readers see how far the WAL has come. `all`: everything fed to
    /// the decoder has been taken into account.
    fn publish(&self, writer: &mut Writer, ops: &mut Vec<IndexOp>, all: bool) {
        self.apply(ops);
        self.close_stretch_if_long(writer);
        writer.tip.trim();
        let last_record = writer.record_end.normalized(self.cluster.segment_size);
        let received = if all { writer.decoder.expected_lsn() } else { writer.record_end };
        {
            let mut positions = self.positions.lock();
            positions.last_record = positions.last_record.max(last_record);
            positions.received = positions.received.max(received);
        }
        // Not as far as was received: whether a record begins there as it seems to, and how long it
        // is, is known only when all of it has come.
        if let Some(stop) = self.readable.advance(last_record) {
            slog::info!(self.log, "WAL is taken in again"; "stop" => %stop);
        }
        // Last, so that nobody waits for what is there.
        self.pay_debt();
    }

    /// Leaves word of how far the WAL is durable, for whoever loads the timeline next.
    pub(super) fn mark_flushed(&self) {
        // What was durable once is not forgotten while it is being mended.
        let claimed = Lsn::new(self.claimed.load(Ordering::Relaxed));
        let lsn = self.positions().durable.max(claimed);
        if let Err(error) = self.flushed_mark.write(lsn) {
            // Nothing depends on it but that damage is found out.
            slog::warn!(self.log, "cannot note how far WAL is durable"; "error" => %error);
        }
    }

    pub(super) fn io_error(&self, source: io::Error) -> IngestError {
        IngestError::Io { timeline: self.id(), source }
    }

    pub(super) fn decode_error(&self, source: WalDecodeError) -> IngestError {
        IngestError::Decode { timeline: self.id(), source }
    }
}
