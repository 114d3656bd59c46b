//! `Lineage`: whose WAL makes up a timeline's history.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use postgres_formats::lsn::SegmentNumber;
use postgres_formats::{Lsn, TimelineId};

use super::{MaterializeError, io_error};
use crate::cluster::Cluster;
use crate::timeline::image_name;
use crate::timeline::manifest::{Manifest, Origin};
use crate::wal::loaded::loaded_checkpoint;
use crate::wal::store::WalStore;

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

impl BaseImage {
    /// Whether it has not been removed.
    pub fn is_there(&self) -> bool {
        let (BaseImage::First(path) | BaseImage::Layer(path, _)) = self;
        path.exists()
    }
}

/// A timeline and its ancestors.
pub(super) struct Lineage {
    /// From the root on.
    pub stretches: Vec<Stretch>,
    /// The root's base image.
    pub image: BaseImage,
    /// The LSN of that image.
    pub start: Lsn,
    /// The checkpoint record that belongs to the image, just before `start`. None where the page server
    /// made the image: of a timeline that was forked once.
    pub checkpoint: Option<Lsn>,
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
            let root = Root { start: manifest.start, prev_record: manifest.state.prev_record };
            match manifest.origin {
                Origin::Ancestor(ancestor) => {
                    (id, end) = (ancestor.timeline, Some(ancestor.lsn));
                }
                Origin::ImageLayer(name) => {
                    let image = BaseImage::First(dir.join("layers").join(name));
                    return Lineage::from_root(stretches, image, &dir, &root);
                }
                Origin::OwnImage => {
                    let path = dir.join("layers").join(image_name(manifest.start));
                    let image = BaseImage::Layer(path, id);
                    return Lineage::from_root(stretches, image, &dir, &root);
                }
            }
        }
    }
}

/// What a root's manifest says of its beginning.
struct Root {
    start: Lsn,
    /// Start of the last record before.
    prev_record: Lsn,
}

impl Lineage {
    fn from_root(
        mut stretches: Vec<Stretch>,
        image: BaseImage,
        dir: &Path,
        root: &Root,
    ) -> Result<Lineage, MaterializeError> {
        stretches.reverse();
        let cluster = read_cluster(&dir.join("pg_control"))?;
        let store = WalStore::new(dir.join("wal"), cluster.segment_size, cluster.tli);
        let checkpoint = loaded_checkpoint(&store, &cluster, root.prev_record);
        let checkpoint = checkpoint.map_err(io_error(store.dir()))?;
        Ok(Lineage { stretches, image, start: root.start, checkpoint, cluster })
    }

    /// Where the root's WAL begins.
    pub fn wal_start(&self) -> Lsn {
        let size = self.cluster.segment_size;
        self.checkpoint.map_or(self.start, |checkpoint| checkpoint.segment(size).start(size))
    }

    /// The end of the last segment of the timeline's own, or where it was forked if it has none.
    pub fn wal_end(&self) -> Result<Lsn, MaterializeError> {
        let Cluster { segment_size, tli, .. } = self.cluster;
        let mut end = self.start;
        for stretch in &self.stretches {
            let store = WalStore::new(stretch.wal_dir.clone(), segment_size, tli);
            let last = match stretch.end {
                Some(end) => Some(end),
                None => {
                    let segments = store.segments().map_err(io_error(store.dir()))?;
                    segments.last().map(|last| SegmentNumber(last.0 + 1).start(segment_size))
                }
            };
            end = last.unwrap_or(end);
        }
        Ok(end)
    }
}

fn read_cluster(path: &Path) -> Result<Cluster, MaterializeError> {
    let bytes = std::fs::read(path).map_err(io_error(path))?;
    Cluster::from_control_file(&bytes).map_err(|error| MaterializeError::ControlFile {
        path: path.to_owned(),
        what: error.to_string(),
    })
}
