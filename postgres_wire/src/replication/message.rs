//! The messages inside of the CopyData of a replication stream.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use postgres_formats::lsn::Lsn;

use crate::error::ConnectionError;

/// Seconds from the Unix epoch to 2000-01-01, PostgreSQL's (`datatype/timestamp.h`).
const PG_EPOCH_SECONDS: u64 = 946_684_800;

/// A moment as PostgreSQL counts: microseconds since 2000-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// Now, by this machine's clock.
    pub fn now() -> PgTimestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = since.saturating_sub(Duration::from_secs(PG_EPOCH_SECONDS)).as_micros();
        PgTimestamp(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

/// What a WAL sender says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationMessage {
    /// A piece of WAL. Pieces follow one another without a gap; they never cross a segment, but
    /// begin and end anywhere in a record.
    XLogData {
        /// Where the first byte belongs.
        start: Lsn,
        /// The server's end of WAL, of which this may be far behind.
        end: Lsn,
        /// When the server sent it.
        sent_at: PgTimestamp,
        /// The bytes.
        bytes: Bytes,
    },
    /// A sign of life.
    KeepAlive {
        /// The server's end of WAL.
        end: Lsn,
        /// When the server sent it.
        sent_at: PgTimestamp,
        /// The server wants to hear from us soon; `ReplicationStream` has answered already with the
        /// last status given.
        reply_requested: bool,
    },
}

impl ReplicationMessage {
    /// Reads a CopyData body.
    pub(crate) fn decode(mut body: Bytes) -> Result<ReplicationMessage, ConnectionError> {
        let kind = body.first().copied();
        ReplicationMessage::try_decode(&mut body).ok_or_else(|| {
            let kind = kind.map(|k| k.escape_ascii().to_string()).unwrap_or_default();
            ConnectionError::protocol(format!("malformed replication message of type '{kind}'"))
        })
    }

    fn try_decode(body: &mut Bytes) -> Option<ReplicationMessage> {
        match body.try_get_u8().ok()? {
            b'w' => {
                let start = Lsn::new(body.try_get_u64().ok()?);
                let end = Lsn::new(body.try_get_u64().ok()?);
                let sent_at = PgTimestamp(body.try_get_i64().ok()?);
                start.checked_add(body.len() as u64)?;
                let bytes = std::mem::take(body);
                Some(ReplicationMessage::XLogData { start, end, sent_at, bytes })
            }
            b'k' => {
                let end = Lsn::new(body.try_get_u64().ok()?);
                let sent_at = PgTimestamp(body.try_get_i64().ok()?);
                let reply_requested = body.try_get_u8().ok()? != 0;
                Some(ReplicationMessage::KeepAlive { end, sent_at, reply_requested })
            }
            _ => None,
        }
    }
}

/// A Standby status update.
pub(crate) fn status_update(write: Lsn, flush: Lsn, apply: Lsn, reply_requested: bool) -> [u8; 34] {
    let mut body = [0; 34];
    let fields = [
        write.as_u64().to_be_bytes(),
        flush.as_u64().to_be_bytes(),
        apply.as_u64().to_be_bytes(),
        PgTimestamp::now().0.to_be_bytes(),
    ];
    body[0] = b'r';
    for (place, field) in body[1..33].chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field);
    }
    body[33] = u8::from(reply_requested);
    body
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = ReplicationMessage::decode(bytes.into());
        }
    }

    #[test]
    fn wal_cannot_wrap_around() {
        let mut body = vec![b'w'];
        body.extend(u64::MAX.to_be_bytes());
        body.extend([0; 16]);
        assert!(ReplicationMessage::decode(body.clone().into()).is_ok());
        body.push(0);
        assert!(ReplicationMessage::decode(body.into()).is_err());
    }
}
