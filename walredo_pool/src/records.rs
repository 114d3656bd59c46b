//! `RedoRecords`: the records of a request, as the messages in which a process will read them.
//!
//! Whoever finds the records writes them down once, here; from here the system copies them to the
//! process.

use bytes::{Bytes, BytesMut};
use postgres_formats::{BLCKSZ, Lsn, PageImage};

use crate::limits::RECORD_BYTES_MAX;
use crate::outbox::{COPY_BYTES_MAX, Outbox, Sealed};
use crate::protocol::{
    BEGIN_SIZE, HEADER_SIZE, encode_finish, encode_record, record_message_bytes,
};
use crate::request::RedoRecord;
use crate::spare;

/// Room for the message `BEGIN`, which is known last.
const BEGIN_BYTES_MAX: usize = HEADER_SIZE + BEGIN_SIZE + BLCKSZ;

/// WAL records to be applied to one page, oldest first. Each must name the page; what it does to
/// other pages is not done.
pub struct RedoRecords {
    /// Room for the message `BEGIN`, and all before the first long record.
    first: BytesMut,
    /// What comes then.
    rest: Option<Outbox>,
    count: u64,
    /// End and length of a record that is longer than `RECORD_BYTES_MAX`.
    pub(crate) too_large: Option<(Lsn, usize)>,
}

impl Default for RedoRecords {
    fn default() -> RedoRecords {
        RedoRecords::with_capacity(0, 0)
    }
}

impl RedoRecords {
    /// None yet, with room for so many records of so many bytes together.
    pub fn with_capacity(records: usize, bytes: usize) -> RedoRecords {
        // Each has a head and is padded; and there is an end to all.
        let bytes = BEGIN_BYTES_MAX + bytes + (records + 1) * record_message_bytes(0);
        let mut first = spare::buffer(bytes);
        first.resize(BEGIN_BYTES_MAX, 0);
        RedoRecords { first, rest: None, count: 0, too_large: None }
    }

    /// Adds a record behind all others; see [`RedoRecord`].
    pub fn push(&mut self, end: Lsn, bytes: &Bytes) {
        if bytes.len() > RECORD_BYTES_MAX {
            self.too_large = self.too_large.or(Some((end, bytes.len())));
            return;
        }
        match &mut self.rest {
            None if bytes.len() <= COPY_BYTES_MAX => encode_record(&mut self.first, end, bytes),
            rest => encode_record(rest.get_or_insert_default(), end, bytes),
        }
        self.count += 1;
    }

    /// The whole request: `begin` and the base page come before the records.
    pub(crate) fn finished(
        mut self,
        begin: &[u8; HEADER_SIZE + BEGIN_SIZE],
        base: Option<&PageImage>,
    ) -> Sealed {
        match &mut self.rest {
            None => encode_finish(&mut self.first),
            Some(rest) => encode_finish(rest),
        }
        let base = base.map_or(&[][..], |base| &base[..]);
        let at = BEGIN_BYTES_MAX - base.len() - begin.len();
        let room = self.first.get_mut(at..BEGIN_BYTES_MAX).unwrap_or_default();
        let (for_begin, for_base) = room.split_at_mut(begin.len());
        for_begin.copy_from_slice(begin);
        for_base.copy_from_slice(base);
        let first = self.first.freeze().slice(at..);
        Sealed::new(first, self.rest)
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
