//! `follow.toml` in a timeline's folder: which server's WAL the timeline follows, so that the page
//! server goes on by itself after a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "follow.toml";
const FORMAT_VERSION: u32 = 1;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowFile {
    /// How to connect to the server. May hold a password.
    pub connstr: String,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format_version: u32,
    connstr: String,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FollowFileError {
    /// It cannot be read or written.
    #[error("cannot access {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It says nothing that makes sense.
    #[error("{} is damaged: {problem}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// It was written by a newer Zenith.
    #[error(
        "{} has format_version {found}, this program knows up to {FORMAT_VERSION}",
        .path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl FollowFile {
    /// Reads the file in a timeline's folder; `None` if the timeline follows nobody.
    pub fn read(timeline_dir: &Path) -> Result<Option<FollowFile>, FollowFileError> {
        let path = timeline_dir.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FollowFileError::Io { path, source }),
        };
        let corrupt = |e: toml::de::Error| FollowFileError::Corrupt {
            path: path.clone(),
            problem: e.message().to_owned(),
        };
        let found = toml::from_str::<VersionOnly>(&text).map_err(corrupt)?.format_version;
        if found > FORMAT_VERSION {
            return Err(FollowFileError::NewerFormat { path, found });
        }
        let Text { connstr, .. } = toml::from_str(&text).map_err(corrupt)?;
        Ok(Some(FollowFile { connstr }))
    }

    /// Writes the file in a timeline's folder, durably.
    pub fn write(&self, timeline_dir: &Path) -> Result<(), FollowFileError> {
        let path = timeline_dir.join(FILE_NAME);
        let text = Text { format_version: FORMAT_VERSION, connstr: self.connstr.clone() };
        let text = toml::to_string(&text)
            .map_err(|e| FollowFileError::Corrupt { path: path.clone(), problem: e.to_string() })?;
        durable_files::write_file(&path, text.as_bytes())
            .map_err(|source| FollowFileError::Io { path, source })
    }

    /// Removes the file from a timeline's folder, durably. None there is no error.
    pub fn remove(timeline_dir: &Path) -> Result<(), FollowFileError> {
        let path = timeline_dir.join(FILE_NAME);
        durable_files::remove_file(&path).map_err(|source| FollowFileError::Io { path, source })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FollowFile::read(dir.path()).unwrap(), None);
        let file = FollowFile { connstr: "host='/a b' password='\"x\\'".to_owned() };
        file.write(dir.path()).unwrap();
        assert_eq!(FollowFile::read(dir.path()).unwrap(), Some(file));
        FollowFile::remove(dir.path()).unwrap();
        FollowFile::remove(dir.path()).unwrap();
        assert_eq!(FollowFile::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, "format_version = 2\nhosts = []").unwrap();
        let error = FollowFile::read(dir.path()).unwrap_err();
        assert!(matches!(error, FollowFileError::NewerFormat { found: 2, .. }), "{error}");
        for text in ["", "format_version = 1", "format_version = 1\nconnstr = 2", "\u{0}"] {
            fs::write(&path, text).unwrap();
            let error = FollowFile::read(dir.path()).unwrap_err();
            assert!(matches!(error, FollowFileError::Corrupt { .. }), "{error}");
        }
    }
}
