//! Indexing the WAL that is on disk: when a timeline is opened, and again from where the index ends
//! when what kept it from going on may have been mended.
//!
//! WAL on disk may end like after a crash: what had not been synced is torn or missing. That is its
//! end. But where WAL is damaged or missing that had been durable, the timeline stops. From there
//! on nothing is changed on disk, so that a file can be put back from a copy; see `heal.rs` for
//! what happens when a server sends that WAL again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postgres_formats::Lsn;
use postgres_formats::wal::WalDecodeErrorKind;

use super::ingest::{IngestError, Writer};
use super::{Below, Timeline};
use crate::error_text::with_causes;
use crate::seqwait::WaitError;
use crate::stop::{Place, Stop, StopKind};

/// How much WAL is read at once when it is indexed from disk.
const READ_CHUNK: usize = 1 << 20;
/// A file that was damaged is looked at again at most this often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why indexing ended before the WAL did.
enum Obstacle {
    /// The file system's answer.
    Io(io::Error),
    /// What stands there is not WAL that goes on, or does not make sense.
    Bytes(IngestError),
}

impl Obstacle {
    /// Whether there are only zeros: while commits wait they are written ahead of WAL.
    fn is_zeros(&self) -> bool {
        match self {
            Obstacle::Bytes(IngestError::Decode { source, .. }) => source.is_end_of_wal(),
            _ => false,
        }
    }
}

impl Timeline {
    /// Why no more WAL is taken in, if that is so.
    pub fn stop(&self) -> Option<Arc<Stop>> {
        self.readable.stop()
    }

    /// Waits until everything up to `lsn` has been received and indexed.
    ///
    /// # Errors
    /// See `WaitError`.
    pub fn wait_lsn(&self, lsn: Lsn, timeout: Duration) -> Result<(), WaitError> {
        match self.readable.wait_for(lsn, timeout) {
            Err(WaitError::Stopped { .. }) if self.look_again() => {
                self.readable.wait_for(lsn, timeout)
            }
            other => other,
        }
    }

    /// Returns when somebody waits for WAL that has not been received yet, at `deadline` at the latest.
    pub(crate) fn rest_until(&self, deadline: Instant) {
        self.readable.rest_until(deadline);
    }

    /// If the WAL on disk could not be read to its end, looks whether it can now; not more often
    /// than is reasonable. Tells whether that has changed anything.
    pub fn look_again(&self) -> bool {
        if self.stop().is_none_or(|stop| stop.place == Place::Received) {
            return false;
        }
        {
            let mut looked = self.looked_again.lock();
            if looked.is_some_and(|when| when.elapsed() < LOOK_AGAIN_AFTER) {
                return false;
            }
            *looked = Some(Instant::now());
        }
        self.look_now()
    }

    /// The same at once, for those who decide something by it.
    pub(super) fn look_now(&self) -> bool {
        // Whoever receives looks by himself.
        let Some(mut writer) = self.writer.try_lock() else { return false };
        self.look_again_as(&mut writer)
    }

    /// The same for the one who writes.
    pub(super) fn look_again_as(&self, writer: &mut Writer) -> bool {
        if writer.on_disk.is_none() {
            return false;
        }
        let before = self.stop();
        self.wal.forget_open();
        self.index_wal_on_disk(writer);
        let after = self.stop();
        if after.is_none() {
            slog::info!(self.log, "the WAL on disk is whole again";
                "last_record" => %self.last_record_lsn());
        }
        after != before
    }

    /// Indexes the WAL on disk from where the index ends. If it ends where it must not, the timeline
    /// is stopped there.
    pub(super) fn index_wal_on_disk(&self, writer: &mut Writer) {
        if let Err(stop) = self.stand_on_ancestor() {
            self.stop_on_disk(writer, stop);
            return;
        }
        // Both before layers are written of it: the mark must not go back to where indexing has come, and
        // nothing may get into layers that is not durable.
        if let Err(error) = self.read_mark() {
            slog::warn!(self.log, "cannot tell how far WAL was durable"; "error" => %error);
        }
        let synced = self.wal.sync_recent();
        let obstacle = self.index_as_far_as_possible(writer);
        let stop = self.judge(writer, obstacle);
        {
            let mut positions = self.positions.lock();
            positions.received = positions.last_record;
            positions.flushed = positions.last_record;
            positions.durable = positions.last_record;
        }
        match stop {
            Some(stop) => self.stop_on_disk(writer, stop),
            None => {
                writer.on_disk = None;
                self.readable.resume(true);
                if let Err(error) = synced {
                    slog::error!(self.log, "syncing WAL failed"; "error" => %error);
                    writer.sync_failed = true;
                    let mut positions = self.positions.lock();
                    positions.flushed = self.manifest.layered.end;
                    positions.durable = self.manifest.layered.end;
                }
            }
        }
    }

    fn stop_on_disk(&self, writer: &mut Writer, stop: Stop) {
        writer.on_disk = Some(stop.kind);
        let text = stop.to_string();
        if self.readable.stop_at(stop) {
            slog::error!(self.log, "WAL cannot be read to its end: {}", text);
        }
    }

    /// Makes what the ancestor has readable; an error if that does not reach the branch point.
    fn stand_on_ancestor(&self) -> Result<(), Stop> {
        let below = self.below();
        let Below::Ancestor(ancestor, at) = &*below else { return Ok(()) };
        ancestor.look_again();
        let there = ancestor.readable.current();
        if there >= *at {
            // What is in layers can be read as soon as what it stands on can.
            self.readable.advance(self.manifest.layered.end.max(*at));
            return Ok(());
        }
        self.readable.advance(there);
        let why = ancestor.stop().map_or_else(
            || format!("its WAL ends at {there}"),
            |stop| format!("its WAL is {}", stop),
        );
        let cause =
            format!("this timeline begins at {at} of timeline {}, but {why}", ancestor.id());
        Err(Stop { lsn: there, kind: StopKind::Ancestor, place: Place::OnDisk, cause })
    }

    fn index_as_far_as_possible(&self, writer: &mut Writer) -> Option<Obstacle> {
        writer.begin_decoding(&self.cluster);
        let mut chunk = vec![0; READ_CHUNK];
        loop {
            let from = writer.decoder.expected_lsn();
            let got = match self.wal.read(from, &mut chunk) {
                Ok(got) => got,
                Err(error) => return Some(Obstacle::Io(error)),
            };
            let bytes = chunk.get(..got).filter(|bytes| !bytes.is_empty())?;
            let fed = writer.decoder.feed(from, bytes).map_err(|e| self.decode_error(e));
            if let Err(error) = fed.and_then(|()| self.index_decoded(writer)) {
                return Some(Obstacle::Bytes(error));
            }
        }
    }

    /// Whether the WAL may end where it was found to end. If not, the stop there.
    fn judge(&self, writer: &Writer, obstacle: Option<Obstacle>) -> Option<Stop> {
        let lsn = self.last_record_lsn();
        let at = |kind, cause| Some(Stop { lsn, kind, place: Place::OnDisk, cause });
        let is_zeros = obstacle.as_ref().is_some_and(Obstacle::is_zeros);
        let path = |lsn| self.wal.path_at(lsn).display().to_string();
        let (kind, found, place) = match obstacle {
            Some(Obstacle::Io(error)) => {
                let from = writer.decoder.expected_lsn();
                return at(StopKind::Disk, format!("{}: {error}", path(from)));
            }
            // A checksum holds, so that no crash has left it.
            Some(Obstacle::Bytes(error)) if !matches!(error, IngestError::Decode { .. }) => {
                return at(error.stop_kind(), with_causes(&error));
            }
            Some(Obstacle::Bytes(error)) => {
                let place = match &error {
                    IngestError::Decode { source, .. } => source.lsn,
                    _ => lsn,
                };
                (error.stop_kind(), with_causes(&error), place)
            }
            None => {
                let place = writer.decoder.expected_lsn();
                let found = format!("WAL of timeline {} is missing from {place} on", self.id());
                (StopKind::Missing, found, place)
            }
        };
        let durable = self.claimed.load(Ordering::Relaxed);
        if durable > lsn.as_u64() {
            let durable = Lsn::new(durable);
            return at(
                kind,
                format!("{found} ({}), though it was durable up to {durable}", path(place)),
            );
        }
        // Without a mark, nothing must have been received behind it.
        if durable == 0 && self.is_followed_by_segments(place) {
            return at(kind, format!("{found} ({}), and more follows", path(place)));
        }
        if kind != StopKind::Missing && !is_zeros {
            slog::warn!(self.log, "WAL ends with an incomplete record";
                "lsn" => %lsn, "found" => found);
        }
        None
    }

    /// Takes note of how far WAL was durable, as the mark says.
    fn read_mark(&self) -> io::Result<()> {
        if let Some(mark) = self.flushed_mark.read()? {
            self.claimed.fetch_max(mark.as_u64(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_followed_by_segments(&self, lsn: Lsn) -> bool {
        let at = lsn.segment(self.cluster.segment_size);
        match self.wal.segments() {
            Ok(segments) => segments.last().is_some_and(|last| *last > at),
            // Where there is no folder there is no telling, and so nothing may be changed.
            Err(_) => true,
        }
    }
}

/// What kind of stop a decoding error makes.
pub(super) fn kind_of(error: &WalDecodeErrorKind) -> StopKind {
    match error {
        WalDecodeErrorKind::WrongSystemId { .. }
        | WalDecodeErrorKind::WrongGeometry { .. }
        | WalDecodeErrorKind::WrongTimeline { .. } => StopKind::Foreign,
        WalDecodeErrorKind::Gap { .. } => StopKind::Missing,
        _ => StopKind::Damaged,
    }
}
