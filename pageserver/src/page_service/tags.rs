//! The rows of tags.

use pageserver_client::BranchName;

use super::rows::{DAMAGED, unix_seconds};
use super::table::{Rows, text};
use crate::repository::{Repository, RepositoryError, Tag, UnusableTag};

type Row = Vec<Option<String>>;

/// All tags; those whose files are damaged with the state `damaged` and the cause.
pub(super) fn list(repository: &Repository) -> Result<Rows, RepositoryError> {
    let (usable, unusable) = repository.tags()?;
    let mut rows = usable.iter().map(|tag| row(repository, tag)).collect::<Result<Rows, _>>()?;
    rows.extend(unusable.iter().map(unusable_row));
    Ok(rows)
}

/// The row of the tag of that name; of one that is damaged, or not there, with nothing but the name.
pub(super) fn row_of(repository: &Repository, name: &BranchName) -> Result<Row, RepositoryError> {
    match repository.find_tag(name) {
        Ok(Some(tag)) => row(repository, &tag),
        Ok(None) => Ok(vec![text(name), None, None, None, None, None, None]),
        Err(RepositoryError::UnusableTag { name, cause }) => {
            Ok(unusable_row(&UnusableTag { name, cause }))
        }
        Err(error) => Err(error),
    }
}

/// The row of a tag.
pub(super) fn row(repository: &Repository, tag: &Tag) -> Result<Row, RepositoryError> {
    // Its branch may not have been asked for yet.
    repository.know_all()?;
    let branch = repository.branch_of(tag.timeline).map(|branch| branch.name);
    Ok(vec![
        text(&tag.name),
        branch.and_then(text),
        text(tag.timeline),
        text(tag.lsn),
        text(unix_seconds(tag.created)),
        None,
        None,
    ])
}

fn unusable_row(tag: &UnusableTag) -> Row {
    vec![text(&tag.name), None, None, None, None, text(DAMAGED), text(&tag.cause)]
}
