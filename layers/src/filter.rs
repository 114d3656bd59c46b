//! A filter of keys: says of most absent keys that they are absent, and never so of one that is there.
//!
//! A blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters",
//! 2007): a key's bits all lie in one part of 512 bits. With 10 bits for a key and 6 of them set, a
//! little more than one absent key of a hundred passes.

/// Bits of the filter for each key.
pub(crate) const BITS_PER_KEY: usize = 10;
/// Size of a part in bytes.
const PART_BYTES: usize = 64;
/// Bits set in a part for each key.
const PROBES: u32 = 6;
/// Bits of the hash that choose one of a part's 512 bits.
const PROBE_BITS: u32 = 9;

/// The hash of a key: FNV-1a of 64 bits, then the last steps of MurmurHash3, for the upper bits of the
/// former depend too little on the last bytes.
pub(crate) fn hash(key: &[u8]) -> u64 {
    let fnv = key.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    finish(fnv)
}

/// The last steps of MurmurHash3 for 64 bits.
fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

/// Number of the part for `hash`, of `parts`, then the bits in it, as (byte, mask).
fn place(hash: u64, parts: usize) -> (usize, impl Iterator<Item = (usize, u8)>) {
    let part = ((u128::from(hash) * parts as u128) >> 64) as usize;
    let bits = finish(hash);
    let probes = (0..PROBES).map(move |n| {
        let bit = (bits >> (n * PROBE_BITS)) & ((1 << PROBE_BITS) - 1);
        ((bit / 8) as usize, 1 << (bit % 8))
    });
    (part, probes)
}

/// The filter of the keys with these hashes.
pub(crate) fn build(hashes: &[u64]) -> Vec<u8> {
    let parts = (hashes.len() * BITS_PER_KEY).div_ceil(PART_BYTES * 8).max(1);
    let mut filter = vec![0; parts * PART_BYTES];
    for &hash in hashes {
        let (part, probes) = place(hash, parts);
        if let Some(part) = filter.chunks_exact_mut(PART_BYTES).nth(part) {
            for (byte, mask) in probes {
                if let Some(byte) = part.get_mut(byte) {
                    *byte |= mask;
                }
            }
        }
    }
    filter
}

/// A filter as it was read.
#[derive(Debug)]
pub(crate) struct Filter(Vec<u8>);

impl Filter {
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Filter, &'static str> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(PART_BYTES) {
            return Err("a filter has another size");
        }
        Ok(Filter(bytes))
    }

    /// Whether the key with this hash may be there.
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        let (part, mut probes) = place(hash, self.0.len() / PART_BYTES);
        let part = self.0.chunks_exact(PART_BYTES).nth(part).unwrap_or(&[]);
        probes.all(|(byte, mask)| part.get(byte).is_none_or(|byte| byte & mask != 0))
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hashes(range: std::ops::Range<u32>) -> Vec<u64> {
        range.map(|n| hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn all_keys_pass_and_few_others() {
        for keys in [0, 1, 50, 52, 1_000, 40_000] {
            let filter = Filter::parse(build(&hashes(0..keys))).unwrap();
            assert!(hashes(0..keys).into_iter().all(|hash| filter.may_contain(hash)));
            let passed = hashes(1_000_000..1_100_000)
                .into_iter()
                .filter(|&hash| filter.may_contain(hash))
                .count();
            assert!(passed < 2_000, "{passed} of 100,000 absent keys pass a filter of {keys}");
        }
    }

    /// FORMAT.md promises these numbers to other readers.
    #[test]
    fn the_hash_is_the_one_of_the_format() {
        assert_eq!(hash(b""), 0xEFD0_1F60_BA99_2926);
        assert_eq!(hash(b"layer"), hash(b"layer"));
        assert_ne!(hash(b"layer"), hash(b"laye"));
    }

    #[test]
    fn a_size_that_cannot_be_is_refused() {
        assert!(Filter::parse(Vec::new()).is_err());
        assert!(Filter::parse(vec![0; 65]).is_err());
    }
}
