//! Making a layer's file: complete and durable before it has its name.

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use durable_files::File;
use layers::{Owner, ReadError};
use postgres_formats::TimelineId;

use super::image::LayerError;

const BUFFER_BYTES: usize = 1 << 20;
const UNFINISHED: &str = ".new";

/// What a layer is written to.
pub type LayerOut = BufWriter<File>;

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

/// What an error of the layer at `path` is to those who ask.
pub(super) fn layer_error(path: &Path, error: ReadError) -> LayerError {
    let path = path.to_owned();
    match error {
        ReadError::Io { source, .. } => LayerError::Io { path, source },
        ReadError::NewerFormat { found, .. } => LayerError::NewerFormat { path, found },
        other => LayerError::Corrupt { path, what: other.to_string() },
    }
}
