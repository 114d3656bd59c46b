//! Numbers in as few bytes as they need: seven bits each, least significant first, the top bit of all
//! but the last byte set.

/// Appends `number`.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The number that `bytes` begin with, and what follows it. `None` if they end too early, the number
/// needs more than 64 bits, or it was not written in as few bytes as possible.
pub fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    let mut rest = bytes;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return shortest.then_some((number, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_read_as_written(number: u64, shift in 0..64, rest: Vec<u8>) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(take(&bytes), Some((number, &rest[..])));
        }

        /// No two spellings of a number.
        #[test]
        fn what_is_read_is_written_the_same(bytes: Vec<u8>) {
            if let Some((number, rest)) = take(&bytes) {
                let mut again = Vec::new();
                put(&mut again, number);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }

    #[test]
    fn refuses_what_is_cut_off_too_large_or_too_long() {
        assert_eq!(take(&[]), None);
        assert_eq!(take(&[0x80]), None);
        assert_eq!(take(&[0x80, 0]), None);
        let most = [0xFF; 9];
        assert_eq!(take(&[&most[..], &[1]].concat()), Some((u64::MAX, &[][..])));
        assert_eq!(take(&[&most[..], &[2]].concat()), None);
        assert_eq!(take(&[&most[..], &[0x81, 0]].concat()), None);
    }
}
