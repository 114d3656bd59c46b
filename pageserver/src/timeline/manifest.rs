//! `Manifest`: what a timeline is made of, as a small file that changes by atomic rename.

use std::io;
use std::path::{Path, PathBuf};

use postgres_formats::checkpoint::{CheckPoint, CheckpointState};
use postgres_formats::{Lsn, ServerParameters, TimelineId};
use serde::{Deserialize, Serialize};

/// 2: `parameters`, without which the state is not complete.
const FORMAT_VERSION: u32 = 2;
const FILE_NAME: &str = "manifest";

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
    /// It begins with an image layer: the name of the file in `layers/`.
    ImageLayer(String),
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
}

/// The manifest as written in the file.
#[derive(Serialize, Deserialize)]
struct Text {
    format_version: u32,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestor_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_layer: Option<String>,
    start_lsn: String,
    prev_record: String,
    checkpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<String>,
    created: u64,
    /// Of the text of all other fields.
    crc32c: u32,
}

#[derive(Deserialize)]
struct FormatVersion {
    format_version: u32,
}

impl Text {
    fn checksum(&self) -> u32 {
        let fields = (
            (self.format_version, &self.id, &self.ancestor, &self.ancestor_lsn),
            (&self.image_layer, &self.start_lsn, &self.prev_record, &self.checkpoint, self.created),
        );
        let mut text = format!("{fields:?}");
        if let Some(parameters) = &self.parameters {
            text += parameters;
        }
        crc32c::crc32c(text.as_bytes())
    }
}

impl Manifest {
    /// Reads the manifest in a timeline's folder.
    ///
    /// # Errors
    /// See `ManifestError`.
    pub fn read(timeline_dir: &Path) -> Result<Manifest, ManifestError> {
        let path = timeline_dir.join(FILE_NAME);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ManifestError::Io { path: path.clone(), source })?;
        // The version first: fields of a newer format need not make sense to us.
        if let Ok(FormatVersion { format_version: found }) = toml::from_str(&text)
            && found > FORMAT_VERSION
        {
            return Err(ManifestError::NewerFormat { path, found });
        }
        let manifest = Manifest::parse(&text)
            .map_err(|what| ManifestError::Corrupt { path: path.clone(), what })?;
        let folder = timeline_dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match folder.parse::<TimelineId>() {
            Ok(id) if id != manifest.id => {
                let what = format!("it is that of timeline {}", manifest.id);
                Err(ManifestError::Corrupt { path, what })
            }
            _ => Ok(manifest),
        }
    }

    fn parse(text: &str) -> Result<Manifest, String> {
        let text: Text = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if text.checksum() != text.crc32c {
            return Err("its checksum does not fit its content".into());
        }
        let lsn = |text: &str| text.parse::<Lsn>().map_err(|error| error.to_string());
        let id = |text: &str| text.parse::<TimelineId>().map_err(|error| error.to_string());
        let checkpoint = hex::decode(&text.checkpoint).map_err(|error| error.to_string())?;
        let checkpoint = CheckPoint::decode(&checkpoint).map_err(|error| error.to_string())?;
        let origin = match (&text.ancestor, &text.ancestor_lsn, text.image_layer) {
            (Some(ancestor), Some(at), None) => {
                Origin::Ancestor(Ancestor { timeline: id(ancestor)?, lsn: lsn(at)? })
            }
            (None, None, Some(name)) if !name.contains('/') => Origin::ImageLayer(name),
            _ => return Err("it names neither an ancestor nor an image layer, or both".into()),
        };
        let parameters = match &text.parameters {
            Some(parameters) => {
                let record = hex::decode(parameters).map_err(|error| error.to_string())?;
                Some(ServerParameters::decode_record(&record).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        Ok(Manifest {
            id: id(&text.id)?,
            origin,
            start: lsn(&text.start_lsn)?,
            state: CheckpointState {
                checkpoint,
                parameters: parameters.unwrap_or_default(),
                prev_record: lsn(&text.prev_record)?,
            },
            state_is_complete: parameters.is_some(),
            created: text.created,
        })
    }

    /// Writes the manifest in a timeline's folder, durably and at once.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, timeline_dir: &Path) -> Result<(), ManifestError> {
        let path = timeline_dir.join(FILE_NAME);
        durable_files::write_file(&path, self.text().as_bytes())
            .map_err(|source| ManifestError::Io { path, source })
    }

    fn text(&self) -> String {
        let (ancestor, image_layer) = match &self.origin {
            Origin::Ancestor(ancestor) => (Some(ancestor), None),
            Origin::ImageLayer(name) => (None, Some(name.clone())),
        };
        let mut text = Text {
            format_version: FORMAT_VERSION,
            id: self.id.to_string(),
            ancestor: ancestor.map(|a| a.timeline.to_string()),
            ancestor_lsn: ancestor.map(|a| a.lsn.to_string()),
            image_layer,
            start_lsn: self.start.to_string(),
            prev_record: self.state.prev_record.to_string(),
            checkpoint: hex::encode(self.state.checkpoint.encode()),
            parameters: Some(hex::encode(self.state.parameters.encode_record())),
            created: self.created,
            crc32c: 0,
        };
        text.crc32c = text.checksum();
        toml::to_string(&text).expect("plain fields always have a text")
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
        let manifest = Manifest::parse(&format_1()).unwrap();
        assert!(!manifest.state_is_complete);
        assert_eq!(manifest.state.checkpoint.next_oid, postgres_formats::Oid(24576));
        assert_eq!(manifest.start, Lsn::new(0x16B3748));
    }

    #[test]
    fn parameters_are_kept_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::parse(&format_1()).unwrap();
        manifest.state.parameters.max_connections = 77;
        manifest.state.parameters.track_commit_timestamp = true;
        manifest.state_is_complete = true;
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);

        let path = dir.path().join(FILE_NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("parameters = \"4d", "parameters = \"4e")).unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(ManifestError::Corrupt { .. })));
    }
}
