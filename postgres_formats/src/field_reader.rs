//! `FieldReader`, checked reading of little-endian fields from bytes that nobody vouches for.
//!
//! PostgreSQL writes its structures in the machine's own byte order. Only little-endian clusters
//! are supported; the magic number of a WAL page or the version of a control file written on a
//! big-endian machine does not match, so such input is refused before any field is believed.

/// A field reaches past the end of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes wanted at offset {offset}, but only {left} are left")]
pub struct Truncated {
    /// Offset in bytes at which the field begins.
    pub offset: usize,
    /// Size of the field in bytes.
    pub wanted: usize,
    /// Bytes from `offset` to the end.
    pub left: usize,
}

/// Reads fields one behind the other; every read is checked against the end.
#[derive(Debug, Clone)]
pub struct FieldReader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> FieldReader<'a> {
    /// A reader at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> FieldReader<'a> {
        FieldReader { bytes, offset: 0 }
    }

    /// Offset in bytes of the next field.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Truncated> {
        let found =
            self.offset
                .checked_add(len)
                .and_then(|end| self.bytes.get(self.offset..end))
                .ok_or(Truncated { offset: self.offset, wanted: len, left: self.remaining() })?;
        self.offset += len;
        Ok(found)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// Passes over `len` bytes, such as a C structure's padding.
    pub fn skip(&mut self, len: usize) -> Result<(), Truncated> {
        self.bytes(len).map(|_| ())
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next 16 bits.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 32 bits.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 64 bits.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next 32 bits, signed.
    pub fn i32(&mut self) -> Result<i32, Truncated> {
        self.array().map(i32::from_le_bytes)
    }

    /// The next 64 bits, signed.
    pub fn i64(&mut self) -> Result<i64, Truncated> {
        self.array().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_stops_at_the_end() {
        let mut fields = FieldReader::new(&[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!(fields.u8(), Ok(1));
        assert_eq!(fields.u16(), Ok(2));
        assert_eq!(fields.u32(), Ok(3));
        assert_eq!(fields.u32(), Err(Truncated { offset: 7, wanted: 4, left: 1 }));
        assert_eq!(fields.bytes(usize::MAX).map_err(|e| e.left), Err(1));
        assert_eq!(fields.u8(), Ok(9));
        assert_eq!(fields.remaining(), 0);
    }
}
