//! `follow.toml` in a timeline's folder: which server's WAL the timeline follows, so that the page
//! server goes on by itself after a restart.

use std::path::Path;

use durable_files::{Fact, FactError, read_fact, remove_fact, write_fact};
use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "follow.toml";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowFile {
    /// How to connect to the server. May hold a password.
    pub connstr: String,
}

impl Fact for FollowFile {
    const FORMAT_VERSION: u32 = 2;
    const LAST_UNFRAMED: u32 = 1;
    const REMEDY: &'static str = "put back what it was, or start the branch's compute anew";

    fn parse_unframed(text: &str) -> Result<FollowFile, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }
}

impl FollowFile {
    /// Reads the file in a timeline's folder; `None` if the timeline follows nobody.
    pub fn read(timeline_dir: &Path) -> Result<Option<FollowFile>, FactError> {
        read_fact(&timeline_dir.join(FILE_NAME))
    }

    /// Writes the file in a timeline's folder, durably.
    pub fn write(&self, timeline_dir: &Path) -> Result<(), FactError> {
        write_fact(&timeline_dir.join(FILE_NAME), self)
    }

    /// Removes what was being written when the process ended. Before anything is written.
    pub fn remove_unfinished(timeline_dir: &Path) -> Result<(), FactError> {
        let path = timeline_dir.join(FILE_NAME);
        durable_files::remove_unfinished(&path).map_err(|source| FactError::Io { path, source })
    }

    /// Removes the file from a timeline's folder, durably. None there is no error.
    pub fn remove(timeline_dir: &Path) -> Result<(), FactError> {
        remove_fact(&timeline_dir.join(FILE_NAME))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use std::fs;

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
    fn the_first_format_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, "format_version = 1\nconnstr = \"host='/a b'\"\n").unwrap();
        let file = FollowFile::read(dir.path()).unwrap();
        assert_eq!(file, Some(FollowFile { connstr: "host='/a b'".to_owned() }));
        for text in ["", "format_version = 1", "format_version = 1\nconnstr = 2", "\u{0}"] {
            fs::write(&path, text).unwrap();
            let error = FollowFile::read(dir.path()).unwrap_err();
            assert!(matches!(error, FactError::Corrupt { .. }), "{error}");
        }
    }

    #[test]
    fn another_address_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        FollowFile { connstr: "port=5432".to_owned() }.write(dir.path()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("5432", "5433")).unwrap();
        let message = FollowFile::read(dir.path()).unwrap_err().to_string();
        assert!(message.contains("follow.toml is damaged: its checksum"), "{message}");
    }
}
