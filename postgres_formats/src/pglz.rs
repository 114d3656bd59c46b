//! Decompression of pglz, PostgreSQL's own LZ format.
//!
//! Source: the format described in PostgreSQL `common/pg_lzcompress.c`. Items come in groups of
//! eight, each group behind a byte whose bits, lowest first, say which items are matches:
//!
//! ```text
//! bit 0: a literal byte
//! bit 1: a match    oooo llll  oooo oooo  [eeee eeee]
//!        offset = 12 bits o (upper four first): that many bytes back from the output's end
//!        length = l + 3, and if that is 18: + e
//! ```
//!
//! A match may overlap its own output, which repeats it.

/// The bytes are not the compressed form of as many bytes as expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PglzError {
    /// A match refers to what is before the beginning of the output.
    #[error("pglz data refers to {offset} bytes back after {produced} bytes of output")]
    BadOffset {
        /// How far back, in bytes.
        offset: usize,
        /// Bytes produced before.
        produced: usize,
    },
    /// The input ends inside an item, or before the output is complete.
    #[error("pglz data ends after {produced} of {expected} bytes of output")]
    TooShort {
        /// Bytes produced.
        produced: usize,
        /// Size of the output.
        expected: usize,
    },
    /// There is input left although the output is complete.
    #[error("pglz data has {0} bytes too many")]
    TooLong(usize),
}

/// Length of a match that is followed by a byte to be added to it.
const LENGTH_EXTENDED: usize = 18;

/// Fills `output` with what `input` is the compressed form of. All of the input must be used, and
/// all of the output filled.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), PglzError> {
    let expected = output.len();
    let mut input = input.iter().copied();
    let mut produced = 0;
    while produced < expected {
        let too_short = PglzError::TooShort { produced, expected };
        let control = input.next().ok_or(too_short)?;
        for bit in 0..8 {
            // The last group may be shorter than eight items.
            if produced == expected || input.len() == 0 {
                break;
            }
            let too_short = PglzError::TooShort { produced, expected };
            let first = input.next().ok_or(too_short)?;
            if control & 1 << bit == 0 {
                output[produced] = first;
                produced += 1;
                continue;
            }
            let second = input.next().ok_or(too_short)?;
            let offset = usize::from(first & 0xF0) << 4 | usize::from(second);
            let mut length = usize::from(first & 0x0F) + 3;
            if length == LENGTH_EXTENDED {
                length += usize::from(input.next().ok_or(too_short)?);
            }
            if offset == 0 || offset > produced {
                return Err(PglzError::BadOffset { offset, produced });
            }
            // The compressor may have matched past the end of what it was asked for.
            let length = length.min(expected - produced);
            if offset >= length {
                output.copy_within(produced - offset..produced - offset + length, produced);
            } else {
                for at in produced..produced + length {
                    output[at] = output[at - offset];
                }
            }
            produced += length;
        }
    }
    match input.len() {
        0 => Ok(()),
        left => Err(PglzError::TooLong(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(input: &[u8], len: usize) -> Result<Vec<u8>, PglzError> {
        let mut output = vec![0; len];
        decompress(input, &mut output).map(|()| output)
    }

    #[test]
    fn literals_and_matches() {
        assert_eq!(unpack(&[0, b'a', b'b'], 2), Ok(b"ab".to_vec()));
        // "ab", then 6 bytes from 2 back: overlapping.
        assert_eq!(unpack(&[4, b'a', b'b', 3, 2], 8), Ok(b"abababab".to_vec()));
        // Extended length: 18 + 10.
        assert_eq!(unpack(&[2, b'x', 0x0F, 1, 10], 29), Ok(vec![b'x'; 29]));
        // Offset with upper bits: 0x100 back.
        let mut long = Vec::new();
        for group in 0..32u8 {
            long.push(0);
            long.extend((0..8).map(|i| group * 8 + i));
        }
        long.extend([1, 0x10, 0x00]);
        let expected: Vec<u8> = (0..=255).chain(0..3).collect();
        assert_eq!(unpack(&long, 259), Ok(expected));
        assert_eq!(unpack(&[], 0), Ok(vec![]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(unpack(&[1, 0, 0], 3), Err(PglzError::BadOffset { offset: 0, produced: 0 }));
        assert_eq!(
            unpack(&[2, b'a', 0, 2], 4),
            Err(PglzError::BadOffset { offset: 2, produced: 1 })
        );
        assert_eq!(unpack(&[0, b'a'], 2), Err(PglzError::TooShort { produced: 1, expected: 2 }));
        assert_eq!(unpack(&[2, b'a', 0], 4), Err(PglzError::TooShort { produced: 1, expected: 4 }));
        assert_eq!(unpack(&[0, b'a', b'b'], 1), Err(PglzError::TooLong(1)));
    }
}
