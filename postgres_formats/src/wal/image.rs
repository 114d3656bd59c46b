//! From the page image inside a record to the page.
//!
//! Source: PostgreSQL `access/transam/xlogreader.c` (`RestoreBlockImage`). The unused middle of the
//! page is put back as zeros; compressed images are decompressed here, not by PostgreSQL.

use bytes::Bytes;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read as _;

use crate::page::BLCKSZ;
use crate::pglz;
use crate::{Lsn, PageImage};

/// How the bytes of a page image are compressed (`wal_compression`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageCompression {
    /// Not at all.
    None,
    /// PostgreSQL's own LZ compression.
    Pglz,
    /// LZ4, block format.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// A copy of a page inside a record, with the unused middle of the page left out.
#[derive(Debug, Clone)]
pub struct BlockImage {
    /// Redo puts the image in place of the page. Otherwise it is there only to compare with
    /// (`wal_consistency_checking`).
    pub apply: bool,
    /// Where on the page the left-out middle begins, in bytes.
    pub hole_offset: u16,
    /// Size of the left-out middle in bytes.
    pub hole_length: u16,
    /// How `data` is compressed.
    pub compression: ImageCompression,
    /// The page without its middle, compressed.
    pub data: Bytes,
}

/// A page image cannot be turned into a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The left-out middle reaches past the page.
    #[error("page image leaves out {length} bytes at {offset}, which is more than a page has")]
    BadHole {
        /// Where the middle begins, in bytes.
        offset: u16,
        /// Its size in bytes.
        length: u16,
    },
    /// The image has not as many bytes as the page without its middle.
    #[error("page image has {found} bytes instead of {expected}")]
    WrongLength {
        /// Bytes found, after decompression.
        found: usize,
        /// Bytes of the page without its middle.
        expected: usize,
    },
    /// The image cannot be decompressed.
    #[error("page image cannot be decompressed: {0}")]
    Pglz(#[from] pglz::PglzError),
    /// The image cannot be decompressed.
    #[error("page image cannot be decompressed with lz4: {0}")]
    Lz4(String),
    /// The image cannot be decompressed.
    #[error("page image cannot be decompressed with zstd: {0}")]
    Zstd(String),
}

impl BlockImage {
    /// The page as it is after the record that ends at `end`, which becomes the page's LSN unless
    /// the page is a new one without a header.
    pub fn restore(&self, end: Lsn) -> Result<PageImage, ImageError> {
        let hole_start = usize::from(self.hole_offset);
        let hole_end = hole_start + usize::from(self.hole_length);
        if hole_end > BLCKSZ {
            return Err(ImageError::BadHole { offset: self.hole_offset, length: self.hole_length });
        }
        // Both parts in one piece first, then the second is moved to its place.
        let len = BLCKSZ - usize::from(self.hole_length);
        let mut page = PageImage::zeroed();
        let found = self.decompress(&mut page[..len])?;
        if found != len {
            return Err(ImageError::WrongLength { found, expected: len });
        }
        if self.hole_length > 0 {
            page.copy_within(hole_start..len, hole_end);
            page[hole_start..hole_end].fill(0);
        }
        if !page.is_new() {
            page.set_lsn(end);
        }
        Ok(page)
    }

    /// Decompresses into `output`. Returns how many bytes there were.
    fn decompress(&self, output: &mut [u8]) -> Result<usize, ImageError> {
        match self.compression {
            ImageCompression::None => {
                if self.data.len() == output.len() {
                    output.copy_from_slice(&self.data);
                }
                Ok(self.data.len())
            }
            ImageCompression::Pglz => {
                pglz::decompress(&self.data, output)?;
                Ok(output.len())
            }
            ImageCompression::Lz4 => lz4_flex::block::decompress_into(&self.data, output)
                .map_err(|error| ImageError::Lz4(error.to_string())),
            ImageCompression::Zstd => decompress_zstd(&self.data, output),
        }
    }
}

fn decompress_zstd(mut input: &[u8], output: &mut [u8]) -> Result<usize, ImageError> {
    let failed = |error: &dyn std::fmt::Display| ImageError::Zstd(error.to_string());
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut input).map_err(|error| failed(&error))?;
    // One byte more than fits is enough to know that it does not fit.
    decoder
        .decode_blocks(&mut input, BlockDecodingStrategy::UptoBytes(output.len() + 1))
        .map_err(|error| failed(&error))?;
    if !decoder.is_finished() || decoder.can_collect() > output.len() {
        let found = decoder.can_collect().max(output.len() + 1);
        return Err(ImageError::WrongLength { found, expected: output.len() });
    }
    decoder.read(output).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn image(compression: ImageCompression, hole: (u16, u16), data: Vec<u8>) -> BlockImage {
        BlockImage {
            apply: true,
            hole_offset: hole.0,
            hole_length: hole.1,
            compression,
            data: data.into(),
        }
    }

    /// A page with a header, rows at its end and nothing in between.
    fn page() -> PageImage {
        let mut page = PageImage::zeroed();
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = if (100..6000).contains(&at) { 0 } else { (at % 250) as u8 + 1 };
        }
        page.set_lsn(Lsn::new(0x1234));
        page
    }

    fn without_hole(page: &PageImage) -> Vec<u8> {
        [&page[..100], &page[6000..]].concat()
    }

    #[test]
    fn the_middle_comes_back_as_zeros() {
        let image = image(ImageCompression::None, (100, 5900), without_hole(&page()));
        assert_eq!(image.restore(Lsn::new(0x1234)).unwrap(), page());
        assert_eq!(image.restore(Lsn::new(0x99)).unwrap().lsn(), Lsn::new(0x99));
    }

    #[test]
    fn lz4_images() {
        let packed = lz4_flex::block::compress(&without_hole(&page()));
        let good = image(ImageCompression::Lz4, (100, 5900), packed.clone());
        assert_eq!(good.restore(Lsn::new(0x1234)).unwrap(), page());
        let long = image(ImageCompression::Lz4, (100, 5899), packed.clone());
        assert_eq!(
            long.restore(Lsn::INVALID),
            Err(ImageError::WrongLength { found: 2292, expected: 2293 })
        );
        let short = image(ImageCompression::Lz4, (100, 5901), packed);
        assert!(matches!(short.restore(Lsn::INVALID), Err(ImageError::Lz4(_))));
    }

    #[test]
    fn zstd_images() {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        let packed = compress_to_vec(&without_hole(&page())[..], CompressionLevel::Fastest);
        let good = image(ImageCompression::Zstd, (100, 5900), packed.clone());
        assert_eq!(good.restore(Lsn::new(0x1234)).unwrap(), page());
        for hole in [5899, 5901] {
            let wrong = image(ImageCompression::Zstd, (100, hole), packed.clone());
            assert!(matches!(wrong.restore(Lsn::INVALID), Err(ImageError::WrongLength { .. })));
        }
    }

    #[test]
    fn a_new_page_gets_no_lsn() {
        let image = image(ImageCompression::None, (0, 0), vec![0; BLCKSZ]);
        assert_eq!(image.restore(Lsn::new(0x99)).unwrap(), PageImage::zeroed());
    }

    #[test]
    fn a_hole_must_lie_on_the_page() {
        let wrong = image(ImageCompression::None, (8000, 8000), vec![0; 192]);
        assert_eq!(
            wrong.restore(Lsn::INVALID),
            Err(ImageError::BadHole { offset: 8000, length: 8000 })
        );
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            data in prop::collection::vec(any::<u8>(), 0..300),
            hole in (0u16..9000, 0u16..9000),
            zstd_magic: bool,
        ) {
            use ImageCompression::*;
            let magic = if zstd_magic { &[0x28, 0xB5, 0x2F, 0xFD][..] } else { &[] };
            let data = [magic, &data].concat();
            for compression in [None, Pglz, Lz4, Zstd] {
                let _ = image(compression, hole, data.clone()).restore(Lsn::new(1));
            }
        }

        #[test]
        fn damaged_zstd_never_panics(at: prop::sample::Index, value: u8) {
            use ruzstd::encoding::{CompressionLevel, compress_to_vec};
            let mut packed = compress_to_vec(&without_hole(&page())[..], CompressionLevel::Fastest);
            let at = at.index(packed.len());
            packed[at] = value;
            let _ = image(ImageCompression::Zstd, (100, 5900), packed).restore(Lsn::new(1));
        }
    }
}
