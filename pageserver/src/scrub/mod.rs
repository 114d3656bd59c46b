//! Reading every file that a branch consists of, its ancestors' too, and naming what is damaged.
//!
//! Requests read only what they need, so that damage may lie in wait for a long time. Here every byte
//! that has a checksum is read: those of layers and of what they say, of all WAL, of the small files. What
//! has none is not looked at: the padding between WAL records, WAL before the checkpoint with which a cluster
//! was loaded.
//!
//! Needs no daemon and may run beside one, also where a branch is too damaged to be served. A file that changes
//! meanwhile may look damaged once, so that a timeline with something wrong is read again.

mod wal;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pageserver_client::BranchName;
use postgres_formats::BlockNumber;
use postgres_formats::lsn::WalSegmentSize;

use crate::cluster::Cluster;
use crate::error_text::with_causes;
use crate::layer::delta::DeltaLayer;
use crate::layer::image::{ImageLayer, LayerError};
use crate::layer::imaged::ImagedLayer;
use crate::layer::source::LayerFiles;
use crate::repository::ref_file::timeline_of;
use crate::timeline::manifest::{Manifest, Origin};
use crate::wal::flushed_mark::FlushedMark;
use crate::wal::follow_file::FollowFile;
use crate::writer::WriterFact;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrubbed {
    /// How many files were read.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// What is wrong, in the order in which it was found.
    pub problems: Vec<Problem>,
}

/// Damage in a file, or a file that is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file, within the repository.
    pub path: PathBuf,
    /// What is wrong, and where.
    pub what: String,
}

impl Scrubbed {
    /// Counts a file and takes note of what is wrong with it.
    fn file<T, E: std::error::Error>(&mut self, path: &Path, read: Result<T, E>) -> Option<T> {
        self.files += 1;
        self.bytes += fs::metadata(path).map_or(0, |meta| meta.len());
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(path, with_causes(&error));
                None
            }
        }
    }

    fn problem(&mut self, path: &Path, what: String) {
        self.problems.push(Problem { path: path.to_owned(), what });
    }

    fn add(&mut self, other: Scrubbed) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.problems.extend(other.problems);
    }
}

/// Reads all files of the branch called `name` and of its ancestors in the repository at `dir`.
pub fn scrub(dir: &Path, name: &BranchName) -> Scrubbed {
    let mut found = Scrubbed::default();
    let path = dir.join("refs/branches").join(name.as_str());
    let mut next = found.file(&path, timeline_of(dir, name));
    let mut seen = BTreeSet::new();
    let mut timelines = Vec::new();
    while let Some(id) = next.filter(|id| seen.insert(*id)) {
        let folder = dir.join("timelines").join(id.to_string());
        let ancestor = Manifest::read(&folder).ok().and_then(|manifest| manifest.origin.ancestor());
        next = ancestor.map(|ancestor| ancestor.timeline);
        timelines.push(folder);
    }
    // Facts of the cluster are in the root's folder.
    let cluster = timelines.last().map(|root| read_cluster(&root.join("pg_control")));
    let size = match &cluster {
        Some(Ok(cluster)) => cluster.segment_size,
        _ => WalSegmentSize::DEFAULT,
    };
    for folder in &timelines {
        let mut read = timeline(folder, size, cluster.as_ref().and_then(|c| c.as_ref().ok()));
        if !read.problems.is_empty() {
            read = timeline(folder, size, cluster.as_ref().and_then(|c| c.as_ref().ok()));
        }
        found.add(read);
    }
    for problem in &mut found.problems {
        if let Ok(within) = problem.path.strip_prefix(dir) {
            problem.path = within.to_owned();
        }
    }
    found
}

fn read_cluster(path: &Path) -> io::Result<Cluster> {
    Cluster::from_control_file(&fs::read(path)?).map_err(io::Error::other)
}

/// All files of one timeline.
fn timeline(folder: &Path, size: WalSegmentSize, cluster: Option<&Cluster>) -> Scrubbed {
    let mut found = Scrubbed::default();
    let path = folder.join("manifest");
    let Some(manifest) = found.file(&path, Manifest::read(folder)) else { return found };
    if manifest.origin.ancestor().is_none() {
        let path = folder.join("pg_control");
        found.file(&path, read_cluster(&path));
    }
    if let Origin::ImageLayer(name) = &manifest.origin {
        let path = folder.join("layers").join(name);
        found.file(&path, read_image(&path));
    }
    // Nothing is read twice, so that there is nothing to be remembered.
    let files = LayerFiles::new(1, 0);
    for name in &manifest.layered.deltas {
        let path = folder.join("layers").join(name);
        let read = DeltaLayer::open(&path, manifest.id, size, false, &files);
        found.file(&path, read.and_then(|layer| layer.verify()));
    }
    for name in &manifest.layered.images {
        let path = folder.join("layers").join(name);
        let read = ImagedLayer::open(&path, manifest.id, size, &files);
        found.file(&path, read.and_then(|layer| layer.verify()));
    }
    for (name, read) in [
        ("follow.toml", FollowFile::read(folder).map(|file| file.is_some())),
        ("writer.toml", WriterFact::read(folder).map(|file| file.is_some())),
    ] {
        // That there is none is all right.
        if !matches!(read, Ok(false)) {
            found.file(&folder.join(name), read);
        }
    }
    let mark = FlushedMark::new(&folder.join("wal")).read();
    let path = folder.join("wal/flushed");
    let durable = match mark {
        Ok(None) => None,
        mark => found.file(&path, mark).flatten(),
    };
    if let Some(cluster) = cluster {
        wal::read(&folder.join("wal"), &manifest, cluster, durable, &mut found);
    }
    found
}

/// Every page, besides what opening it looks at.
fn read_image(path: &Path) -> Result<(), LayerError> {
    let image = ImageLayer::open(path)?;
    for (object, pages) in image.objects() {
        for block in 0..pages {
            image.page(object, BlockNumber(block))?;
        }
    }
    Ok(())
}
