//! Tags: names for places in history.
//!
//! A tag is a file `refs/tags/NAME` that holds a timeline's id and an LSN. Its timeline stays for as
//! long as the tag does: a branch that has tags cannot be deleted. Branches and tags share their
//! names, so that a name stands for one point and no other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use durable_files::{Fact, FactError, read_fact, remove_fact, write_fact};
use pageserver_client::{BranchName, Point};
use postgres_formats::id::ParseTimelineIdError;
use postgres_formats::lsn::ParseLsnError;
use postgres_formats::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use super::scan::{branches_dir, names_in, timeline_dir};
use super::{Branch, Repository, RepositoryError, now};
use crate::error_text::with_causes;
use crate::timeline::error::TimelineError;

/// A name for a place in history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag {
    /// The name.
    pub name: BranchName,
    /// The timeline of the branch that it was made on.
    pub timeline: TimelineId,
    /// Where on it, or on what it was forked from: a place where a record can begin.
    pub lsn: Lsn,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// A tag that cannot be used because its file is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnusableTag {
    /// The name.
    pub name: BranchName,
    /// Which file, and what is wrong with it.
    pub cause: String,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Text {
    timeline: String,
    lsn: String,
    created: u64,
}

impl Fact for Text {
    const FORMAT_VERSION: u32 = 1;
    const REMEDY: &'static str = "put it back from a copy, or delete the tag";
}

/// The folder of the tags of the repository in `dir`. Not there before there is one.
pub(super) fn tags_dir(dir: &Path) -> PathBuf {
    dir.join("refs/tags")
}

impl Tag {
    /// Reads the file of the tag `name` in the repository in `dir`.
    ///
    /// # Errors
    /// See `FactError`.
    pub(super) fn read(dir: &Path, name: &BranchName) -> Result<Option<Tag>, FactError> {
        let path = tags_dir(dir).join(name.as_str());
        let Some(text) = read_fact::<Text>(&path)? else { return Ok(None) };
        let tag = Tag::of_text(name, &text).map_err(|problem| FactError::Corrupt {
            path,
            problem,
            remedy: Text::REMEDY,
        })?;
        Ok(Some(tag))
    }

    fn of_text(name: &BranchName, text: &Text) -> Result<Tag, String> {
        Ok(Tag {
            name: name.clone(),
            timeline: text
                .timeline
                .parse()
                .map_err(|error: ParseTimelineIdError| error.to_string())?,
            lsn: text.lsn.parse().map_err(|error: ParseLsnError| error.to_string())?,
            created: text.created,
        })
    }

    fn write(&self, dir: &Path) -> Result<(), FactError> {
        let (refs, tags) = (dir.join("refs"), tags_dir(dir));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| FactError::Io { path, source }
        };
        let is_new = !tags.exists();
        if is_new {
            durable_files::create_dir_all(&tags).map_err(io(&tags))?;
        }
        // Also where it is there: whoever made it may have come no further.
        if let Err(source) = durable_files::sync_dir(&refs) {
            if is_new {
                let _ = durable_files::remove_dir_all(&tags);
            }
            return Err(io(&refs)(source));
        }
        let text = Text {
            timeline: self.timeline.to_string(),
            lsn: self.lsn.to_string(),
            created: self.created,
        };
        write_fact(&tags.join(self.name.as_str()), &text)
    }
}

impl Repository {
    /// The tag of that name, if there is one. A branch of the same name hides it.
    ///
    /// # Errors
    /// `UnusableTag`.
    pub fn find_tag(&self, name: &BranchName) -> Result<Option<Tag>, RepositoryError> {
        let branch = branches_dir(&self.dir).join(name.as_str());
        let unusable = |cause| RepositoryError::UnusableTag { name: name.clone(), cause };
        match Tag::read(&self.dir, name) {
            Ok(None) => Ok(None),
            _ if branch.exists() => Ok(None),
            Ok(Some(tag)) => match timeline_dir(&self.dir, tag.timeline).exists() {
                true => Ok(Some(tag)),
                false => {
                    let path = tags_dir(&self.dir).join(name.as_str());
                    let id = tag.timeline;
                    Err(unusable(format!(
                        "{} names timeline {id}, which is not there",
                        path.display()
                    )))
                }
            },
            Err(error) => Err(unusable(with_causes(&error))),
        }
    }

    /// All tags, by name, and those that cannot be used.
    ///
    /// # Errors
    /// `Io`, if the folder itself cannot be read.
    pub fn tags(&self) -> Result<(Vec<Tag>, Vec<UnusableTag>), RepositoryError> {
        let dir = tags_dir(&self.dir);
        if !dir.exists() {
            return Ok(Default::default());
        }
        let (mut usable, mut unusable) = (Vec::new(), Vec::new());
        for file in names_in(&dir)? {
            // A file in the making, left by a crash, is no tag.
            let Some(name) = file.to_str().and_then(|name| name.parse::<BranchName>().ok()) else {
                continue;
            };
            match self.find_tag(&name) {
                Ok(Some(tag)) => usable.push(tag),
                Ok(None) if dir.join(&file).exists() => {
                    let path = dir.join(&file);
                    let cause =
                        format!("{} has the name of a branch: give it another one", path.display());
                    unusable.push(UnusableTag { name, cause });
                }
                Ok(None) => {}
                Err(RepositoryError::UnusableTag { name, cause }) => {
                    unusable.push(UnusableTag { name, cause });
                }
                Err(error) => return Err(error),
            }
        }
        Ok((usable, unusable))
    }

    /// Gives a point a name of its own. Waits up to `timeout` for an LSN to be received; the end
    /// and a time are looked for in what is there.
    ///
    /// # Errors
    /// See `RepositoryError`; nothing has been changed then.
    pub fn create_tag(
        &self,
        name: &BranchName,
        point: &Point,
        timeout: Duration,
    ) -> Result<Tag, RepositoryError> {
        self.check_free_early(name)?;
        let place = self.place(point, timeout)?;
        let changing = self.changing.lock();
        // A file that was put back must not be overwritten.
        self.check_free(name, &changing)?;
        // It may have been deleted meanwhile.
        if !timeline_dir(&self.dir, place.named).exists() {
            return Err(RepositoryError::NoSuchTimeline(place.named));
        }
        // And the place may have been removed, or be about to be.
        place.owner.check_lsn(place.at.base)?;
        let (wanted, named) = (place.at.base, self.branch_of(place.named));
        if let Some(branch) = named.filter(|branch| branch.detaching && wanted < branch.start) {
            return Err(TimelineError::BeforeBeginning { wanted, oldest: branch.start }.into());
        }
        let tag =
            Tag { name: name.clone(), timeline: place.named, lsn: place.at.base, created: now() };
        if let Err(error) = tag.write(&self.dir) {
            // It may have its name already, if that is not sure to last.
            let _ = remove_fact(&tags_dir(&self.dir).join(name.as_str()));
            return Err(error.into());
        }
        slog::info!(self.log, "tag created"; "tag" => %name, "timeline" => %tag.timeline,
            "lsn" => %tag.lsn);
        Ok(tag)
    }

    /// Deletes a tag, also one that cannot be used.
    ///
    /// # Errors
    /// See `RepositoryError`.
    pub fn delete_tag(&self, name: &BranchName) -> Result<(), RepositoryError> {
        let _changing = self.changing.lock();
        let path = tags_dir(&self.dir).join(name.as_str());
        if !path.exists() {
            let known = self.tags()?.0.into_iter().map(|tag| tag.name).collect();
            return Err(RepositoryError::NoSuchTag { name: name.clone(), known });
        }
        let before = std::fs::read(&path);
        if let Err(error) = remove_fact(&path) {
            // A name that a crash may bring back is one.
            if let Ok(before) = before
                && !path.exists()
            {
                let _ = durable_files::write_file(&path, &before);
            }
            return Err(error.into());
        }
        slog::info!(self.log, "tag deleted"; "tag" => %name);
        Ok(())
    }

    /// Refuses if tags are places on a branch, or one may be that cannot be read.
    pub(super) fn check_no_tags_on(&self, branch: &Branch) -> Result<(), RepositoryError> {
        let (usable, unusable) = self.tags()?;
        let name = branch.name.clone();
        let on = usable.into_iter().filter(|tag| tag.timeline == branch.timeline);
        let tags: Vec<BranchName> = on.map(|tag| tag.name).collect();
        if !tags.is_empty() {
            return Err(RepositoryError::HasTags { name, tags });
        }
        match unusable.into_iter().next() {
            None => Ok(()),
            Some(tag) => {
                let by = format!("tag \"{}\"", tag.name);
                Err(RepositoryError::MayBeNeeded { name, by, cause: tag.cause })
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_comes_back_as_written_and_its_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let name: BranchName = "v1".parse().unwrap();
        assert_eq!(Tag::read(dir.path(), &name).unwrap(), None);
        let tag = Tag {
            name: name.clone(),
            timeline: TimelineId::from_bytes([7; 16]),
            lsn: Lsn::new(0x16B3748),
            created: 1_790_000_000,
        };
        tag.write(dir.path()).unwrap();
        assert_eq!(Tag::read(dir.path(), &name).unwrap(), Some(tag));
        let path = tags_dir(dir.path()).join("v1");
        let good = fs::read(&path).unwrap();
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(Tag::read(dir.path(), &name).is_err(), "byte {n}");
        }
    }
}
