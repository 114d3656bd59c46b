//! `Manifest`: what a timeline is made of, as a small file that changes by atomic rename.

use std::io;
use std::path::{Path, PathBuf};

use durable_files::{Fact, FactError, read_fact, write_fact, write_new_fact};
use postgres_formats::checkpoint::{CheckPoint, CheckpointState};
use postgres_formats::id::ParseTimelineIdError;
use postgres_formats::lsn::ParseLsnError;
use postgres_formats::{Lsn, ServerParameters, TimelineId};
use serde::{Deserialize, Serialize};

use super::collect::Needed;

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

/// A checkpoint state as written in the file.
#[derive(Serialize, Deserialize)]
struct StateText {
    prev_record: String,
    checkpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<String>,
}

/// The manifest as written in the file.
#[derive(Serialize, Deserialize)]
struct Text {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestor_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_layer: Option<String>,
    start_lsn: String,
    created: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    detaching: bool,
    #[serde(flatten)]
    state: StateText,
    #[serde(skip_serializing_if = "Option::is_none")]
    layered: Option<LayeredText>,
}

#[derive(Serialize, Deserialize)]
struct LayeredText {
    end_lsn: String,
    #[serde(flatten)]
    state: StateText,
    deltas: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    images: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    horizon: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    points: Vec<String>,
    /// `FROM-TO`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<String>,
}

/// What formats 1 and 2 had besides.
#[derive(Deserialize)]
struct Unframed {
    format_version: u32,
    /// Of the text of all other fields.
    crc32c: u32,
}

impl Fact for Text {
    const FORMAT_VERSION: u32 = FORMAT_VERSION;
    const LAST_UNFRAMED: u32 = 2;
    const REMEDY: &'static str = "put it back from a copy";

    fn parse_unframed(text: &str) -> Result<Text, String> {
        let of_toml = |error: toml::de::Error| error.message().to_owned();
        let Unframed { format_version, crc32c } = toml::from_str(text).map_err(of_toml)?;
        let text: Text = toml::from_str(text).map_err(of_toml)?;
        let state = &text.state;
        let fields = (
            (format_version, &text.id, &text.ancestor, &text.ancestor_lsn),
            (
                &text.image_layer,
                &text.start_lsn,
                &state.prev_record,
                &state.checkpoint,
                text.created,
            ),
        );
        let mut checked = format!("{fields:?}");
        if let Some(parameters) = &state.parameters {
            checked += parameters;
        }
        match crc32c::crc32c(checked.as_bytes()) == crc32c {
            true => Ok(text),
            false => Err("its checksum does not fit its content".into()),
        }
    }
}

impl StateText {
    fn of(state: &CheckpointState) -> StateText {
        StateText {
            prev_record: state.prev_record.to_string(),
            checkpoint: hex::encode(state.checkpoint.encode()),
            parameters: Some(hex::encode(state.parameters.encode_record())),
        }
    }

    /// The state; its parameters are those of nobody if there are none.
    fn parse(&self) -> Result<CheckpointState, String> {
        let bytes = |text: &str| hex::decode(text).map_err(|error| error.to_string());
        let checkpoint = CheckPoint::decode(&bytes(&self.checkpoint)?);
        let parameters = match &self.parameters {
            Some(parameters) => ServerParameters::decode_record(&bytes(parameters)?)
                .map_err(|error| error.to_string())?,
            None => ServerParameters::default(),
        };
        Ok(CheckpointState {
            checkpoint: checkpoint.map_err(|error| error.to_string())?,
            parameters,
            prev_record: lsn(&self.prev_record)?,
        })
    }
}

fn lsn(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|error: ParseLsnError| error.to_string())
}

fn range(text: &str) -> Result<Needed, String> {
    let (from, to) = text.split_once('-').ok_or_else(|| format!("{text:?} is no range of LSNs"))?;
    Ok(Needed { from: lsn(from)?, to: lsn(to)? })
}

fn id(text: &str) -> Result<TimelineId, String> {
    text.parse().map_err(|error: ParseTimelineIdError| error.to_string())
}

/// A name that is one of a file in a folder.
fn file_name(name: String) -> Result<String, String> {
    match name.is_empty() || name.starts_with('.') || name.contains('/') {
        true => Err(format!("{name:?} is not the name of a layer")),
        false => Ok(name),
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
        let manifest = Manifest::parse(text).map_err(corrupt)?;
        let folder = timeline_dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match folder.parse::<TimelineId>() {
            Ok(id) if id != manifest.id => {
                Err(corrupt(format!("it is that of timeline {}", manifest.id)))
            }
            _ => Ok(manifest),
        }
    }

    fn parse(text: Text) -> Result<Manifest, String> {
        let origin = match (&text.ancestor, &text.ancestor_lsn, text.image_layer) {
            (Some(ancestor), Some(at), None) => {
                Origin::Ancestor(Ancestor { timeline: id(ancestor)?, lsn: lsn(at)? })
            }
            (None, None, Some(name)) => Origin::ImageLayer(file_name(name)?),
            (None, None, None)
                if text.layered.as_ref().is_some_and(|layered| !layered.images.is_empty()) =>
            {
                Origin::OwnImage
            }
            _ => return Err("it names neither an ancestor nor an image layer, or both".into()),
        };
        let (start, state) = (lsn(&text.start_lsn)?, text.state.parse()?);
        let layered = match text.layered {
            Some(layered) => Layered {
                deltas: layered.deltas.into_iter().map(file_name).collect::<Result<_, _>>()?,
                images: layered.images.into_iter().map(file_name).collect::<Result<_, _>>()?,
                end: lsn(&layered.end_lsn)?,
                state: layered.state.parse()?,
                retained: Retained {
                    horizon: layered.horizon.map_or(Ok(Lsn::default()), |text| lsn(&text))?,
                    points: layered
                        .points
                        .iter()
                        .map(|text| lsn(text))
                        .collect::<Result<_, _>>()?,
                    ranges: layered
                        .ranges
                        .iter()
                        .map(|text| range(text))
                        .collect::<Result<_, _>>()?,
                },
            },
            None => Layered::nothing(start, state),
        };
        Ok(Manifest {
            id: id(&text.id)?,
            origin,
            start,
            state,
            state_is_complete: text.state.parameters.is_some(),
            created: text.created,
            detaching: text.detaching,
            layered,
        })
    }

    /// Writes the manifest in a timeline's folder, durably and at once.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, timeline_dir: &Path) -> Result<(), ManifestError> {
        let path = timeline_dir.join(FILE_NAME);
        write_fact(&path, &self.text()).map_err(|error| not_written(path, error))
    }

    /// Writes the manifest in the folder of a timeline in the making. It is durable once the folder
    /// has been synced.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_new(&self, timeline_dir: &Path) -> Result<(), ManifestError> {
        let path = timeline_dir.join(FILE_NAME);
        write_new_fact(&path, &self.text()).map_err(|error| not_written(path, error))
    }

    fn text(&self) -> Text {
        let (ancestor, image_layer) = match &self.origin {
            Origin::Ancestor(ancestor) => (Some(ancestor), None),
            Origin::ImageLayer(name) => (None, Some(name.clone())),
            Origin::OwnImage => (None, None),
        };
        // Also when nobody needed any of its layers: where they ended must not be forgotten.
        let is_layered = self.layered != Layered::nothing(self.start, self.state);
        Text {
            id: self.id.to_string(),
            ancestor: ancestor.map(|a| a.timeline.to_string()),
            ancestor_lsn: ancestor.map(|a| a.lsn.to_string()),
            image_layer,
            start_lsn: self.start.to_string(),
            created: self.created,
            detaching: self.detaching,
            state: StateText::of(&self.state),
            layered: is_layered.then(|| LayeredText {
                end_lsn: self.layered.end.to_string(),
                state: StateText::of(&self.layered.state),
                deltas: self.layered.deltas.clone(),
                images: self.layered.images.clone(),
                horizon: Some(&self.layered.retained.horizon)
                    .filter(|horizon| **horizon > Lsn::default())
                    .map(ToString::to_string),
                points: self.layered.retained.points.iter().map(ToString::to_string).collect(),
                ranges: self
                    .layered
                    .retained
                    .ranges
                    .iter()
                    .map(|Needed { from, to }| format!("{from}-{to}"))
                    .collect(),
            }),
        }
    }
}

fn not_written(path: PathBuf, error: FactError) -> ManifestError {
    match error {
        FactError::Io { path, source } => ManifestError::Io { path, source },
        other => ManifestError::Corrupt { path, what: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// As release 0.1 wrote it.
    const FORMAT_1: &str = "\
format_version = 1
id = \"00112233445566778899aabbccddeeff\"
ancestor = \"ffeeddccbbaa99887766554433221100\"
ancestor_lsn = \"0/16B3748\"
start_lsn = \"0/16B3748\"
prev_record = \"0/16B3710\"
checkpoint = \"CHECKPOINT\"
created = 1700000000
crc32c = CRC
";

    fn format_1() -> String {
        let state = CheckPoint { next_oid: postgres_formats::Oid(24576), ..Default::default() };
        let checkpoint = hex::encode(state.encode());
        // The fields as that release brought them together for the checksum.
        let fields = format!(
            "((1, \"00112233445566778899aabbccddeeff\", \
             Some(\"ffeeddccbbaa99887766554433221100\"), Some(\"0/16B3748\")), \
             (None, \"0/16B3748\", \"0/16B3710\", \"{checkpoint}\", 1700000000))"
        );
        let crc = crc32c::crc32c(fields.as_bytes()).to_string();
        FORMAT_1.replace("CHECKPOINT", &checkpoint).replace("CRC", &crc)
    }

    #[test]
    fn the_first_format_is_read() {
        let manifest = Manifest::parse(Text::parse_unframed(&format_1()).unwrap()).unwrap();
        assert!(!manifest.state_is_complete);
        assert_eq!(manifest.state.checkpoint.next_oid, postgres_formats::Oid(24576));
        assert_eq!(manifest.start, Lsn::new(0x16B3748));
    }

    #[test]
    fn kept_files_of_each_format_are_read() {
        let first = "image__00000000016B3748";
        let pieces = ["image__00000000016B4000__-20", "image__00000000016B4000__20-"];
        for (sample, images) in [
            (include_str!("samples/manifest_4.toml"), vec![first]),
            (include_str!("samples/manifest_5.toml"), [&[first], &pieces[..]].concat()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE_NAME), sample).unwrap();
            let manifest = Manifest::read(dir.path()).unwrap();
            assert_eq!((manifest.origin, manifest.detaching), (Origin::OwnImage, false));
            assert_eq!(manifest.layered.images, images);
            assert_eq!(manifest.layered.end, Lsn::new(0x16B4000));
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), include_str!("samples/manifest_6.toml"))
            .unwrap();
        let manifest = Manifest::read(dir.path()).unwrap();
        assert!(manifest.origin.ancestor().is_some() && manifest.detaching);
        let range = Needed { from: Lsn::new(0x16B3900), to: Lsn::new(0x16B3A00) };
        let retained = Retained {
            horizon: Lsn::new(0x16B3F00),
            points: vec![Lsn::new(0x16B3800)],
            ranges: vec![range],
        };
        assert_eq!(manifest.layered.retained, retained);
    }

    #[test]
    fn parameters_are_kept_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::parse(Text::parse_unframed(&format_1()).unwrap()).unwrap();
        manifest.state.parameters.max_connections = 77;
        manifest.state.parameters.track_commit_timestamp = true;
        manifest.state_is_complete = true;
        manifest.layered = Layered::nothing(manifest.start, manifest.state);
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        manifest.origin = Origin::OwnImage;
        manifest.layered.images = vec!["image__1".to_owned()];
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        manifest.layered.deltas = vec!["delta__1".to_owned(), "delta__2".to_owned()];
        manifest.layered.end = Lsn::new(0x16B4000);
        manifest.layered.retained = Retained {
            horizon: Lsn::new(0x16B3F00),
            points: vec![Lsn::new(0x16B3800)],
            ranges: vec![Needed { from: Lsn::new(0x16B3900), to: Lsn::MAX }],
        };
        manifest.layered.state.prev_record = Lsn::new(0x16B3F00);
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        // All of its layers are gone, and where they ended is not forgotten.
        manifest.origin = Origin::ImageLayer("image".to_owned());
        manifest.layered.deltas.clear();
        manifest.layered.images.clear();
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);

        let path = dir.path().join(FILE_NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("parameters = \"4d", "parameters = \"4e")).unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(ManifestError::Corrupt { .. })));
    }
}
