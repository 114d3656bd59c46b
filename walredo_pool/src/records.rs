//! `RedoRecords`: the records of a request, as the messages in which a process will read them.
//!
//! Whoever finds the records writes them down once, here; from here the system copies them to the
//! process.

use bytes::Bytes;
use postgres_formats::Lsn;

use crate::limits::RECORD_BYTES_MAX;
use crate::outbox::Outbox;
use crate::protocol::{encode_record, record_message_bytes};
use crate::request::RedoRecord;

/// WAL records to be applied to one page, oldest first. Each must name the page; what it does to
/// other pages is not done.
#[derive(Default)]
pub struct RedoRecords {
    pub(crate) messages: Outbox,
    count: u64,
    /// End and length of a record that is longer than `RECORD_BYTES_MAX`.
    pub(crate) too_large: Option<(Lsn, usize)>,
}

impl RedoRecords {
    /// None yet, with room for so many records of so many bytes together.
    pub fn with_capacity(records: usize, bytes: usize) -> RedoRecords {
        // Each has a head and is padded; and there is an end to all.
        let bytes = bytes + (records + 1) * record_message_bytes(0);
        RedoRecords { messages: Outbox::with_capacity(bytes), ..RedoRecords::default() }
    }

    /// Adds a record behind all others; see [`RedoRecord`].
    pub fn push(&mut self, end: Lsn, bytes: &Bytes) {
        if bytes.len() > RECORD_BYTES_MAX {
            self.too_large = self.too_large.or(Some((end, bytes.len())));
            return;
        }
        encode_record(&mut self.messages, end, bytes);
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl<'a> FromIterator<&'a RedoRecord> for RedoRecords {
    fn from_iter<I: IntoIterator<Item = &'a RedoRecord>>(records: I) -> RedoRecords {
        let mut all = RedoRecords::default();
        records.into_iter().for_each(|record| all.push(record.end, &record.bytes));
        all
    }
}
