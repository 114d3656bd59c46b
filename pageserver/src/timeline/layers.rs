//! Which layer files a timeline has.

use layers::KeyRange;
use postgres_formats::Lsn;

use super::Timeline;
use super::freeze::delta_name;

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
