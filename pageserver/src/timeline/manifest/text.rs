//! How a manifest is written: the fields of its file, and back. FORMAT.md tells what each means.

use durable_files::Fact;
use postgres_formats::checkpoint::{CheckPoint, CheckpointState};
use postgres_formats::id::ParseTimelineIdError;
use postgres_formats::lsn::ParseLsnError;
use postgres_formats::{Lsn, ServerParameters, TimelineId};
use serde::{Deserialize, Serialize};

use super::{Ancestor, FORMAT_VERSION, Layered, Manifest, Needed, Origin, Retained};

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
pub(super) struct Text {
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

impl Text {
    /// The manifest that it says.
    pub(super) fn manifest(self) -> Result<Manifest, String> {
        let text = self;
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

    /// What says `manifest`.
    pub(super) fn of(manifest: &Manifest) -> Text {
        let (ancestor, image_layer) = match &manifest.origin {
            Origin::Ancestor(ancestor) => (Some(ancestor), None),
            Origin::ImageLayer(name) => (None, Some(name.clone())),
            Origin::OwnImage => (None, None),
        };
        // Also when nobody needed any of its layers: where they ended must not be forgotten.
        let is_layered = manifest.layered != Layered::nothing(manifest.start, manifest.state);
        Text {
            id: manifest.id.to_string(),
            ancestor: ancestor.map(|a| a.timeline.to_string()),
            ancestor_lsn: ancestor.map(|a| a.lsn.to_string()),
            image_layer,
            start_lsn: manifest.start.to_string(),
            created: manifest.created,
            detaching: manifest.detaching,
            state: StateText::of(&manifest.state),
            layered: is_layered.then(|| LayeredText {
                end_lsn: manifest.layered.end.to_string(),
                state: StateText::of(&manifest.layered.state),
                deltas: manifest.layered.deltas.clone(),
                images: manifest.layered.images.clone(),
                horizon: Some(&manifest.layered.retained.horizon)
                    .filter(|horizon| **horizon > Lsn::default())
                    .map(ToString::to_string),
                points: manifest.layered.retained.points.iter().map(ToString::to_string).collect(),
                ranges: manifest
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
