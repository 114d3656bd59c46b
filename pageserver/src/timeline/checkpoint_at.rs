//! The checkpoint state at any LSN, from the last one kept and the WAL after it.

use postgres_formats::Lsn;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::wal::{DecodedRecord, WalRecord, WalStreamDecoder};

use super::error::TimelineError;
use super::{Below, Timeline};
use crate::stretch::KnownState;

/// How much WAL is read at once; records are usually far smaller.
const READ_CHUNK: usize = 64 * 1024;

/// The state of a cluster at the end of a record.
#[derive(Clone, Debug)]
pub struct StateAt {
    /// Where the next record begins: a place from which a compute can write on.
    pub base: Lsn,
    /// What a checkpoint there would say, and the last record before it.
    pub state: CheckpointState,
}

impl Timeline {
    /// The state at `lsn`, or at the end of what was received if that is less. An LSN in the
    /// middle of a record stands for the end of the record before it.
    ///
    /// # Errors
    /// See `TimelineError`.
    pub fn state_at(&self, lsn: Lsn) -> Result<StateAt, TimelineError> {
        self.check_lsn(lsn)?;
        if lsn < self.start_lsn() {
            return match &*self.below() {
                Below::Ancestor(ancestor, at) => ancestor.state_at(lsn.min(*at)),
                // What lay below is not what it was a moment ago.
                Below::Image(_) | Below::Nothing => {
                    let oldest = self.oldest_lsn();
                    Err(TimelineError::BeforeBeginning { wanted: lsn, oldest })
                }
            };
        }
        let lsn = lsn.min(self.last_record_lsn());
        match self.own_state_at(lsn) {
            // Another file may have been put in the place of the one that is open.
            Err(error) if error.is_damaged_wal() => {
                self.wal.forget_open();
                self.own_state_at(lsn)
            }
            other => other,
        }
    }

    fn own_state_at(&self, lsn: Lsn) -> Result<StateAt, TimelineError> {
        let (base, state) = match self.newest(|stretch| stretch.state_at(lsn))?.found {
            Some(KnownState::At(state)) => return Ok(state),
            Some(KnownState::Before(base, state)) => (base, *state),
            None => (self.manifest.start, self.manifest.state),
        };
        self.follow_state(base, state, lsn, |_, _| true)
    }

    /// Follows the state from `base`, the end of a record, where it is `state`, up to `lsn`, as long as
    /// `take` wants more: it gets each record and the state after it. Gives where that ended.
    ///
    /// # Errors
    /// See `TimelineError`.
    pub(super) fn follow_state(
        &self,
        base: Lsn,
        mut state: CheckpointState,
        lsn: Lsn,
        mut take: impl FnMut(&WalRecord, &CheckpointState) -> bool,
    ) -> Result<StateAt, TimelineError> {
        let mut base = base.normalized(self.cluster.segment_size);
        let mut decoder = WalStreamDecoder::new(base, self.cluster.segment_size, None);
        let mut chunk = vec![0; READ_CHUNK];
        while decoder.next_record_start() < lsn {
            let Some(record) = decoder.next_record().map_err(|e| self.damaged(e))? else {
                let from = decoder.expected_lsn();
                let got = self.wal.read(from, &mut chunk).map_err(|source| TimelineError::Io {
                    path: self.wal.dir().to_owned(),
                    source,
                })?;
                let bytes = chunk.get(..got).filter(|bytes| !bytes.is_empty());
                // All of it was there when it was indexed.
                let missing = TimelineError::MissingWal { timeline: self.id(), lsn: from };
                decoder.feed(from, bytes.ok_or(missing)?).map_err(|e| self.damaged(e))?;
                continue;
            };
            if record.end > lsn {
                break;
            }
            let decoded = DecodedRecord::parse(&record.bytes).map_err(|source| {
                TimelineError::DamagedRecord { timeline: self.id(), lsn: record.start, source }
            })?;
            state.observe(&decoded, &record).map_err(|source| TimelineError::DamagedContent {
                timeline: self.id(),
                lsn: record.start,
                source,
            })?;
            base = record.end.normalized(self.cluster.segment_size);
            if !take(&record, &state) {
                break;
            }
        }
        Ok(StateAt { base, state })
    }

    fn damaged(&self, source: postgres_formats::wal::WalDecodeError) -> TimelineError {
        TimelineError::DamagedWal { timeline: self.id(), lsn: source.lsn, source }
    }
}
