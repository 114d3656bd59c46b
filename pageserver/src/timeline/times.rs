//! From a time to an LSN and back, by the ends of transactions.

use std::sync::Arc;

use postgres_formats::{Lsn, Timestamp};

use super::error::TimelineError;
use super::{Below, Timeline};
use crate::index::EndedBy;
use crate::stop::{Place, Stop};

impl Timeline {
    /// The LSN whose state is that at `time`: the end of the last transaction before the first one,
    /// in the order of the WAL, that ended later. Commits and aborts count alike. It is what
    /// PostgreSQL means by `recovery_target_time`.
    ///
    /// Hence no transaction that says that it ended later is in that state. Every transaction whose
    /// end was known to its client at `time` is, as long as one clock was used that is not set back:
    /// a transaction takes its time before it gets its place in the WAL, so all that precede a
    /// finished one have taken theirs. Of those that were ending just then, some may be missing that
    /// took an earlier time and yet come later in the WAL. Where a clock was set back the state is
    /// that when the time was first passed.
    ///
    /// - If no transaction is known that ended later, it is the end of what was received; unless
    ///   the timeline has stopped, for then nobody knows which transactions follow.
    /// - If every transaction known ended later, it is the beginning of all history.
    /// - On a branch, the ancestor answers with its history up to the branch point.
    ///
    /// # Errors
    /// `TimeBeforeBeginning`, `Stopped`.
    pub fn lsn_at(&self, time: Timestamp) -> Result<Lsn, TimelineError> {
        let oldest = self.oldest_time();
        if time < oldest {
            return Err(TimelineError::TimeBeforeBeginning { wanted: time, oldest });
        }
        // Taken first: what is indexed meanwhile must not count as known in one place only.
        let end = self.last_record_lsn();
        let micros = time.as_postgres_micros();
        let found = match self.ended_by(micros, end)? {
            EndedBy { later: false, .. } => match self.stop() {
                Some(stop) => return Err(TimelineError::Stopped(stop)),
                None => end,
            },
            EndedBy { last, .. } => last.unwrap_or_default(),
        };
        let oldest = self.oldest_lsn();
        if found >= oldest {
            return Ok(found);
        }
        // The transactions before that are not all known any more; what they were up to there is.
        if self.ended_by(micros, oldest)?.later {
            let oldest = self.timestamp_at(oldest)?;
            return Err(TimelineError::TimeBeforeBeginning { wanted: time, oldest });
        }
        Ok(oldest)
    }

    /// An LSN from which on all is kept that can be asked for by a time from `time` on.
    ///
    /// # Errors
    /// `Stopped` if nobody knows which transactions follow.
    pub fn begins_before(&self, time: Timestamp) -> Result<Lsn, TimelineError> {
        if time < self.oldest_time() {
            return Ok(Lsn::INVALID);
        }
        let end = self.last_record_lsn();
        match self.ended_by(time.as_postgres_micros(), end)? {
            EndedBy { later: false, .. } => match self.stop() {
                Some(stop) => Err(TimelineError::Stopped(stop)),
                None => Ok(end),
            },
            // Of what was removed nobody knows its time; what is older than that is no loss.
            EndedBy { last, .. } => Ok(last.unwrap_or(Lsn::INVALID)),
        }
    }

    /// The end of the history that is there: where a server can go on.
    ///
    /// # Errors
    /// `Stopped` if there is more of it that cannot be read. What a server has sent and could not
    /// be taken in is no part of history yet.
    pub fn end_lsn(&self) -> Result<Lsn, TimelineError> {
        match self.damage_on_disk() {
            Some(stop) => Err(TimelineError::Stopped(stop)),
            None => Ok(self.last_record_lsn()),
        }
    }

    /// The stop before WAL that had been durable and cannot be read, if there is one still.
    pub fn damage_on_disk(&self) -> Option<Arc<Stop>> {
        self.look_now();
        self.stop().filter(|stop| stop.place == Place::OnDisk)
    }

    /// The time of the state at `lsn`: when the latest of the transactions in it ended, or, without
    /// any, the oldest time. `lsn_at` of it gives that state, or a later one if transactions that
    /// follow say the same time or an earlier one.
    ///
    /// # Errors
    /// `BeforeBeginning`.
    pub fn timestamp_at(&self, lsn: Lsn) -> Result<Timestamp, TimelineError> {
        self.check_lsn(lsn)?;
        Ok(self.latest_end(lsn)?.map_or(self.oldest_time(), Timestamp::from_postgres_micros))
    }

    /// The oldest time that can be asked for: that of the checkpoint with which the first of its
    /// ancestors begins. A checkpoint tells it in whole seconds, rounded down.
    pub fn oldest_time(&self) -> Timestamp {
        match &*self.below() {
            Below::Ancestor(ancestor, _) => ancestor.oldest_time(),
            Below::Image(_) | Below::Nothing => {
                let seconds = self.manifest.state.checkpoint.time;
                Timestamp::from_unix_micros(seconds.saturating_mul(1_000_000))
            }
        }
    }

    /// Where `time` is in all history up to `upto`; microseconds since 2000.
    fn ended_by(&self, time: i64, upto: Lsn) -> Result<EndedBy, TimelineError> {
        let (own, below) = self.oldest_first(|stretch| stretch.ended_by(time, upto))?;
        let below = match &*below {
            Below::Ancestor(ancestor, at) => ancestor.ended_by(time, upto.min(*at))?,
            Below::Image(_) | Below::Nothing => EndedBy { last: None, later: false },
        };
        if below.later {
            return Ok(below);
        }
        let mut last = below.last;
        for own in own {
            last = own.last.or(last);
            if own.later {
                return Ok(EndedBy { last, later: true });
            }
        }
        Ok(EndedBy { last, later: false })
    }

    /// The latest time of the transactions up to `lsn`, and the last of them up to which it was that.
    pub(super) fn latest_end_at(&self, lsn: Lsn) -> Result<Option<(Lsn, i64)>, TimelineError> {
        let Some(time) = self.latest_end(lsn)? else { return Ok(None) };
        Ok(self.ended_by(time, lsn)?.last.map(|last| (last, time)))
    }

    /// When the latest transaction up to `lsn` ended, in microseconds since 2000.
    fn latest_end(&self, lsn: Lsn) -> Result<Option<i64>, TimelineError> {
        let (own, below) = self.oldest_first(|stretch| stretch.latest_end(lsn))?;
        // The clock may have been set back since.
        let own = own.into_iter().flatten().max();
        Ok(match &*below {
            Below::Ancestor(ancestor, at) => own.max(ancestor.latest_end(lsn.min(*at))?),
            Below::Image(_) | Below::Nothing => own,
        })
    }
}
