//! Going on after a stop: WAL that is damaged on disk and that a server sends again, and WAL that
//! could not be synced.

use std::sync::atomic::Ordering;

use postgres_formats::Lsn;
use postgres_formats::wal::WalStreamDecoder;

use super::Timeline;
use super::ingest::{IngestError, Writer};
use crate::error_text::with_causes;
use crate::stop::{Place, Stop, StopKind};

/// How much WAL is written again at once.
const CHUNK: usize = 1 << 20;

/// What a server sends in place of WAL that is damaged on disk, until it is known to be good: the
/// damaged one is left alone until then.
pub(super) struct Probe {
    decoder: WalStreamDecoder,
    bytes: Vec<u8>,
}

impl Probe {
    pub(super) fn new(decoder: WalStreamDecoder) -> Probe {
        Probe { decoder, bytes: Vec::new() }
    }
}

impl Timeline {
    /// Takes in WAL where it is damaged on disk. Once a whole record has come that goes on where
    /// the good WAL ends, what is on disk from there is put aside, and all that has come is given
    /// back to be taken in.
    pub(super) fn probe(
        &self,
        writer: &mut Writer,
        mut probe: Probe,
        start: Lsn,
        bytes: &[u8],
    ) -> Result<Option<(Lsn, Vec<u8>)>, IngestError> {
        let from = writer.decoder.expected_lsn();
        let expected = probe.decoder.expected_lsn();
        if start != expected {
            return Err(IngestError::Gap { got: start, expected });
        }
        let decode = |source| self.decode_error(source);
        probe.decoder.feed(start, bytes).map_err(decode)?;
        probe.bytes.extend_from_slice(bytes);
        if probe.decoder.next_record().map_err(decode)?.is_none() {
            writer.probe = Some(probe);
            return Ok(None);
        }
        let record_end = writer.record_end();
        let aside = self.wal.set_aside(record_end).map_err(|source| self.io_error(source))?;
        self.wal.end_at(record_end).map_err(|source| self.io_error(source))?;
        writer.on_disk = None;
        let aside: Vec<String> = aside.iter().map(|path| path.display().to_string()).collect();
        slog::warn!(self.log, "WAL that is damaged on disk is received again";
            "from" => %record_end, "put_aside" => aside.join(", "));
        Ok(Some((from, probe.bytes)))
    }

    /// The server that is followed has no WAL behind `end`. If everything up to there has been
    /// received, nothing is missing, whatever was found before.
    pub fn source_ends_at(&self, end: Lsn) {
        let claimed = Lsn::new(self.claimed.load(Ordering::Relaxed));
        let positions = self.positions();
        if end > positions.last_record
            || (claimed <= positions.last_record && self.stop().is_none())
        {
            return;
        }
        // What is on disk waits for its first record to be sent again, or to be mended.
        if self.writer.lock().on_disk.is_some() {
            return;
        }
        if let Some(stop) = self.readable.resume(true) {
            slog::info!(self.log, "the server has no WAL behind the stop"; "stop" => %stop);
        }
        if claimed > positions.last_record {
            slog::warn!(self.log, "WAL that was durable is gone, and the server has none there";
                "from" => %positions.last_record, "durable_up_to" => %claimed);
            self.claimed.store(0, Ordering::Relaxed);
            self.mark_flushed();
        }
    }

    /// No server is followed any more: what one sent is of no importance.
    pub fn source_is_gone(&self) {
        self.readable.resume(false);
    }

    /// The server that is followed cannot give what comes next.
    pub fn stop_receiving(&self, error: &dyn std::error::Error, kind: StopKind) {
        let stop = Stop {
            lsn: self.last_record_lsn(),
            kind,
            place: Place::Received,
            cause: with_causes(error),
        };
        let text = stop.to_string();
        let is_damage = !matches!(stop.kind, StopKind::Disk | StopKind::Missing);
        if self.readable.stop_at(stop) {
            match is_damage {
                true => slog::error!(self.log, "no more WAL is taken in: {}", text),
                false => slog::warn!(self.log, "no more WAL is taken in: {}", text),
            }
        }
    }

    /// After a failed sync, nobody knows what has reached the disk since the last one that
    /// succeeded, and the kernel takes what it failed to write for written. So it is read back,
    /// checked, and written again.
    pub(super) fn write_again(&self, writer: &mut Writer) -> Result<(), IngestError> {
        let failed = || IngestError::SyncFailed(self.id());
        let from = self.positions().durable;
        let mut decoder = WalStreamDecoder::new(from, self.cluster.segment_size, None);
        let end = writer.record_end();
        let mut chunk = vec![0; CHUNK];
        // Behind the last record there may be anything.
        let mut read = |at: Lsn| {
            let left = usize::try_from(end.distance_from(at).unwrap_or(0)).unwrap_or(CHUNK);
            let want = chunk.get_mut(..left.min(CHUNK)).unwrap_or_default();
            let got = self.wal.read(at, want).map_err(|source| self.io_error(source))?;
            Ok::<_, IngestError>(chunk.get(..got).unwrap_or_default().to_vec())
        };
        while decoder.next_record_start() < end {
            let at = decoder.expected_lsn();
            let bytes = read(at)?;
            if bytes.is_empty() {
                return Err(failed());
            }
            decoder.feed(at, &bytes).map_err(|_| failed())?;
            while decoder.next_record().map_err(|_| failed())?.is_some() {}
        }
        // Also the header of the page, which may have come after the last sync.
        let mut at = from.page_start();
        while at < end {
            let bytes = read(at)?;
            if bytes.is_empty() {
                break;
            }
            self.wal.write(at, &bytes).map_err(|source| self.io_error(source))?;
            at = at.saturating_add(bytes.len() as u64);
        }
        self.wal.forgive_failed_sync();
        if let Err(error) = self.wal.sync() {
            slog::error!(self.log, "syncing WAL failed again"; "error" => %error);
            return Err(failed());
        }
        writer.sync_failed = false;
        slog::info!(self.log, "WAL that could not be synced has been written again";
            "from" => %from, "to" => %writer.record_end());
        Ok(())
    }
}
