//! Hot standby records. Source: PostgreSQL `storage/standbydefs.h`.

use super::RecordContentError;
use super::reader::Reader;
use crate::TransactionId;

/// Content of [`RUNNING_XACTS`](crate::wal::rmgr::standby::RUNNING_XACTS), without the list of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningXacts {
    /// The next id to be assigned.
    pub next_xid: TransactionId,
    /// The oldest id still running.
    pub oldest_running_xid: TransactionId,
    /// The newest id that has ended.
    pub latest_completed_xid: TransactionId,
}

impl RunningXacts {
    /// Reads the fixed part of `xl_running_xacts`.
    pub fn parse(data: &[u8]) -> Result<RunningXacts, RecordContentError> {
        let mut reader = Reader::new(data);
        reader.count("number of transactions")?;
        reader.count("number of subtransactions")?;
        // A bool, padded to the alignment of the ids.
        reader.bytes("overflow flag", 4)?;
        Ok(RunningXacts {
            next_xid: reader.xid("next transaction")?,
            oldest_running_xid: reader.xid("oldest running transaction")?,
            latest_completed_xid: reader.xid("latest completed transaction")?,
        })
    }
}
