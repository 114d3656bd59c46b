//! What a client is told when its command fails: a code for programs, a line for people, and where
//! it is not obvious what to do about it.

use std::io;

use durable_files::FactError;
use layers::BuildError;
use pageserver_client::{BranchNameError, ParsePointError};
use postgres_wire::SqlState;
use postgres_wire::server::QueryError;

use super::command::{COMMANDS, ParseError};
use crate::basebackup::BaseBackupError;
use crate::error_text::with_causes;
use crate::layer::delta::WriteError;
use crate::repository::RepositoryError;
use crate::seqwait::WaitError;
use crate::timeline::error::TimelineError;
use crate::timeline::manifest::ManifestError;
use crate::timeline::{FreezeError, GetPageError, IngestError};
use crate::wal::followers::FollowError;

/// `dependent_objects_still_exist`
const DEPENDENT_OBJECTS: SqlState = code("2BP01");

/// A compute whose role of writer has gone to another one. A code of our own: PostgreSQL leaves those
/// that begin with Z to others.
pub(super) const FENCED: SqlState = code("ZF001");

const fn code(text: &str) -> SqlState {
    match SqlState::from_code(text) {
        Some(state) => state,
        None => SqlState::INTERNAL_ERROR,
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is no command.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The text for a new branch's name cannot be one.
    #[error(transparent)]
    BranchName(#[from] BranchNameError),
    /// The text for a point is none.
    #[error(transparent)]
    Point(#[from] ParsePointError),
    /// The repository refused.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A timeline cannot be used.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    /// Layers cannot be written.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// The followers' registry refused.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A server's WAL is received on the branch.
    #[error("branch \"{branch}\" is in use: the WAL of {server} is received on it")]
    Followed {
        /// The branch.
        branch: String,
        /// Who writes to it.
        server: String,
    },
    /// There is no base backup.
    #[error(transparent)]
    BaseBackup(#[from] BaseBackupError),
    /// The connection is gone; nobody can be told.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl CommandError {
    /// What the client is told.
    pub fn into_query_error(self) -> QueryError {
        let error = match self {
            CommandError::Query(error) => return error,
            other => other,
        };
        let report = QueryError::new(error.sqlstate(), with_causes(&error));
        match error.hint() {
            Some(hint) => report.with_hint(hint),
            None => report,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            CommandError::Parse(
                ParseError::Lsn(_)
                | ParseError::Timestamp(_)
                | ParseError::Writer(_)
                | ParseError::Retention(_)
                | ParseError::Name(_),
            )
            | CommandError::BranchName(_)
            | CommandError::Point(_) => SqlState::INVALID_TEXT_REPRESENTATION,
            CommandError::Parse(_) => SqlState::SYNTAX_ERROR,
            CommandError::Repository(error) => of_repository(error),
            CommandError::Timeline(error) => of_timeline(error),
            CommandError::Freeze(error) => of_freeze(error),
            CommandError::Follow(error) => of_follow(error),
            CommandError::Followed { .. } => SqlState::OBJECT_IN_USE,
            CommandError::BaseBackup(error) => of_base_backup(error),
            CommandError::Query(_) => SqlState::INTERNAL_ERROR,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CommandError::Parse(ParseError::Unknown(_) | ParseError::Empty) => {
                let verbs: Vec<_> = COMMANDS.iter().map(|spec| spec.verb()).collect();
                Some(format!("Commands are {}.", verbs.join(", ")))
            }
            CommandError::Repository(RepositoryError::NoSuchBranch { .. }) => {
                Some("branch_list lists the branches.".to_owned())
            }
            CommandError::Followed { .. } => {
                Some("Stop the compute and remove it first, or use forgetmemaybe.".to_owned())
            }
            _ => None,
        }
    }

    /// Whether somebody should look into it, rather than only the client.
    pub fn is_our_fault(&self) -> bool {
        // A client that goes away in the middle is its own affair.
        if matches!(self, CommandError::Query(_)) {
            return false;
        }
        let state = self.sqlstate();
        let code = state.code();
        code.starts_with("XX") || code.starts_with("58") || state == SqlState::DISK_FULL
    }
}

fn of_repository(error: &RepositoryError) -> SqlState {
    match error {
        RepositoryError::NoSuchBranch { .. }
        | RepositoryError::NoSuchTag { .. }
        | RepositoryError::NoSuchLease(_)
        | RepositoryError::NoSuchTimeline(_) => SqlState::UNDEFINED_OBJECT,
        RepositoryError::AlreadyExists(_) | RepositoryError::TagExists(_) => {
            SqlState::DUPLICATE_OBJECT
        }
        RepositoryError::TagIsAPoint(_) => SqlState::INVALID_PARAMETER_VALUE,
        RepositoryError::HasChildren { .. }
        | RepositoryError::HasTags { .. }
        | RepositoryError::MayHold { .. }
        | RepositoryError::MayBeNeeded { .. }
        | RepositoryError::CannotDetach { .. }
        | RepositoryError::StillRead { .. } => DEPENDENT_OBJECTS,
        RepositoryError::Fact(error) => of_fact(error),
        RepositoryError::IsDefault(_)
        | RepositoryError::Protected(_)
        | RepositoryError::ComputesUnknown => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        RepositoryError::Wait(error) => of_wait(error),
        RepositoryError::Timeline(error) => of_timeline(error),
        RepositoryError::Layers(error) => of_freeze(error),
        RepositoryError::Io { source, .. } => of_io(source),
        RepositoryError::Manifest(_)
        | RepositoryError::UnusableTag { .. }
        | RepositoryError::Unreadable { .. } => SqlState::DATA_CORRUPTED,
        RepositoryError::Import(_) => SqlState::INTERNAL_ERROR,
    }
}

fn of_timeline(error: &TimelineError) -> SqlState {
    match error {
        TimelineError::BeforeBeginning { .. } | TimelineError::TimeBeforeBeginning { .. } => {
            SqlState::INVALID_PARAMETER_VALUE
        }
        TimelineError::Io { source, .. } => of_io(source),
        TimelineError::Ingest(error) => of_ingest(error),
        TimelineError::Manifest(_)
        | TimelineError::Layer(_)
        | TimelineError::ControlFile { .. }
        | TimelineError::AncestorMissing(_)
        | TimelineError::DamagedWal { .. }
        | TimelineError::DamagedRecord { .. }
        | TimelineError::DamagedContent { .. }
        | TimelineError::Stopped(_)
        | TimelineError::MissingWal { .. }
        | TimelineError::AncestorRemoved { .. } => SqlState::DATA_CORRUPTED,
    }
}

fn of_freeze(error: &FreezeError) -> SqlState {
    match error {
        FreezeError::Io { source, .. }
        | FreezeError::Manifest(ManifestError::Io { source, .. }) => of_io(source),
        FreezeError::Write { source: WriteError::Build(BuildError::Io { source, .. }), .. } => {
            of_io(source)
        }
        FreezeError::Write { source: WriteError::Wal(error), .. } => of_timeline(error),
        FreezeError::Timeline(error) => of_timeline(error),
        FreezeError::Page(error) => of_page(error),
        FreezeError::ShutDown => SqlState::ADMIN_SHUTDOWN,
        FreezeError::GaveWay => SqlState::OBJECT_IN_USE,
        FreezeError::Write { .. } | FreezeError::Layer(_) | FreezeError::Manifest(_) => {
            SqlState::DATA_CORRUPTED
        }
    }
}

fn of_ingest(error: &IngestError) -> SqlState {
    match error {
        IngestError::Io { source, .. } => of_io(source),
        IngestError::SyncFailed(_) => SqlState::IO_ERROR,
        _ => SqlState::DATA_CORRUPTED,
    }
}

fn of_wait(error: &WaitError) -> SqlState {
    match error {
        WaitError::Timeout { .. } => SqlState::QUERY_CANCELED,
        WaitError::Stopped { .. } => SqlState::DATA_CORRUPTED,
        WaitError::ShuttingDown { .. } => SqlState::ADMIN_SHUTDOWN,
    }
}

fn of_follow(error: &FollowError) -> SqlState {
    match error {
        FollowError::Params(_) => SqlState::INVALID_PARAMETER_VALUE,
        FollowError::ShuttingDown => SqlState::ADMIN_SHUTDOWN,
        FollowError::Io { source, .. } | FollowError::Thread(source) => of_io(source),
        FollowError::Fact(error) => of_fact(error),
        FollowError::Fenced(_) => FENCED,
        FollowError::Unnamed(_) | FollowError::Unknown(_) | FollowError::Taken { .. } => {
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        }
        FollowError::Alive(_) => SqlState::OBJECT_IN_USE,
        FollowError::Ingest(error) => of_ingest(error),
    }
}

fn of_fact(error: &FactError) -> SqlState {
    match error {
        FactError::NewerFormat { .. } => SqlState::IO_ERROR,
        FactError::Io { source, .. } => of_io(source),
        FactError::Corrupt { .. } => SqlState::DATA_CORRUPTED,
    }
}

fn of_base_backup(error: &BaseBackupError) -> SqlState {
    match error {
        BaseBackupError::Wait(error) => of_wait(error),
        BaseBackupError::Timeline(error) => of_timeline(error),
        BaseBackupError::Page(error) => of_page(error),
        BaseBackupError::Write(error) => of_io(error),
    }
}

/// The code for a page that cannot be had.
pub fn of_page(error: &GetPageError) -> SqlState {
    match error {
        GetPageError::NotFound { .. } => SqlState::UNDEFINED_OBJECT,
        GetPageError::Wait(error) => of_wait(error),
        GetPageError::Timeline(error) => of_timeline(error),
        _ if error.is_corruption() => SqlState::DATA_CORRUPTED,
        _ => SqlState::INTERNAL_ERROR,
    }
}

fn of_io(error: &io::Error) -> SqlState {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SqlState::DISK_FULL,
        _ => SqlState::IO_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_hints() {
        let report = |error: CommandError| match error.into_query_error() {
            QueryError::Report(report) => report,
            other => panic!("{other}"),
        };
        let unknown = report(ParseError::Unknown("select".to_owned()).into());
        assert_eq!(unknown.sqlstate, SqlState::SYNTAX_ERROR);
        assert!(unknown.hint.is_some_and(|hint| hint.contains("branch_list")));
        assert_eq!(DEPENDENT_OBJECTS.code(), "2BP01");
    }
}
