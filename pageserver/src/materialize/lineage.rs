//! `Lineage`: whose WAL makes up a timeline's history.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use postgres_formats::{Lsn, TimelineId};

use super::{MaterializeError, io_error};
use crate::cluster::Cluster;
use crate::timeline::image_name;
use crate::timeline::manifest::{Manifest, Origin};

/// A stretch of history in one timeline's WAL.
#[derive(Debug)]
pub(super) struct Stretch {
    /// The folder with the segments.
    pub wal_dir: PathBuf,
    /// Where the next timeline's begins; the last one has no end.
    pub end: Option<Lsn>,
}

/// The file with all there is at the beginning.
pub(super) enum BaseImage {
    /// As the first releases wrote it.
    First(PathBuf),
    /// An image layer, and whose it is.
    Layer(PathBuf, TimelineId),
}

/// A timeline and its ancestors.
pub(super) struct Lineage {
    /// From the root on.
    pub stretches: Vec<Stretch>,
    /// The root's base image.
    pub image: BaseImage,
    /// The LSN of that image.
    pub start: Lsn,
    pub cluster: Cluster,
}

impl Lineage {
    pub fn read(repository: &Path, timeline: TimelineId) -> Result<Lineage, MaterializeError> {
        let mut stretches = Vec::new();
        let mut seen = BTreeSet::new();
        let (mut id, mut end) = (timeline, None);
        loop {
            if !seen.insert(id) {
                return Err(MaterializeError::Circle(timeline));
            }
            let dir = repository.join("timelines").join(id.to_string());
            let manifest = Manifest::read(&dir)?;
            stretches.push(Stretch { wal_dir: dir.join("wal"), end });
            match manifest.origin {
                Origin::Ancestor(ancestor) => {
                    (id, end) = (ancestor.timeline, Some(ancestor.lsn));
                }
                Origin::ImageLayer(name) => {
                    let image = BaseImage::First(dir.join("layers").join(name));
                    return Lineage::from_root(stretches, image, &dir, manifest.start);
                }
                Origin::OwnImage => {
                    let path = dir.join("layers").join(image_name(manifest.start));
                    let image = BaseImage::Layer(path, id);
                    return Lineage::from_root(stretches, image, &dir, manifest.start);
                }
            }
        }
    }
}

impl Lineage {
    fn from_root(
        mut stretches: Vec<Stretch>,
        image: BaseImage,
        dir: &Path,
        start: Lsn,
    ) -> Result<Lineage, MaterializeError> {
        stretches.reverse();
        Ok(Lineage { stretches, image, start, cluster: read_cluster(&dir.join("pg_control"))? })
    }
}

fn read_cluster(path: &Path) -> Result<Cluster, MaterializeError> {
    let bytes = std::fs::read(path).map_err(io_error(path))?;
    Cluster::from_control_file(&bytes).map_err(|error| MaterializeError::ControlFile {
        path: path.to_owned(),
        what: error.to_string(),
    })
}
