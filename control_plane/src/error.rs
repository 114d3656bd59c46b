//! The one error of this crate, split by what the caller must do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A kind of thing that has a name in a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thing {
    /// A repository, named by its path.
    Repository,
    /// A branch.
    Branch,
    /// A tag.
    Tag,
    /// A compute.
    Compute,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Thing::Repository => "repository",
            Thing::Branch => "branch",
            Thing::Tag => "tag",
            Thing::Compute => "compute",
        })
    }
}

/// Why an operation was not done. Every message is one line, says what is wrong and, where it is
/// known, what to do. Unless a variant says otherwise nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument makes no sense whatever the state of the repository: say something else.
    #[error("{0}")]
    InvalidArgument(String),

    /// No such thing: name another, or make it as the hint says.
    #[error("there is no {thing} {name:?}{}", hint_suffix(hint))]
    NotFound {
        /// What kind of thing.
        thing: Thing,
        /// The name asked for.
        name: String,
        /// What to do instead; may be empty.
        hint: String,
    },

    /// The name is taken: choose another one, or use what is there.
    #[error("{thing} {name:?} exists already{}", hint_suffix(hint))]
    AlreadyExists {
        /// What kind of thing.
        thing: Thing,
        /// The name that is taken.
        name: String,
        /// What to do instead; may be empty.
        hint: String,
    },

    /// The present state forbids it: change the state as the message says, then try again.
    #[error("{0}")]
    Conflict(String),

    /// This machine or account lacks something: install or permit it.
    #[error("{0}")]
    Environment(String),

    /// The page server is not running: start it.
    #[error("the page server of {} is not running; start it with `zenith start`", repository.display())]
    PageServerNotRunning {
        /// The repository's directory.
        repository: PathBuf,
    },

    /// The connection to the page server or a compute failed: look whether it runs, try again.
    #[error("cannot talk to the {what}: {detail}")]
    Connection {
        /// Which server.
        what: String,
        /// What went wrong, in one line.
        detail: String,
    },

    /// The page server refused a command or failed to do it.
    #[error("{message}")]
    PageServer {
        /// SQLSTATE of the error, five characters.
        sqlstate: String,
        /// The server's own text.
        message: String,
    },

    /// Something did not happen in time: try again, or allow longer.
    #[error("{0}")]
    Timeout(String),

    /// A program that was started ended with an error.
    #[error("{program} failed: {detail}")]
    Program {
        /// The program's name.
        program: String,
        /// Its exit status and last words, in one line.
        detail: String,
    },

    /// A file of the repository is not what Zenith writes there: restore or remove it.
    #[error("{}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },

    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase: "create", "read".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The reason given.
        source: io::Error,
    },
}

fn hint_suffix(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

/// Gives an IO error the verb and the path it needs to be understood.
pub(crate) trait IoContext<T> {
    /// Turns the error into [`Error::Io`].
    fn io(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn io(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.as_ref().to_owned(), source })
    }
}
