//! `WalOfStretch`: the WAL of a closed stretch, for whoever writes its layer.
//!
//! Each record is asked for twice at least: in its turn, and then by the pages that it changed. To read it
//! alone for those costs more than all else that is done with it, so the records are kept from the first time:
//! each where it begins in the WAL, so that a version's place is also the place of its record.

use std::cell::OnceCell;

use bytes::Bytes;
use postgres_formats::Lsn;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::wal::{RECORD_HEADER_SIZE, WalRecord};

use super::Timeline;
use crate::index::Version;
use crate::layer::delta::{StretchFacts, StretchWal, WriteError};

/// Of a longer stretch nothing is kept; they are 64 MiB long as a rule.
const KEPT_BYTES_MAX: u64 = 72 << 20;

/// The WAL of a closed stretch, which is on disk.
pub(super) struct WalOfStretch<'a> {
    timeline: &'a Timeline,
    facts: &'a StretchFacts,
    /// The records, each as far behind the stretch's start as in the WAL. It has less bytes than there are
    /// in the WAL up to its end, for the headers of pages are not among them. The rest is zeros.
    kept: OnceCell<Bytes>,
}

impl<'a> WalOfStretch<'a> {
    /// That of the stretch with these facts.
    pub(super) fn new(timeline: &'a Timeline, facts: &'a StretchFacts) -> WalOfStretch<'a> {
        WalOfStretch { timeline, facts, kept: OnceCell::new() }
    }

    /// Where something that begins at `lsn` begins among what is kept.
    fn place(&self, lsn: Lsn) -> Option<usize> {
        usize::try_from(lsn.distance_from(self.facts.start)?).ok()
    }

    /// How long the record at `start` is that is kept, by its `xl_tot_len`; 0: none is.
    fn kept_length(&self, start: Lsn) -> usize {
        let length = || self.kept.get()?.get(self.place(start)?..)?.first_chunk().copied();
        length().map_or(0, |length| u32::from_le_bytes(length) as usize)
    }

    /// The record of `version`, if what is kept has one there of `length` bytes that fits.
    fn kept_record(&self, version: Version, length: usize) -> Option<WalRecord> {
        let (start, end) = (version.start(), version.end());
        let room = usize::try_from(end.distance_from(start)?).ok()?;
        let at = self.place(start)?;
        let kept = self.kept.get()?;
        let fits = (RECORD_HEADER_SIZE..=room).contains(&length) && at + length <= kept.len();
        fits.then(|| WalRecord { start, end, bytes: kept.slice(at..at + length) })
    }
}

impl StretchWal for WalOfStretch<'_> {
    fn each_record(
        &self,
        take: &mut dyn FnMut(&WalRecord, &CheckpointState) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let StretchFacts { start, state, end, .. } = self.facts;
        let length = end.distance_from(*start).filter(|bytes| *bytes <= KEPT_BYTES_MAX);
        let mut kept = vec![0; usize::try_from(length.unwrap_or(0)).unwrap_or(0)];
        let mut failure = None;
        let decoded = self.timeline.follow_state(*start, *state, *end, |record, state| {
            let at = self.place(record.start).unwrap_or(usize::MAX);
            let place = kept.get_mut(at..).and_then(|rest| rest.get_mut(..record.bytes.len()));
            if let Some(place) = place {
                place.copy_from_slice(&record.bytes);
            }
            failure = take(record, state).err();
            failure.is_none()
        });
        let _ = self.kept.set(Bytes::from(kept));
        match failure {
            Some(failure) => Err(failure),
            None => Ok(decoded.map(drop)?),
        }
    }

    fn records(
        &self,
        versions: &[Version],
        records: &mut Vec<WalRecord>,
    ) -> Result<(), WriteError> {
        // All lengths first: of loads that do not depend on each other the processor waits for many at
        // once, and in the order of pages hardly any record is in its caches.
        let lengths: Vec<usize> = versions.iter().map(|v| self.kept_length(v.start())).collect();
        for (version, length) in versions.iter().zip(lengths) {
            records.push(match self.kept_record(*version, length) {
                Some(record) => record,
                None => self.timeline.read_record(*version)?,
            });
        }
        Ok(())
    }
}
