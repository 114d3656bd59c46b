//! Failed input on disk: what was written to the process, message for message, so that it can be
//! given to one again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use postgres_formats::RelTag;

use crate::job::Job;
use crate::limits::{POISONED_FILE_BYTES_MAX, POISONED_FILES_MAX};
use crate::protocol::{ProtocolError, decode_redo};
use crate::request::RedoRequest;

/// A saved request cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// It holds no request.
    #[error("it holds no saved request: {0}")]
    Content(#[from] ProtocolError),
}

/// Reads a request that the pool saved when it failed. Submit it again to see it fail again.
pub fn load_poisoned(path: &Path) -> Result<RedoRequest, LoadError> {
    let bytes = Bytes::from(fs::read(path)?);
    Ok(decode_redo(&bytes)?.0)
}

/// Saves the job's request in `dir`. `None` if it is for no page, if there are enough files, or it is
/// too large, or saving failed: a report of the failure must not depend on it.
pub fn save_poisoned(dir: &Path, job: &Job) -> Option<PathBuf> {
    let rel = job.rel?;
    if job.messages.len() > POISONED_FILE_BYTES_MAX {
        return None;
    }
    save(dir, rel, job).ok().flatten()
}

fn save(dir: &Path, rel: RelTag, job: &Job) -> io::Result<Option<PathBuf>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if fs::read_dir(dir)?.count() >= POISONED_FILES_MAX {
        return Ok(None);
    }
    let path = dir.join(format!(
        "{}-{}-{}-{}-{}-{}-{}.redo",
        rel.spc,
        rel.db,
        rel.rel,
        rel.fork,
        job.block,
        std::process::id(),
        job.id
    ));
    File::create_new(&path)?.write_all(&job.messages.to_vec())?;
    Ok(Some(path))
}
