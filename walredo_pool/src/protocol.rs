//! The messages between the pool and a redo process, as bytes. No IO.
//!
//! PROTOCOL.md explains them; `module/walredo_protocol.h` holds the same numbers, and a test
//! compares the two. Both ends run on one machine: numbers are in its byte order.

use bytes::Bytes;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelTag};

use crate::managers::CustomManagers;
use crate::outbox::Out;
use crate::request::{MaskKind, RedoRecord, RedoRequest};

/// The version of the protocol that a process must speak.
pub const PROTOCOL_VERSION: u32 = 2;

/// Size in bytes of the header of every message: kind, argument (both `u32`), length (`u64`).
pub const HEADER_SIZE: usize = 16;
/// Payloads are padded with zeros to a multiple of this many bytes.
pub const ALIGNMENT: usize = 8;

/// Starts a request.
pub const BEGIN: u32 = 1;
/// Gives one record of the request.
pub const RECORD: u32 = 2;
/// Ends the request and asks for the page.
pub const FINISH: u32 = 3;
/// Asks for a page without the bits that WAL does not promise.
pub const MASK: u32 = 4;

/// The first message of a process: it is ready.
pub const HELLO: u32 = 101;
/// The page.
pub const PAGE: u32 = 102;
/// There is no page, and why.
pub const ERROR: u32 = 103;

/// `BEGIN`: the page before the first record follows.
pub const BEGIN_HAS_BASE: u32 = 1;
/// `BEGIN`: compare with images for consistency checking.
pub const BEGIN_VERIFY: u32 = 2;
/// `MASK`: mask only LSN and checksum; other arguments are resource managers.
pub const MASK_PAGE_HEADER: u32 = 256;

/// Bytes of `BEGIN` before the page.
pub const BEGIN_SIZE: usize = 32;
/// Bytes of `RECORD` before the record.
pub const RECORD_SIZE: usize = 8;
/// Bytes of `MASK` before the page.
pub const MASK_SIZE: usize = 16;
/// Bytes of `HELLO`.
pub const HELLO_SIZE: usize = 24;
/// Bytes of `PAGE` before the page.
pub const PAGE_SIZE: usize = 8;
/// Bytes of `ERROR` before the text.
pub const ERROR_SIZE: usize = 16;

/// The first of the resource managers that extensions can register; `HELLO` has a bit for each.
pub const CUSTOM_MIN: u8 = 128;

/// The bytes are not what the other side should have sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("redo protocol violated: {0}")]
pub struct ProtocolError(pub String);

/// A message from a process.
#[derive(Debug)]
pub enum Reply {
    /// It is ready.
    Hello {
        /// `PROTOCOL_VERSION` of its module.
        protocol: u32,
        /// PostgreSQL's version number, such as 150004.
        postgres: u32,
        /// Its size of a page, in bytes.
        block_size: u32,
        /// What its libraries have registered.
        custom: CustomManagers,
    },
    /// The answer to a request.
    Page {
        /// The request's id.
        id: u64,
        /// The page.
        page: PageImage,
    },
    /// The answer to a request that PostgreSQL refused.
    Error {
        /// The request's id.
        id: u64,
        /// End of the record that could not be applied.
        record: Lsn,
        /// PostgreSQL's message.
        message: String,
    },
}

fn header(kind: u32, argument: u32, length: usize) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[0..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..8].copy_from_slice(&argument.to_ne_bytes());
    bytes[8..16].copy_from_slice(&(length as u64).to_ne_bytes());
    bytes
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

/// The message `BEGIN` but for the base page, which follows if there is one; otherwise the page begins
/// with zeros.
pub fn begin(
    id: u64,
    rel: RelTag,
    block: BlockNumber,
    has_base: bool,
    verify: bool,
) -> [u8; HEADER_SIZE + BEGIN_SIZE] {
    let flags = if has_base { BEGIN_HAS_BASE } else { 0 } | if verify { BEGIN_VERIFY } else { 0 };
    let length = BEGIN_SIZE + if has_base { BLCKSZ } else { 0 };
    let mut bytes = [0; HEADER_SIZE + BEGIN_SIZE];
    let RelTag { spc, db, rel, fork } = rel;
    bytes[..HEADER_SIZE].copy_from_slice(&header(BEGIN, flags, length));
    bytes[HEADER_SIZE..HEADER_SIZE + 8].copy_from_slice(&id.to_ne_bytes());
    let numbers = [spc.0, db.0, rel.0, u32::from(fork as u8), block.0, 0];
    for (n, number) in numbers.into_iter().enumerate() {
        let at = HEADER_SIZE + 8 + 4 * n;
        bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

/// Length in bytes of the message `RECORD` for a record of that length.
pub fn record_message_bytes(record_bytes: usize) -> usize {
    HEADER_SIZE + (RECORD_SIZE + record_bytes).next_multiple_of(ALIGNMENT)
}

/// Writes the message `RECORD`. Only a record that is long is shared, not copied.
pub fn encode_record(out: &mut impl Out, end: Lsn, record: &Bytes) {
    let length = RECORD_SIZE + record.len();
    let mut head = [0; HEADER_SIZE + RECORD_SIZE];
    head[..HEADER_SIZE].copy_from_slice(&header(RECORD, 0, length));
    head[HEADER_SIZE..].copy_from_slice(&end.as_u64().to_ne_bytes());
    out.copy(&head);
    out.append(record);
    out.copy(&[0; ALIGNMENT][..padding(length)]);
}

/// Writes the message `FINISH`.
pub fn encode_finish(out: &mut impl Out) {
    out.copy(&header(FINISH, 0, 0));
}

/// Writes the message `MASK`.
pub fn encode_mask(
    out: &mut impl Out,
    id: u64,
    kind: MaskKind,
    block: BlockNumber,
    page: &PageImage,
) {
    let argument = match kind {
        MaskKind::ResourceManager(rmid) => u32::from(rmid),
        MaskKind::PageHeader => MASK_PAGE_HEADER,
    };
    out.copy(&header(MASK, argument, MASK_SIZE + BLCKSZ));
    out.copy(&id.to_ne_bytes());
    out.copy(&block.0.to_ne_bytes());
    out.copy(&0u32.to_ne_bytes());
    out.copy(&page[..]);
}

/// Reads numbers and slices off the front of bytes that may be too short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], ProtocolError> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| ProtocolError("message is too short".to_owned()))?;
        self.0 = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        let mut number = [0; 4];
        number.copy_from_slice(self.bytes(4)?);
        Ok(u32::from_ne_bytes(number))
    }

    fn u64(&mut self) -> Result<u64, ProtocolError> {
        let mut number = [0; 8];
        number.copy_from_slice(self.bytes(8)?);
        Ok(u64::from_ne_bytes(number))
    }

    fn page(&mut self) -> Result<PageImage, ProtocolError> {
        let bytes = self.bytes(BLCKSZ)?;
        PageImage::from_slice(bytes)
            .ok_or_else(|| ProtocolError("page has a wrong length".to_owned()))
    }
}

/// A whole message at the front of some bytes.
struct Message<'a> {
    kind: u32,
    argument: u32,
    payload: &'a [u8],
    /// Its length with header and padding.
    used: usize,
}

/// Finds the first whole message. `None` if it is not all there yet.
fn split_message(
    bytes: &[u8],
    payload_bytes_max: usize,
) -> Result<Option<Message<'_>>, ProtocolError> {
    if bytes.len() < HEADER_SIZE {
        return Ok(None);
    }
    let mut fields = Fields(bytes);
    let (kind, argument, length) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > payload_bytes_max {
        return Err(ProtocolError(format!("message of kind {kind} has {length} bytes")));
    }
    if fields.0.len() < length + padding(length) {
        return Ok(None);
    }
    let payload = fields.bytes(length)?;
    Ok(Some(Message { kind, argument, payload, used: HEADER_SIZE + length + padding(length) }))
}

/// Takes a process's message off the front of `bytes`: the message and its length, or `None` if
/// it is not all there yet.
pub fn decode_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
    let payload_bytes_max =
        (PAGE_SIZE + BLCKSZ).max(ERROR_SIZE + crate::limits::ERROR_TEXT_BYTES_MAX);
    let Some(message) = split_message(bytes, payload_bytes_max)? else {
        return Ok(None);
    };
    let Message { kind, argument, payload, used } = message;
    let mut fields = Fields(payload);
    let reply = match kind {
        HELLO => {
            let (postgres, block_size) = (fields.u32()?, fields.u32()?);
            let mut bits = [0; 16];
            bits.copy_from_slice(fields.bytes(16)?);
            let custom = CustomManagers::from_bits(u128::from_le_bytes(bits));
            Reply::Hello { protocol: argument, postgres, block_size, custom }
        }
        PAGE => Reply::Page { id: fields.u64()?, page: fields.page()? },
        ERROR => {
            let (id, record) = (fields.u64()?, Lsn::new(fields.u64()?));
            let message = String::from_utf8_lossy(fields.0).into_owned();
            fields.0 = &[];
            Reply::Error { id, record, message }
        }
        _ => return Err(ProtocolError(format!("unknown message kind {kind}"))),
    };
    if !fields.0.is_empty() {
        return Err(ProtocolError(format!("message of kind {kind} is too long")));
    }
    Ok(Some((reply, used)))
}

/// Reads back the messages of a request, and whether it asked for verification.
pub fn decode_redo(bytes: &Bytes) -> Result<(RedoRequest, bool), ProtocolError> {
    let payload_bytes_max = RECORD_SIZE + crate::limits::RECORD_BYTES_MAX;
    let cut = || ProtocolError("request is cut off".to_owned());

    let begin = split_message(bytes, payload_bytes_max)?.ok_or_else(cut)?;
    let Message { kind, argument: flags, payload, used } = begin;
    if kind != BEGIN {
        return Err(ProtocolError(format!("message kind {kind} where a request should begin")));
    }
    let mut fields = Fields(payload);
    let _id = fields.u64()?;
    let (spc, db, rel) = (Oid(fields.u32()?), Oid(fields.u32()?), Oid(fields.u32()?));
    let fork = u8::try_from(fields.u32()?).ok().and_then(ForkNumber::from_u8);
    let fork = fork.ok_or_else(|| ProtocolError("no such fork".to_owned()))?;
    let block = BlockNumber(fields.u32()?);
    let _reserved = fields.u32()?;
    let base = if flags & BEGIN_HAS_BASE != 0 { Some(fields.page()?) } else { None };

    let mut records = Vec::new();
    let mut rest = bytes.slice(used..);
    loop {
        let message = split_message(&rest, payload_bytes_max)?.ok_or_else(cut)?;
        let Message { kind, payload, used, .. } = message;
        match kind {
            RECORD => {
                let mut fields = Fields(payload);
                let end = Lsn::new(fields.u64()?);
                records.push(RedoRecord { end, bytes: rest.slice_ref(fields.0) });
            }
            FINISH => break,
            _ => return Err(ProtocolError(format!("message kind {kind} inside a request"))),
        }
        rest = rest.slice(used..);
    }
    let request = RedoRequest { rel: RelTag { spc, db, rel, fork }, block, base, records };
    Ok((request, flags & BEGIN_VERIFY != 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::records::RedoRecords;

    fn request() -> RedoRequest {
        let rel = RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Vm };
        let mut base = PageImage::zeroed();
        base[100] = 7;
        let record = |n: usize| RedoRecord {
            end: Lsn::new(8 * n as u64),
            bytes: Bytes::from(vec![n as u8; n]),
        };
        let records = vec![record(24), record(25), record(100_000)];
        RedoRequest { rel, block: BlockNumber(77), base: Some(base), records }
    }

    #[test]
    fn requests_round_trip() {
        for (base, verify) in [(true, false), (false, true)] {
            let mut sent = request();
            if !base {
                sent.base = None;
            }
            let RedoRequest { rel, block, ref base, ref records } = sent;
            let begin = begin(9, rel, block, base.is_some(), verify);
            let base_bytes = base.as_ref().map_or(0, |base| base.len());
            let said = records.iter().map(|r| record_message_bytes(r.bytes.len())).sum::<usize>();
            let records: RedoRecords = records.iter().collect();
            let bytes = Bytes::from(records.finished(&begin, base.as_ref()).to_vec());
            assert_eq!(bytes.len(), begin.len() + base_bytes + said + HEADER_SIZE);
            assert_eq!(bytes.len() % ALIGNMENT, 0);
            let (read, read_verify) = decode_redo(&bytes).unwrap();
            assert_eq!(read_verify, verify);
            assert_eq!((read.rel, read.block, &read.base), (sent.rel, sent.block, &sent.base));
            assert_eq!(read.records.len(), sent.records.len());
            for (read, sent) in read.records.iter().zip(&sent.records) {
                assert_eq!((read.end, &read.bytes), (sent.end, &sent.bytes));
            }
            for cut in [0, 1, 15, 16, 47, 48, bytes.len() - 16, bytes.len() - 1] {
                assert!(decode_redo(&bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn replies_are_found_in_a_stream() {
        let mut bytes = header(PAGE, 0, PAGE_SIZE + BLCKSZ).to_vec();
        bytes.extend(5u64.to_ne_bytes());
        bytes.extend([3; BLCKSZ]);
        let page_len = bytes.len();
        bytes.extend(header(ERROR, 0, ERROR_SIZE + 3));
        bytes.extend(6u64.to_ne_bytes());
        bytes.extend(0x10u64.to_ne_bytes());
        bytes.extend(b"bad\0\0\0\0\0");
        for cut in 0..page_len {
            assert!(decode_reply(&bytes[..cut]).unwrap().is_none());
        }
        let (reply, used) = decode_reply(&bytes).unwrap().unwrap();
        assert_eq!(used, page_len);
        assert!(matches!(reply, Reply::Page { id: 5, page } if page[9] == 3));
        let (reply, used) = decode_reply(&bytes[page_len..]).unwrap().unwrap();
        assert_eq!(used, bytes.len() - page_len);
        assert!(matches!(reply, Reply::Error { id: 6, message, .. } if message == "bad"));
    }

    #[test]
    fn wrong_replies_are_refused() {
        for bytes in [
            header(7, 0, 0).to_vec(),
            header(PAGE, 0, usize::MAX).to_vec(),
            header(PAGE, 0, 0).to_vec(),
            [header(HELLO, 2, 16), [0; 16]].concat(),
        ] {
            assert!(decode_reply(&bytes).is_err());
        }
    }
}
