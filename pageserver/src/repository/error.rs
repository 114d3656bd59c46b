//! Why something could not be done with a repository.

use std::io;
use std::path::PathBuf;

use durable_files::FactError;
use pageserver_client::{BranchName, InstanceId};
use postgres_formats::{Lsn, TimelineId};

use crate::layer::import::ImportError;
use crate::seqwait::WaitError;
use crate::timeline::FreezeError;
use crate::timeline::error::TimelineError;
use crate::timeline::manifest::ManifestError;

/// Why something could not be done with a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is no such branch.
    #[error("there is no branch \"{name}\"{}", known_text(known))]
    NoSuchBranch {
        /// What was asked for.
        name: BranchName,
        /// Those that there are.
        known: Vec<BranchName>,
    },
    /// There is no such timeline.
    #[error("there is no timeline {0}")]
    NoSuchTimeline(TimelineId),
    /// The name is taken.
    #[error("a branch \"{0}\" exists already: choose another name, or delete or rename that one")]
    AlreadyExists(BranchName),
    /// There is no such tag.
    #[error("there is no tag \"{name}\"{}", known_text(known))]
    NoSuchTag {
        /// What was asked for.
        name: BranchName,
        /// Those that there are.
        known: Vec<BranchName>,
    },
    /// The name is taken.
    #[error(
        "a tag \"{0}\" exists already, and branches and tags share their names: choose another \
         name, or delete that one"
    )]
    TagExists(BranchName),
    /// Its file is damaged.
    #[error("tag \"{name}\" cannot be used: {cause}")]
    UnusableTag {
        /// The tag.
        name: BranchName,
        /// Which file, and what is wrong with it.
        cause: String,
    },
    /// A place on a tag is none.
    #[error("\"{0}\" is a tag, which is a point by itself: leave out the @ and what follows")]
    TagIsAPoint(BranchName),
    /// Tags are places on it.
    #[error(
        "branch \"{name}\" cannot be deleted: it has what is tagged as {}; delete the tags first",
        names(tags)
    )]
    HasTags {
        /// The branch.
        name: BranchName,
        /// The tags.
        tags: Vec<BranchName>,
    },
    /// Other branches stand on it.
    #[error(
        "branch \"{name}\" cannot be deleted: it is what {} were made from; delete those first, or let \
         them keep its history: `zenith branch -d {name} --reparent`",
        names(children)
    )]
    HasChildren {
        /// The branch.
        name: BranchName,
        /// Those that stand on it.
        children: Vec<BranchName>,
    },
    /// Its files are damaged.
    #[error("branch \"{name}\" cannot be used: {cause}")]
    Unreadable {
        /// The branch.
        name: BranchName,
        /// Which file, and what is wrong with it.
        cause: String,
    },
    /// What stands on it cannot be told.
    #[error("branch \"{name}\" cannot be deleted: {by} may need it and cannot be read: {cause}")]
    MayBeNeeded {
        /// The branch.
        name: BranchName,
        /// What cannot be read.
        by: String,
        /// Why.
        cause: String,
    },
    /// What is before its beginning is needed by its name.
    #[error("branch \"{name}\" cannot be detached: {why}")]
    CannotDetach {
        /// The branch.
        name: BranchName,
        /// By what.
        why: String,
    },
    /// What is before its beginning is being read, by somebody who will have done with it.
    #[error(
        "branch \"{name}\" is not detached yet: \"{reader}\" reads what is before {start}, where it was made; \
         it is done in the background when that ends"
    )]
    StillRead {
        /// The branch.
        name: BranchName,
        /// Who reads.
        reader: BranchName,
        /// Where the branch begins.
        start: Lsn,
    },
    /// What is needed cannot be told.
    #[error("nothing can be removed: {by} may need it and cannot be read: {cause}")]
    MayHold {
        /// What cannot be read.
        by: String,
        /// Why.
        cause: String,
    },
    /// Computes may have been made before there were leases.
    #[error(
        "nothing can be removed yet: the page server does not know what the computes need that an \
         earlier release has made; `zenith start` tells it"
    )]
    ComputesUnknown,
    /// There is no such lease, or it is over.
    #[error("there is no lease of {0}, or it is over")]
    NoSuchLease(InstanceId),
    /// It is protected.
    #[error(
        "branch \"{0}\" is protected and cannot be deleted; unprotect it first: `zenith branch \
         --unprotect {0}`"
    )]
    Protected(BranchName),
    /// Layers cannot be removed.
    #[error(transparent)]
    Layers(#[from] FreezeError),
    /// The default branch stays.
    #[error("branch \"{0}\" is the default branch: it can be neither deleted nor renamed")]
    IsDefault(BranchName),
    /// The point was not reached in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A timeline cannot be used.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The data directory cannot be loaded.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A small file cannot be read, written or removed.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// The operating system's answer.
    #[error("{path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn names(names: &[BranchName]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    quoted.join(", ")
}

/// How many branches an error message lists.
const NAMES_LISTED_MAX: usize = 10;

fn known_text(known: &[BranchName]) -> String {
    match known {
        [] => String::new(),
        few if few.len() <= NAMES_LISTED_MAX => format!(": there are {}", names(few)),
        many => format!(" among the {} that there are", many.len()),
    }
}
