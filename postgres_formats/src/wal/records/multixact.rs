//! Multitransaction records. Source: PostgreSQL `access/multixact.h`.

use super::RecordContentError;
use super::reader::Reader;
use crate::{MultiXactId, Oid, TransactionId};

/// Content of `ZERO_OFF_PAGE` and `ZERO_MEM_PAGE`: the page that begins as zeros.
pub fn parse_zero_page(data: &[u8]) -> Result<u32, RecordContentError> {
    Reader::new(data).count("multitransaction page")
}

/// One transaction of a multitransaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiXactMember {
    /// The transaction.
    pub xid: TransactionId,
    /// How it holds the tuple: `MultiXactStatus`, 0 to 5.
    pub status: u8,
}

/// Largest `MultiXactStatus` (`MaxMultiXactStatus`, an update).
const MULTIXACT_STATUS_MAX: u32 = 5;

/// Content of [`CREATE_ID`](crate::wal::rmgr::multixact::CREATE_ID).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiXactCreate {
    /// The new multitransaction.
    pub multi: MultiXactId,
    /// Number of its first member; the others follow it, around 2^32 if need be.
    pub first_member: u32,
    /// Its members.
    pub members: Vec<MultiXactMember>,
}

impl MultiXactCreate {
    /// Reads `xl_multixact_create`.
    pub fn parse(data: &[u8]) -> Result<MultiXactCreate, RecordContentError> {
        let mut reader = Reader::new(data);
        let multi = MultiXactId(reader.u32("multitransaction")?);
        let first_member = reader.u32("first member's number")?;
        let count = reader.count("number of members")?;
        let members = reader
            .items("members", count, 8)?
            .map(|item| {
                let mut reader = Reader::new(item);
                let xid = reader.xid("member")?;
                let status = reader.u32("member's status")?;
                if status > MULTIXACT_STATUS_MAX {
                    let value = i64::from(status);
                    return Err(RecordContentError::BadValue { what: "member's status", value });
                }
                Ok(MultiXactMember { xid, status: status as u8 })
            })
            .collect::<Result<_, _>>()?;
        Ok(MultiXactCreate { multi, first_member, members })
    }

    /// Number of the member after the last one: where the next multitransaction's members begin,
    /// except that PostgreSQL never begins at 0.
    pub fn end_member(&self) -> u32 {
        self.first_member.wrapping_add(self.members.len() as u32)
    }
}

/// Content of [`TRUNCATE_ID`](crate::wal::rmgr::multixact::TRUNCATE_ID).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiXactTruncate {
    /// The database that holds the oldest multitransaction back.
    pub oldest_multi_db: Oid,
    /// The oldest multitransaction before.
    pub start_multi: MultiXactId,
    /// The oldest multitransaction from now on.
    pub end_multi: MultiXactId,
    /// Number of the first member before.
    pub start_member: u32,
    /// Number of the first member still needed.
    pub end_member: u32,
}

impl MultiXactTruncate {
    /// Reads `xl_multixact_truncate`.
    pub fn parse(data: &[u8]) -> Result<MultiXactTruncate, RecordContentError> {
        let mut reader = Reader::new(data);
        Ok(MultiXactTruncate {
            oldest_multi_db: reader.oid("database")?,
            start_multi: MultiXactId(reader.u32("first multitransaction")?),
            end_multi: MultiXactId(reader.u32("end multitransaction")?),
            start_member: reader.u32("first member")?,
            end_member: reader.u32("end member")?,
        })
    }
}
