//! Page images inside records: holes and the three compressions.

use bytes::Bytes;
use postgres_formats::wal::{BlockImage, ImageCompression};
use postgres_formats::{BLCKSZ, Lsn};

/// Compression, hole (offset, length), then the image's bytes.
pub fn run(input: &[u8]) {
    let Some((&[how, a, b, c, d], data)) = input.split_first_chunk() else { return };
    let compression = match how % 4 {
        0 => ImageCompression::None,
        1 => ImageCompression::Pglz,
        2 => ImageCompression::Lz4,
        _ => ImageCompression::Zstd,
    };
    let image = BlockImage {
        apply: true,
        hole_offset: u16::from_le_bytes([a, b]),
        hole_length: u16::from_le_bytes([c, d]),
        compression,
        data: Bytes::copy_from_slice(data),
    };
    let end = Lsn::new(0x0200_0000);
    let Ok(page) = image.restore(end) else { return };
    let (offset, length) = (usize::from(image.hole_offset), usize::from(image.hole_length));
    assert!(page.is_new() || page.lsn() == end);
    // The LSN in the first eight bytes is put there.
    let hole = offset.max(8)..(offset + length).max(8);
    assert!(page[hole].iter().all(|byte| *byte == 0), "the hole is not empty");
    if compression == ImageCompression::None {
        assert_eq!(data.len(), BLCKSZ - length);
        assert_eq!(&page[(offset + length).max(8)..], &data[offset.max(8 - length.min(8))..]);
    }
}

/// Images of a page with a hole: plain, and by each compression a page of one byte value.
pub fn seeds() -> Vec<Vec<u8>> {
    let input = |how: u8, offset: u16, length: u16, data: &[u8]| {
        let mut input = vec![how];
        input.extend_from_slice(&offset.to_le_bytes());
        input.extend_from_slice(&length.to_le_bytes());
        input.extend_from_slice(data);
        input
    };
    let plain: Vec<u8> = (0..BLCKSZ).map(|n| (n % 251) as u8).collect();
    // pglz: two literals, then 30 copies at distance one, each of the greatest length, which is 273.
    // A byte that says which are copies goes before every eight items.
    let mut pglz = Vec::new();
    for item in 0..32 {
        if item % 8 == 0 {
            pglz.push(if item == 0 { 0b1111_1100 } else { 0xFF });
        }
        if item < 2 {
            pglz.push(7);
        } else {
            pglz.extend_from_slice(&[0x0F, 1, (273 - 18) as u8]);
        }
    }
    // lz4: one literal, a copy at distance one to five bytes before the end, five literals.
    let mut lz4 = vec![0x1F, 7, 1, 0];
    let mut left = BLCKSZ - 1 - 5 - 4 - 15;
    while left >= 255 {
        lz4.push(255);
        left -= 255;
    }
    lz4.push(left as u8);
    lz4.extend_from_slice(&[0x50, 7, 7, 7, 7, 7]);
    // zstd: a frame of known size (8192 bytes in two bytes, less 256), one block of a repeated byte.
    let mut zstd = vec![0x28, 0xB5, 0x2F, 0xFD, 0x60];
    zstd.extend_from_slice(&((BLCKSZ - 256) as u16).to_le_bytes());
    let block = ((BLCKSZ as u32) << 3) | 0b011;
    zstd.extend_from_slice(&block.to_le_bytes()[..3]);
    zstd.push(7);
    vec![
        input(0, 0, 0, &plain),
        input(0, 200, 4_000, &plain[4_000..]),
        input(1, 0, 0, &pglz),
        input(2, 0, 0, &lz4),
        input(3, 0, 0, &zstd),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the mutations begin from something that is refused at once.
    #[test]
    fn seeds_are_images() {
        for seed in seeds() {
            let compression = match seed[0] {
                0 => ImageCompression::None,
                1 => ImageCompression::Pglz,
                2 => ImageCompression::Lz4,
                _ => ImageCompression::Zstd,
            };
            let image = BlockImage {
                apply: true,
                hole_offset: u16::from_le_bytes([seed[1], seed[2]]),
                hole_length: u16::from_le_bytes([seed[3], seed[4]]),
                compression,
                data: Bytes::copy_from_slice(&seed[5..]),
            };
            image.restore(Lsn::new(8)).unwrap();
        }
    }
}
