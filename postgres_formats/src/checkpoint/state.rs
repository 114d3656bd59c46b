//! `CheckpointState`, the checkpoint that a server would have to start from at the current LSN.
//!
//! PostgreSQL writes its counters only into checkpoint records and finds out the rest by replaying
//! what follows. Storage lets servers start anywhere, so it follows the counters record by record,
//! by the rules that replay uses (`xlog_redo`, `xact_redo`, `multixact_redo`, `clog_redo` and
//! `AdvanceNextFullTransactionIdPastXid` in PostgreSQL 15). What it knows after a record is what a
//! server would know that had crashed there and recovered:
//!
//! - `next_xid` and `next_multi` are exact in that every id that the log mentions is below them;
//!   an id that left no trace is not lost, nothing can refer to it.
//! - `next_oid` is exact at a shutdown checkpoint. Later it is that of the last `NEXTOID` record,
//!   by which a server reserves 8192 ids at a time: ahead of the truth, never behind it.
//! - `oldest_xid` and `oldest_multi` move with truncations and checkpoints; they may be behind the
//!   truth, which is the safe side.
//! - `oldest_commit_ts_xid` and `newest_commit_ts_xid` are invalid while commit timestamps are not
//!   tracked. Whether they are is known from the parameters alone (`CommitTsParameterChange`). The
//!   oldest one moves like `oldest_xid`, the newest one with each commit.
//! - The parameters are those that the server ran with when it wrote the last record.

use super::CheckPoint;
use crate::wal::records::RecordContentError;
use crate::wal::records::clog::ClogTruncate;
use crate::wal::records::commit_ts::CommitTsTruncate;
use crate::wal::records::multixact::{MultiXactCreate, MultiXactTruncate};
use crate::wal::records::standby::RunningXacts;
use crate::wal::records::xact::{XactAssignment, XactEnd, XactPrepare};
use crate::wal::records::xlog::{self, EndOfRecovery};
use crate::wal::{DecodedRecord, WalRecord, rmgr};
use crate::{FullTransactionId, Lsn, MultiXactId, Oid, ServerParameters, TransactionId};

/// Counters and limits as of the end of the last record observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CheckpointState {
    /// The counters. `redo`, `time` and `oldest_active_xid` are those of the last record that had
    /// them: whoever writes a checkpoint from this state has to say where replay begins.
    pub checkpoint: CheckPoint,
    /// The server's settings.
    pub parameters: ServerParameters,
    /// Start of the last record observed: `xl_prev` of the record that comes next.
    pub prev_record: Lsn,
}

impl CheckpointState {
    /// Takes in a record; records must come in the order of the log, none left out.
    ///
    /// # Errors
    ///
    /// The record's content is malformed. Its effect on the counters is then missing, but for
    /// `prev_record` and the transaction in its header.
    pub fn observe(
        &mut self,
        dec: &DecodedRecord,
        rec: &WalRecord,
    ) -> Result<(), RecordContentError> {
        self.prev_record = rec.start;
        self.advance_past_xid(TransactionId(dec.header.xid));
        let info = dec.header.rmgr_info();
        let data = &dec.main_data;
        match dec.header.rmid {
            rmgr::XLOG => self.observe_xlog(info, data),
            rmgr::XACT => self.observe_xact(TransactionId(dec.header.xid), info, data),
            rmgr::CLOG if info == rmgr::clog::TRUNCATE => {
                let truncate = ClogTruncate::parse(data)?;
                self.advance_oldest_xid(truncate.oldest_xid, truncate.oldest_xid_db);
                Ok(())
            }
            rmgr::MULTIXACT => self.observe_multixact(info, data),
            rmgr::COMMIT_TS if info == rmgr::commit_ts::TRUNCATE => {
                self.advance_oldest_commit_ts(CommitTsTruncate::parse(data)?.oldest_xid);
                Ok(())
            }
            rmgr::STANDBY if info == rmgr::standby::RUNNING_XACTS => {
                let running = RunningXacts::parse(data)?;
                self.advance_to_xid(running.next_xid);
                self.checkpoint.oldest_active_xid = running.oldest_running_xid;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn observe_xlog(&mut self, info: u8, data: &[u8]) -> Result<(), RecordContentError> {
        match info {
            // Nothing ran while it was taken: every field is the truth.
            rmgr::xlog::CHECKPOINT_SHUTDOWN => {
                self.checkpoint = decode_checkpoint(data)?;
                self.forget_commit_ts_unless_tracked();
            }
            rmgr::xlog::CHECKPOINT_ONLINE => self.merge_online(&decode_checkpoint(data)?),
            rmgr::xlog::NEXTOID => self.checkpoint.next_oid = xlog::parse_next_oid(data)?,
            rmgr::xlog::FPW_CHANGE => {
                self.checkpoint.full_page_writes = xlog::parse_fpw_change(data)?;
            }
            rmgr::xlog::END_OF_RECOVERY => {
                let end = EndOfRecovery::parse(data)?;
                self.checkpoint.this_tli = end.tli;
                self.checkpoint.prev_tli = end.previous_tli;
            }
            rmgr::xlog::PARAMETER_CHANGE => {
                let changed = ServerParameters::decode_record(data).map_err(|source| {
                    RecordContentError::Truncated { what: "parameters", source }
                })?;
                self.change_parameters(changed);
            }
            _ => {}
        }
        Ok(())
    }

    /// A checkpoint taken in operation has counters from when it began: records written since then
    /// may have moved them further. Object ids are not taken over, for the same reason and because
    /// they have no order that would tell.
    fn merge_online(&mut self, seen: &CheckPoint) {
        self.advance_multi(seen.next_multi, seen.next_multi_offset);
        self.advance_oldest_xid(seen.oldest_xid, seen.oldest_xid_db);
        self.advance_oldest_multi(seen.oldest_multi, seen.oldest_multi_db);
        self.advance_oldest_commit_ts(seen.oldest_commit_ts_xid);
        self.advance_newest_commit_ts(seen.newest_commit_ts_xid);
        let before = self.checkpoint;
        self.checkpoint = CheckPoint {
            next_xid: before.next_xid.max(seen.next_xid),
            next_oid: before.next_oid,
            next_multi: before.next_multi,
            next_multi_offset: before.next_multi_offset,
            oldest_xid: before.oldest_xid,
            oldest_xid_db: before.oldest_xid_db,
            oldest_multi: before.oldest_multi,
            oldest_multi_db: before.oldest_multi_db,
            oldest_commit_ts_xid: before.oldest_commit_ts_xid,
            newest_commit_ts_xid: before.newest_commit_ts_xid,
            ..*seen
        };
    }

    /// The server was started with other settings. When it begins to track commit timestamps,
    /// those of transactions before count as absent (`ActivateCommitTs`); when it stops, all do.
    fn change_parameters(&mut self, changed: ServerParameters) {
        let tracked = self.parameters.track_commit_timestamp;
        self.parameters = changed;
        if !tracked && changed.track_commit_timestamp {
            let next = self.checkpoint.next_xid.xid();
            self.checkpoint.oldest_commit_ts_xid = next;
            self.checkpoint.newest_commit_ts_xid = next;
        }
        self.forget_commit_ts_unless_tracked();
    }

    fn forget_commit_ts_unless_tracked(&mut self) {
        if !self.parameters.track_commit_timestamp {
            self.checkpoint.oldest_commit_ts_xid = TransactionId::INVALID;
            self.checkpoint.newest_commit_ts_xid = TransactionId::INVALID;
        }
    }

    fn observe_xact(
        &mut self,
        xid: TransactionId,
        info: u8,
        data: &[u8],
    ) -> Result<(), RecordContentError> {
        let advance_past = |state: &mut CheckpointState, subxacts: &[TransactionId]| {
            subxacts.iter().for_each(|&xid| state.advance_past_xid(xid));
        };
        match info & rmgr::xact::OPMASK {
            rmgr::xact::COMMIT
            | rmgr::xact::ABORT
            | rmgr::xact::COMMIT_PREPARED
            | rmgr::xact::ABORT_PREPARED => {
                let end = XactEnd::parse(info, data)?;
                end.prepared_xid.iter().for_each(|&xid| self.advance_past_xid(xid));
                advance_past(self, &end.subxacts);
                if end.commit {
                    let xid = end.prepared_xid.unwrap_or(xid);
                    self.advance_newest_commit_ts(*end.subxacts.last().unwrap_or(&xid));
                }
            }
            rmgr::xact::PREPARE => {
                let prepare = XactPrepare::parse(data)?;
                self.advance_past_xid(prepare.xid);
                advance_past(self, &prepare.subxacts);
            }
            rmgr::xact::ASSIGNMENT => {
                advance_past(self, &XactAssignment::parse(data)?.subxacts);
            }
            _ => {}
        }
        Ok(())
    }

    fn observe_multixact(&mut self, info: u8, data: &[u8]) -> Result<(), RecordContentError> {
        match info {
            rmgr::multixact::CREATE_ID => {
                let create = MultiXactCreate::parse(data)?;
                // Not `MultiXactId::next`: PostgreSQL itself stores 0 here and skips it on use.
                let next = MultiXactId(create.multi.0.wrapping_add(1));
                self.advance_multi(next, create.end_member());
                create.members.iter().for_each(|member| self.advance_past_xid(member.xid));
            }
            rmgr::multixact::TRUNCATE_ID => {
                let truncate = MultiXactTruncate::parse(data)?;
                self.advance_oldest_multi(truncate.end_multi, truncate.oldest_multi_db);
            }
            _ => {}
        }
        Ok(())
    }

    /// The next transaction comes after `xid`.
    fn advance_past_xid(&mut self, xid: TransactionId) {
        // Special ids, such as the 0 of records outside transactions, say nothing.
        if xid.is_normal() {
            self.advance_to_xid(xid.next());
        }
    }

    /// The next transaction is `next` or a later one. An id that is numerically smaller but
    /// logically later has wrapped around into the next epoch.
    fn advance_to_xid(&mut self, next: TransactionId) {
        let current = self.checkpoint.next_xid;
        if next.is_normal() && current.xid().precedes(next) {
            let wrapped = u32::from(next.0 < current.xid().0);
            let epoch = current.epoch().wrapping_add(wrapped);
            self.checkpoint.next_xid = FullTransactionId::new(epoch, next);
        }
    }

    fn advance_multi(&mut self, next: MultiXactId, next_offset: u32) {
        if self.checkpoint.next_multi.precedes(next) {
            self.checkpoint.next_multi = next;
        }
        // Member numbers are circular like the ids.
        if (self.checkpoint.next_multi_offset.wrapping_sub(next_offset) as i32) < 0 {
            self.checkpoint.next_multi_offset = next_offset;
        }
    }

    fn advance_oldest_xid(&mut self, xid: TransactionId, db: Oid) {
        if self.checkpoint.oldest_xid.precedes(xid) {
            self.checkpoint.oldest_xid = xid;
            self.checkpoint.oldest_xid_db = db;
        }
    }

    /// No id is invalid while timestamps are tracked; before that there is nothing to advance.
    fn advance_oldest_commit_ts(&mut self, xid: TransactionId) {
        let oldest = &mut self.checkpoint.oldest_commit_ts_xid;
        if self.parameters.track_commit_timestamp && oldest.precedes(xid) {
            *oldest = xid;
        }
    }

    fn advance_newest_commit_ts(&mut self, xid: TransactionId) {
        let newest = &mut self.checkpoint.newest_commit_ts_xid;
        if self.parameters.track_commit_timestamp && newest.precedes(xid) {
            *newest = xid;
        }
    }

    fn advance_oldest_multi(&mut self, multi: MultiXactId, db: Oid) {
        if self.checkpoint.oldest_multi.precedes(multi) {
            self.checkpoint.oldest_multi = multi;
            self.checkpoint.oldest_multi_db = db;
        }
    }
}

fn decode_checkpoint(data: &[u8]) -> Result<CheckPoint, RecordContentError> {
    CheckPoint::decode(data)
        .map_err(|source| RecordContentError::Truncated { what: "checkpoint", source })
}

#[cfg(test)]
mod tests;
