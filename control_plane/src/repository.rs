//! `Repository`: the directory `.zenith` and everything in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::config::{CONFIG_FILE, Config};
use crate::control::{Control, ServerAddress};
use crate::error::{Error, IoContext, Result, Thing};
use crate::postgres_install::PostgresInstall;

/// Name of a repository's directory within the folder it was made in.
pub const REPOSITORY_DIR: &str = ".zenith";
/// Names a repository where none is given.
pub const REPOSITORY_VARIABLE: &str = "ZENITH_DIR";

/// A repository on this machine. Cheap to clone; holds no lock and no connection.
#[derive(Clone, Debug)]
pub struct Repository {
    dir: PathBuf,
    config: Config,
    account: Account,
}

impl Repository {
    /// Opens the repository at `path`: either a `.zenith` directory or the folder that has one.
    pub fn open(path: &Path) -> Result<Repository> {
        let [inside, here] = [path.join(REPOSITORY_DIR), path.to_owned()];
        let dir = if is_repository(&here)? {
            here
        } else if is_repository(&inside)? {
            inside
        } else {
            return Err(not_found(path));
        };
        let dir = fs::canonicalize(&dir).io("find", &dir)?;
        let config = Config::read(&dir)?;
        let account = Account::of_repository(&dir)?;
        account.check_reach(&dir)?;
        Ok(Repository { dir, config, account })
    }

    /// Finds the repository as git does: `named` if given, else what `ZENITH_DIR` names, else
    /// `.zenith` in the current folder or the nearest one above.
    pub fn discover(named: Option<&Path>) -> Result<Repository> {
        let from_environment =
            std::env::var_os(REPOSITORY_VARIABLE).filter(|value| !value.is_empty());
        if let Some(path) = named.map(Path::to_owned).or(from_environment.map(PathBuf::from)) {
            return Repository::open(&path);
        }
        let here = std::env::current_dir().io("find", ".")?;
        for folder in here.ancestors() {
            let dir = folder.join(REPOSITORY_DIR);
            if is_repository(&dir)? {
                return Repository::open(&dir);
            }
        }
        Err(not_found(&here))
    }

    /// Its directory, absolute and without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its settings as they were when it was opened.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// The account that owns it and runs its processes.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The PostgreSQL installation it was made with.
    pub fn postgres(&self) -> Result<PostgresInstall> {
        PostgresInstall::at(&self.config.pg_bin_dir)
    }

    /// Where its page server can be reached; an error if it does not run.
    pub fn server_address(&self) -> Result<ServerAddress> {
        self.running_server()
            .and_then(|_| ServerAddress::read(&self.dir))
            .ok_or_else(|| Error::PageServerNotRunning { repository: self.dir.clone() })
    }

    pub(crate) fn control(&self) -> Result<Control> {
        Control::connect(&self.server_address()?.unix)
    }
}

/// Whether `dir` is a repository's directory. An error if we are not allowed to find out.
fn is_repository(dir: &Path) -> Result<bool> {
    match dir.join(CONFIG_FILE).try_exists() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Says whose it is, unless the way there is barred as well.
            Account::of_repository(dir)?;
            Err(error).io("enter", dir)
        }
        found => found.io("look into", dir),
    }
}

fn not_found(path: &Path) -> Error {
    Error::NotFound {
        thing: Thing::Repository,
        name: path.display().to_string(),
        hint: "make one with `zenith init`, or name one with --repo or ZENITH_DIR".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn opens_by_either_folder() {
        let dir = tempfile::tempdir().unwrap();
        let error = Repository::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::NotFound { thing: Thing::Repository, .. }), "{error}");

        let account = Account::for_new_repository().unwrap();
        let inside = dir.path().join(REPOSITORY_DIR);
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join(CONFIG_FILE), Config::initial_text(Path::new("/pg"), "trunk"))
            .unwrap();
        account.own_tree(dir.path()).unwrap();
        for path in [dir.path(), &inside] {
            let repository = Repository::open(path).unwrap();
            assert_eq!(repository.dir(), fs::canonicalize(&inside).unwrap());
            assert_eq!(repository.config().default_branch, "trunk");
            let error = repository.server_address().unwrap_err();
            assert!(matches!(error, Error::PageServerNotRunning { .. }), "{error}");
        }
    }
}
