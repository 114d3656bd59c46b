//! Tags: names for points in history, kept by the page server.

use std::time::SystemTime;

use pageserver_client::{At, BranchName, Point};
use postgres_formats::{Lsn, TimelineId};

use crate::branch::{DATA_CORRUPTED, DUPLICATE_OBJECT, UNDEFINED_OBJECT, check_name, no_branch};
use crate::control::{Row, quote};
use crate::error::{Error, Result, Thing};
use crate::repository::Repository;

/// A name for a point in history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag {
    /// Its name.
    pub name: BranchName,
    /// The branch whose history it is a point of; `None` while that cannot be read.
    pub branch: Option<BranchName>,
    /// That branch's line of history.
    pub timeline: TimelineId,
    /// Where.
    pub lsn: Lsn,
    /// When it was made, as the page server writes times.
    pub created: String,
}

/// A tag that cannot be used because its file is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedTag {
    /// Its name.
    pub name: BranchName,
    /// What is wrong with the file.
    pub cause: String,
}

/// All tags at one moment, each kind sorted by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tags {
    /// Those that can be used.
    pub usable: Vec<Tag>,
    /// Those that cannot be used because their files are damaged.
    pub damaged: Vec<DamagedTag>,
}

impl Tag {
    fn of(row: &Row) -> Result<Tag> {
        Ok(Tag {
            name: row.value("name")?,
            branch: row.optional_value("branch")?,
            timeline: row.value("timeline")?,
            lsn: row.value("lsn")?,
            created: row.value("created")?,
        })
    }
}

impl Repository {
    /// All tags that can be used, sorted by name.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        Ok(self.all_tags()?.usable)
    }

    /// All tags, also those that cannot be used because their files are damaged.
    pub fn all_tags(&self) -> Result<Tags> {
        let mut tags = Tags::default();
        for row in self.control()?.rows("tag_list")? {
            match row.optional("lsn") {
                Some(_) => tags.usable.push(Tag::of(&row)?),
                None => tags
                    .damaged
                    .push(DamagedTag { name: row.value("name")?, cause: row.value("cause")? }),
            }
        }
        tags.usable.sort_by(|a, b| a.name.cmp(&b.name));
        tags.damaged.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tags)
    }

    /// The tag with this name.
    pub fn tag(&self, name: &str) -> Result<Tag> {
        self.find_tag(name)?.ok_or_else(|| no_tag(name))
    }

    /// The same; `None` if there is no such tag.
    pub(crate) fn find_tag(&self, name: &str) -> Result<Option<Tag>> {
        let Tags { usable, damaged } = self.all_tags()?;
        if let Some(damaged) = damaged.iter().find(|tag| *tag.name == *name) {
            return Err(Error::PageServer {
                sqlstate: DATA_CORRUPTED.to_owned(),
                message: format!("tag {name:?} cannot be used: {}", damaged.cause),
            });
        }
        Ok(usable.into_iter().find(|tag| *tag.name == *name))
    }

    /// Gives `point` a name; without one, the end of the default branch. What is there of it stays
    /// for as long as the tag does.
    pub fn create_tag(&self, name: &str, point: Option<&Point>) -> Result<Tag> {
        check_name(name)?;
        let mut point = match point {
            Some(point) => point.clone(),
            None => Point::end_of(check_name(&self.config().default_branch)?),
        };
        // Counted from now, not from when the page server has caught up.
        point.at = point.at.seen_at(SystemTime::now().into());
        let (branch, point) = self.locate(&point)?;
        if !matches!(point.at, At::Lsn(_)) {
            self.catch_up(branch.timeline)?;
        }
        let command = format!("tag_create {} {}", quote(name), quote(&point.to_string()));
        let row = self.control()?.row(&command).map_err(|error| match &error {
            Error::PageServer { sqlstate, .. } if sqlstate == UNDEFINED_OBJECT => {
                no_branch(&branch.name)
            }
            Error::PageServer { sqlstate, .. } if sqlstate == DUPLICATE_OBJECT => self.taken(name),
            _ => error,
        })?;
        Tag::of(&row)
    }

    /// Removes a tag, also one whose file is damaged.
    pub fn delete_tag(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let command = format!("tag_delete {}", quote(name));
        self.control()?.rows(&command).map(drop).map_err(|error| match &error {
            Error::PageServer { sqlstate, .. } if sqlstate == UNDEFINED_OBJECT => no_tag(name),
            _ => error,
        })
    }

    /// That a name cannot be given because a branch or a tag has it.
    pub(crate) fn taken(&self, name: &str) -> Error {
        let (thing, hint) = match self.find_tag(name) {
            Ok(Some(_)) => (Thing::Tag, "branches and tags share their names, choose another one"),
            _ => (Thing::Branch, "choose another name"),
        };
        Error::AlreadyExists { thing, name: name.to_owned(), hint: hint.to_owned() }
    }
}

fn no_tag(name: &str) -> Error {
    Error::NotFound {
        thing: Thing::Tag,
        name: name.to_owned(),
        hint: format!("make it with `zenith tag {name}`, or see what there is: `zenith tag`"),
    }
}
