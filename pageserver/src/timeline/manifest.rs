//! `Manifest`: what a timeline is made of, as a small file that changes by atomic rename.

mod text;

use std::io;
use std::path::{Path, PathBuf};

use durable_files::{FactError, read_fact, write_fact, write_new_fact};
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::{Lsn, TimelineId};

use super::collect::Needed;
use text::Text;

/// 2: `parameters`, without which the state is not complete. 3: layers; the checksum is that of all
/// facts. 4: images among the layers. 5: images in pieces. 6: ranges among what can be asked for still.
const FORMAT_VERSION: u32 = 6;
const FILE_NAME: &str = "manifest";

/// The manifest of the timeline in that folder.
pub(super) fn path_in(timeline_dir: &Path) -> PathBuf {
    timeline_dir.join(FILE_NAME)
}

/// Why a manifest could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The operating system's answer.
    #[error("manifest {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content makes no sense.
    #[error("manifest {path} is damaged: {what}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// Written by a later release.
    #[error("manifest {path} has format {found}, this release reads up to {FORMAT_VERSION}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
}

/// The point of another timeline at which a timeline was forked from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ancestor {
    /// The other timeline.
    pub timeline: TimelineId,
    /// State at this LSN is where the new timeline begins; a place where a record can begin.
    pub lsn: Lsn,
}

/// What lies below a timeline's own WAL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It was forked.
    Ancestor(Ancestor),
    /// It begins with an image of the first releases' format: the name of the file in `layers/`.
    ImageLayer(String),
    /// Nothing: it begins with one of its own images.
    OwnImage,
}

impl Origin {
    /// What it was forked from.
    pub fn ancestor(&self) -> Option<Ancestor> {
        match self {
            Origin::Ancestor(ancestor) => Some(*ancestor),
            Origin::ImageLayer(_) | Origin::OwnImage => None,
        }
    }
}

/// What a timeline is made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// Whose it is.
    pub id: TimelineId,
    /// What lies below.
    pub origin: Origin,
    /// Where its own WAL begins; a place where a record can begin.
    pub start: Lsn,
    /// The checkpoint state at `start`.
    pub state: CheckpointState,
    /// Whether all of `state` is known. Format 1 has neither the server's parameters nor what
    /// follows from them: these have to be found in what lies below.
    pub state_is_complete: bool,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Whether it is to be detached from its ancestor.
    pub detaching: bool,
    /// What of its own history is in layers.
    pub layered: Layered,
}

/// What of a timeline's own history is in layers; the rest is in its WAL.
#[derive(Clone, PartialEq, Debug)]
pub struct Layered {
    /// Names of the delta layers in `layers/`, the oldest first. Each begins where the one before ends.
    pub deltas: Vec<String>,
    /// Names of the image layers in `layers/`, pieces of images among them. Each is of an LSN where a delta ends,
    /// or of the beginning.
    pub images: Vec<String>,
    /// Where the last of them ends, and the WAL that is not in layers begins: a place where a record can
    /// begin.
    pub end: Lsn,
    /// The checkpoint state there.
    pub state: CheckpointState,
    /// What can be asked for still, after layers were removed.
    pub retained: Retained,
}

/// What of a timeline's own history can be asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Retained {
    /// Every LSN from here on.
    pub horizon: Lsn,
    /// And these before.
    pub points: Vec<Lsn>,
    /// And all of these before, which may go on behind the horizon.
    pub ranges: Vec<Needed>,
}

impl Layered {
    /// Nothing yet, of a timeline that begins with that state.
    pub fn nothing(start: Lsn, state: CheckpointState) -> Layered {
        Layered {
            deltas: Vec::new(),
            images: Vec::new(),
            end: start,
            state,
            retained: Retained::default(),
        }
    }
}

impl Manifest {
    /// Reads the manifest in a timeline's folder.
    ///
    /// # Errors
    /// See `ManifestError`.
    pub fn read(timeline_dir: &Path) -> Result<Manifest, ManifestError> {
        let path = timeline_dir.join(FILE_NAME);
        let corrupt = |what| ManifestError::Corrupt { path: path.clone(), what };
        let text = match read_fact::<Text>(&path) {
            Ok(Some(text)) => text,
            Ok(None) => {
                let source = io::Error::from(io::ErrorKind::NotFound);
                return Err(ManifestError::Io { path, source });
            }
            Err(FactError::Io { path, source }) => return Err(ManifestError::Io { path, source }),
            Err(FactError::Corrupt { problem, .. }) => return Err(corrupt(problem)),
            Err(FactError::NewerFormat { path, found, .. }) => {
                return Err(ManifestError::NewerFormat { path, found });
            }
        };
        let manifest = text.manifest().map_err(corrupt)?;
        let folder = timeline_dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match folder.parse::<TimelineId>() {
            Ok(id) if id != manifest.id => {
                Err(corrupt(format!("it is that of timeline {}", manifest.id)))
            }
            _ => Ok(manifest),
        }
    }

    /// Writes the manifest in a timeline's folder, durably and at once.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, timeline_dir: &Path) -> Result<(), ManifestError> {
        let path = timeline_dir.join(FILE_NAME);
        write_fact(&path, &Text::of(self)).map_err(|error| not_written(path, error))
    }

    /// Writes the manifest in the folder of a timeline in the making. It is durable once the folder
    /// has been synced.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_new(&self, timeline_dir: &Path) -> Result<(), ManifestError> {
        let path = timeline_dir.join(FILE_NAME);
        write_new_fact(&path, &Text::of(self)).map_err(|error| not_written(path, error))
    }
}

fn not_written(path: PathBuf, error: FactError) -> ManifestError {
    match error {
        FactError::Io { path, source } => ManifestError::Io { path, source },
        other => ManifestError::Corrupt { path, what: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
