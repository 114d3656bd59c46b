//! What all layers' files have in common: they are complete and durable before they have their names, are
//! opened with the same checks, and their keys are read alike.

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use durable_files::File;
use layers::{LayerKind, Owner, ReadError, Reader};
use postgres_formats::TimelineId;

use super::delta::keys::LayerKey;
use super::image::LayerError;
use super::source::{LayerFiles, LayerSource};

const BUFFER_BYTES: usize = 1 << 20;
const UNFINISHED: &str = ".new";

/// What a layer is written to.
pub type LayerOut = BufWriter<File>;

/// What reads a layer.
pub(super) type LayerReader = Reader<LayerSource>;

/// Whose a layer is, as it says itself.
pub(super) fn owner(timeline: TimelineId) -> Owner {
    Owner(*timeline.as_bytes())
}

/// Makes the file at `path` of what `write` writes; after an error there is none. `io` says what an
/// error of the file system is to the caller.
///
/// # Errors
/// Those of `write`, and those that `io` makes.
pub fn make_file<T, E>(
    path: &Path,
    io: impl Fn(io::Error) -> E,
    write: impl FnOnce(LayerOut) -> Result<(T, LayerOut), E>,
) -> Result<T, E> {
    let mut beside: OsString = path.to_owned().into();
    beside.push(UNFINISHED);
    let beside = PathBuf::from(beside);
    let made = (|| {
        let out = BufWriter::with_capacity(BUFFER_BYTES, File::create(&beside).map_err(&io)?);
        let (made, out) = write(out)?;
        let file = out.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(&io)?;
        durable_files::rename(&beside, path).map_err(&io)?;
        Ok(made)
    })();
    if made.is_err() {
        // The first error is the one to report; what is left goes when the timeline is opened.
        let _ = durable_files::unlink(&beside);
    }
    made
}

/// Opens the file at `path`, which must be a layer of that kind and of `timeline`.
///
/// # Errors
/// See `LayerError`.
pub(super) fn open_reader(
    path: &Path,
    timeline: TimelineId,
    kind: LayerKind,
    files: &LayerFiles,
) -> Result<LayerReader, LayerError> {
    let reader = Reader::open(files.source(path), owner(timeline), &files.cache)
        .map_err(|error| layer_error(path, error))?;
    if reader.kind() != kind {
        let name = match kind {
            LayerKind::Delta => "delta",
            LayerKind::Image => "image",
        };
        return Err(LayerError::Corrupt {
            path: path.to_owned(),
            what: format!("it is no {name}"),
        });
    }
    Ok(reader)
}

/// The key with these bytes in the layer at `path`.
///
/// # Errors
/// `Corrupt` if there is no such key.
pub(super) fn key_of(path: &Path, bytes: &[u8]) -> Result<LayerKey, LayerError> {
    LayerKey::decode(bytes).ok_or_else(|| LayerError::Corrupt {
        path: path.to_owned(),
        what: "an entry of an unknown kind".into(),
    })
}

/// What an error of the layer at `path` is to those who ask.
pub(super) fn layer_error(path: &Path, error: ReadError) -> LayerError {
    let path = path.to_owned();
    match error {
        ReadError::Io { source, .. } => LayerError::Io { path, source },
        ReadError::NewerFormat { found, .. } => LayerError::NewerFormat { path, found },
        other => LayerError::Corrupt { path, what: other.to_string() },
    }
}
