//! `BranchRef`: what the file `refs/branches/NAME` holds: the branch's timeline, and what else is
//! remembered of the branch.
//!
//! Before there was anything else, the file was the timeline's id and nothing more. Such a file is read
//! as well, so that one that was lost can be written by hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use durable_files::{Fact, FactError, read_fact, write_fact, write_new_fact};
use pageserver_client::BranchName;
use postgres_formats::TimelineId;
use postgres_formats::id::ParseTimelineIdError;
use serde::{Deserialize, Serialize};

use super::Retention;
use super::scan::branches_dir;

/// What a branch's file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BranchRef {
    /// What the branch names.
    pub(super) timeline: TimelineId,
    /// Whether it cannot be deleted.
    pub(super) protected: bool,
    /// When it may go by itself, in seconds since 1970.
    pub(super) expires: Option<u64>,
    /// How much of its history is kept, if not as much as that of all.
    pub(super) retention: Option<Retention>,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Text {
    timeline: String,
    #[serde(default)]
    protected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<RetentionText>,
}

/// Without either, all is kept.
#[derive(Serialize, Deserialize)]
struct RetentionText {
    #[serde(skip_serializing_if = "Option::is_none")]
    window_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<u64>,
}

impl Fact for Text {
    /// 1: the id alone. 3: retention.
    const FORMAT_VERSION: u32 = 3;
    const LAST_UNFRAMED: u32 = 1;
    const REMEDY: &'static str =
        "put it back from a copy, or write the timeline's id into it and nothing else";

    fn parse_unframed(_: &str) -> Result<Text, String> {
        Err("its first format has no version".to_owned())
    }
}

/// The timeline that the branch called `name` of the repository in `dir` names.
///
/// # Errors
/// See `FactError`; that there is no such file is one, too.
pub(crate) fn timeline_of(dir: &Path, name: &BranchName) -> Result<TimelineId, FactError> {
    let missing = || FactError::Io {
        path: BranchRef::path(dir, name),
        source: std::io::ErrorKind::NotFound.into(),
    };
    Ok(BranchRef::read(dir, name)?.ok_or_else(missing)?.timeline)
}

impl BranchRef {
    /// Of a new branch.
    pub(super) fn of(timeline: TimelineId) -> BranchRef {
        BranchRef { timeline, protected: false, expires: None, retention: None }
    }

    /// Reads the file of the branch `name` in the repository in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// See `FactError`.
    pub(super) fn read(dir: &Path, name: &BranchName) -> Result<Option<BranchRef>, FactError> {
        let path = BranchRef::path(dir, name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| FactError::Io { path: path.clone(), source })?,
        };
        if let Ok(timeline) = String::from_utf8_lossy(&bytes).trim().parse() {
            return Ok(Some(BranchRef::of(timeline)));
        }
        let Some(text) = read_fact::<Text>(&path)? else { return Ok(None) };
        let timeline = text.timeline.parse().map_err(|error: ParseTimelineIdError| {
            let problem = error.to_string();
            FactError::Corrupt { path, problem, remedy: Text::REMEDY }
        })?;
        let retention = text.retention.map(|RetentionText { window_bytes, window_seconds }| {
            Retention { window_bytes, window_seconds }
        });
        let Text { protected, expires, .. } = text;
        Ok(Some(BranchRef { timeline, protected, expires, retention }))
    }

    /// Writes the file, durably, in place of what was there.
    ///
    /// # Errors
    /// See `FactError`.
    pub(super) fn write(&self, dir: &Path, name: &BranchName) -> Result<(), FactError> {
        write_fact(&BranchRef::path(dir, name), &self.text())
    }

    /// Writes a file that is to get the name later. Its own name is not durable.
    ///
    /// # Errors
    /// See `FactError`.
    pub(super) fn write_new(&self, path: &Path) -> Result<(), FactError> {
        write_new_fact(path, &self.text())
    }

    fn text(&self) -> Text {
        Text {
            timeline: self.timeline.to_string(),
            protected: self.protected,
            expires: self.expires,
            retention: self.retention.map(|Retention { window_bytes, window_seconds }| {
                RetentionText { window_bytes, window_seconds }
            }),
        }
    }

    fn path(dir: &Path, name: &BranchName) -> PathBuf {
        branches_dir(dir).join(name.as_str())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_written_damage_is_noticed_and_the_first_format_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let name: BranchName = "dev".parse().unwrap();
        let path = BranchRef::path(dir.path(), &name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(BranchRef::read(dir.path(), &name).unwrap(), None);
        let timeline = TimelineId::from_bytes([0xAB; 16]);
        let window = |window_bytes, window_seconds| Retention { window_bytes, window_seconds };
        for (protected, expires, retention) in [
            (false, None, None),
            (true, Some(1_790_000_000), Some(window(None, None))),
            (true, None, Some(window(Some(1 << 40), Some(604_800)))),
        ] {
            let written = BranchRef { timeline, protected, expires, retention };
            written.write(dir.path(), &name).unwrap();
            assert_eq!(BranchRef::read(dir.path(), &name).unwrap(), Some(written));
        }
        let good = fs::read(&path).unwrap();
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(BranchRef::read(dir.path(), &name).is_err(), "byte {n}");
            fs::write(&path, &good[..n]).unwrap();
            assert!(BranchRef::read(dir.path(), &name).is_err(), "{n} bytes");
        }
        for first in [timeline.to_string(), format!("{timeline}\n")] {
            fs::write(&path, first).unwrap();
            let read = BranchRef::read(dir.path(), &name).unwrap();
            assert_eq!(read, Some(BranchRef::of(timeline)));
        }
    }
}
