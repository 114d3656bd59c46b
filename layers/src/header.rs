//! The first bytes of a file: what it is.

use std::ops::Range;

use crate::block;
use crate::error::ReadError;
use crate::input::Input;
use crate::limits::FORMAT_VERSION;
use crate::{FileId, LayerKind, Lsn, Owner, ReadAt};

/// Size in bytes of the header.
pub(crate) const HEADER_BYTES: usize = 80;
const MAGIC: [u8; 8] = *b"ZTHLAYER";
/// The magic and the format version: what the first checksum is made of. Never changes.
const PREAMBLE_BYTES: usize = 12;
const RESERVED_BYTES: usize = 11;

/// What a file is, as was known when it was begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) file: FileId,
    pub(crate) owner: Owner,
    pub(crate) kind: LayerKind,
    /// Half-open; not empty. Of an image: one position.
    pub(crate) lsns: Range<Lsn>,
}

impl Header {
    /// What does not hold of a header's fields, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.lsns.is_empty() {
            return Some("the range of positions is empty");
        }
        let one = self.lsns.end.as_u64() - self.lsns.start.as_u64() == 1;
        (self.kind == LayerKind::Image && !one).then_some("an image is of more than one position")
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(&self.file.0);
        out.extend_from_slice(&self.owner.0);
        out.extend_from_slice(&self.lsns.start.as_u64().to_le_bytes());
        out.extend_from_slice(&self.lsns.end.as_u64().to_le_bytes());
        out.push(self.kind.code());
        out.extend_from_slice(&[0; RESERVED_BYTES]);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        debug_assert_eq!(out.len(), HEADER_BYTES);
        out
    }

    pub(crate) fn read(source: &(impl ReadAt + ?Sized)) -> Result<Header, ReadError> {
        let corrupt = ReadError::corrupt(0);
        let preamble = block::read_bytes(source, 0, PREAMBLE_BYTES + 4)?;
        let version = parse_preamble(&preamble).map_err(&corrupt)?;
        if version > FORMAT_VERSION {
            return Err(ReadError::NewerFormat { found: version, known: FORMAT_VERSION });
        }
        if version == 0 {
            return Err(corrupt("there is no format version 0"));
        }
        let bytes = block::read_bytes(source, 0, HEADER_BYTES)?;
        let header = parse(&bytes).map_err(&corrupt)?;
        match header.fault() {
            Some(fault) => Err(corrupt(fault)),
            None => Ok(header),
        }
    }
}

/// The format version.
fn parse_preamble(bytes: &[u8]) -> Result<u32, &'static str> {
    let fields = || {
        let mut input = Input::new(bytes);
        Some((input.array::<8>()?, input.u32()?, input.u32()?))
    };
    let (magic, version, checksum) = fields().ok_or("the header is too short")?;
    if magic != MAGIC {
        return Err("this is not a layer file");
    }
    if checksum != crc32c::crc32c(bytes.get(..PREAMBLE_BYTES).unwrap_or(&[])) {
        return Err("the checksum of the format version does not hold");
    }
    Ok(version)
}

fn parse(bytes: &[u8]) -> Result<Header, &'static str> {
    let (checked, checksum) = bytes.split_last_chunk::<4>().ok_or("the header is too short")?;
    if crc32c::crc32c(checked) != u32::from_le_bytes(*checksum) {
        return Err("the checksum of the header does not hold");
    }
    let fields = || {
        let mut input = Input::new(checked);
        input.bytes(PREAMBLE_BYTES + 4)?;
        let file = FileId(input.array()?);
        let owner = Owner(input.array()?);
        let lsns = Lsn::new(input.u64()?)..Lsn::new(input.u64()?);
        Some((file, owner, lsns, input.u8()?, input.array::<RESERVED_BYTES>()?))
    };
    let (file, owner, lsns, kind, reserved) = fields().ok_or("the header is too short")?;
    let kind = LayerKind::from_code(kind).ok_or("the layer is of an unknown kind")?;
    if reserved != [0; RESERVED_BYTES] {
        return Err("reserved bytes of the header are not zero");
    }
    Ok(Header { file, owner, kind, lsns })
}
