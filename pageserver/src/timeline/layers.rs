//! Which layer files a timeline has.

use layers::KeyRange;
use postgres_formats::Lsn;

use super::Timeline;
use super::freeze::{DELTA, IMAGE, delta_name};

/// A layer file of a timeline's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerFile {
    /// Its name in `layers/`.
    pub name: String,
    /// Its history begins behind this LSN; of an image: the LSN.
    pub start: Lsn,
    /// The end of the last record in it; of an image: the LSN.
    pub end: Lsn,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it is an image, or a piece of one.
    pub is_image: bool,
    /// Which keys it speaks of.
    pub keys: KeyRange,
}

impl LayerFile {
    /// What a name tells of the file; `None` if it is none of a layer.
    pub(crate) fn of_name(name: &str) -> Option<LayerFile> {
        let lsn = |text: &str| u64::from_str_radix(text, 16).ok().map(Lsn::new);
        let mut keys = KeyRange::ALL;
        let (start, end, is_image) = match (name.strip_prefix(DELTA), name.strip_prefix(IMAGE)) {
            (Some(rest), _) => {
                let (start, end) = rest.split_once('-')?;
                (lsn(start)?, lsn(end)?, false)
            }
            (None, Some(rest)) => {
                let at = match rest.split_once("__") {
                    Some((at, piece)) => {
                        let (start, end) = piece.split_once('-')?;
                        let end = Some(hex::decode(end).ok()?).filter(|end| !end.is_empty());
                        keys = KeyRange { start: hex::decode(start).ok()?, end };
                        lsn(at)?
                    }
                    None => lsn(rest)?,
                };
                (at, at, true)
            }
            (None, None) => return None,
        };
        Some(LayerFile { name: name.to_owned(), start, end, bytes: 0, is_image, keys })
    }
}

impl Timeline {
    /// The layer files: the deltas, oldest first, then the images, oldest first. An image of the first
    /// releases' format is not among them.
    pub fn layer_files(&self) -> Vec<LayerFile> {
        let (deltas, images) = self.history.read().layers();
        let delta = deltas.iter().map(|layer| LayerFile {
            name: delta_name(layer.start(), layer.end()),
            start: layer.start(),
            end: layer.end(),
            bytes: layer.file_bytes(),
            is_image: false,
            keys: KeyRange::ALL,
        });
        let pieces = images.iter().flat_map(|image| image.pieces());
        let image = pieces.map(|layer| LayerFile {
            name: layer.name(),
            start: layer.lsn(),
            end: layer.lsn(),
            bytes: layer.file_bytes(),
            is_image: true,
            keys: layer.keys().clone(),
        });
        delta.chain(image).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::freeze::piece_name;
    use super::*;

    #[test]
    fn a_name_tells_what_is_in_the_file() {
        let lsn = Lsn::new(0x1_016B_3748);
        let delta = LayerFile::of_name(&delta_name(lsn, Lsn::new(0x2_0000_0028)));
        let found = delta.map(|file| (file.start, file.end, file.is_image, file.keys));
        assert_eq!(found, Some((lsn, Lsn::new(0x2_0000_0028), false, KeyRange::ALL)));
        let last = KeyRange { start: vec![5], end: None };
        for keys in [KeyRange::ALL, KeyRange::new([], [5, 0xAB]), last] {
            let image = LayerFile::of_name(&piece_name(lsn, &keys));
            let found = image.map(|file| (file.start, file.end, file.is_image, file.keys));
            assert_eq!(found, Some((lsn, lsn, true, keys)));
        }
        for name in ["image", "delta__12", "image__XY", "image__12__34", "x"] {
            assert_eq!(LayerFile::of_name(name), None, "{name}");
        }
    }
}
