//! `Fields`: reads one message field by field and believes none of them.

use bytes::{Buf, Bytes};
use postgres_formats::{BlockNumber, ForkNumber, Oid, RelTag};

use super::{DecodeError, MAX_PAGES_PER_REQUEST};

/// The not yet decoded rest of one message.
pub struct Fields<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message, length: message.len() }
    }

    fn short(&self) -> DecodeError {
        DecodeError::TooShort { length: self.length }
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.rest.try_get_u8().map_err(|_| self.short())
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.rest.try_get_u16_le().map_err(|_| self.short())
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.rest.try_get_u32_le().map_err(|_| self.short())
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.rest.try_get_u64_le().map_err(|_| self.short())
    }

    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        let value = self.u8()?;
        check(value <= 1, field, value)?;
        Ok(value == 1)
    }

    pub fn rel(&mut self) -> Result<RelTag, DecodeError> {
        let (spc, db, rel) = (Oid(self.u32()?), Oid(self.u32()?), Oid(self.u32()?));
        let fork = self.u8()?;
        let fork = ForkNumber::from_u8(fork)
            .ok_or(DecodeError::BadField { field: "fork number", value: fork.into() })?;
        Ok(RelTag { spc, db, rel, fork })
    }

    /// The first of some pages and how many they are. The last one's number exists.
    pub fn page_range(&mut self) -> Result<(u32, u16), DecodeError> {
        let (first, count) = (self.u32()?, self.u16()?);
        check((1..=MAX_PAGES_PER_REQUEST).contains(&count), "page count", count)?;
        let last = u64::from(first) + u64::from(count) - 1;
        check(last <= u64::from(BlockNumber::MAX.0), "block number", last)?;
        Ok((first, count))
    }

    /// Everything left, as a part of `message`, which must be what these fields are read from.
    pub fn rest_of(&mut self, message: &Bytes) -> Bytes {
        let rest = message.slice_ref(self.rest);
        self.rest = &[];
        rest
    }

    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes { extra: self.rest.len() })
        }
    }
}

pub fn check(ok: bool, field: &'static str, value: impl Into<u64>) -> Result<(), DecodeError> {
    if ok { Ok(()) } else { Err(DecodeError::BadField { field, value: value.into() }) }
}
