//! Making a repository: `initdb`, then its result loaded into the page server as a first branch.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::companions;
use crate::config::{CONFIG_FILE, Config};
use crate::error::{Error, IoContext, Result, Thing};
use crate::postgres_install::PostgresInstall;
use crate::process;
use crate::repository::{REPOSITORY_DIR, Repository};

/// Name of the database superuser in every repository.
pub const SUPERUSER: &str = "postgres";
/// Name of the branch that a new repository has.
const FIRST_BRANCH: &str = "main";
/// Folders that a repository has from the beginning.
const FOLDERS: [&str; 3] = ["computes", "lib", "run"];

/// How to make a repository.
#[derive(Clone, Default, Debug)]
pub struct InitOptions {
    /// Folder of PostgreSQL's programs; found if not given.
    pub pg_bin_dir: Option<PathBuf>,
}

impl Repository {
    /// Makes a repository in `folder`, as its `.zenith`, unless `folder` itself has that name.
    ///
    /// `progress` is called with a sentence for each step that takes time. Whatever fails, nothing
    /// is left behind.
    pub fn init(
        folder: &Path,
        options: &InitOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Repository> {
        let folder = std::path::absolute(folder).io("find", folder)?;
        let dir = match folder.file_name() {
            Some(name) if name == REPOSITORY_DIR => folder,
            _ => folder.join(REPOSITORY_DIR),
        };
        if fs::symlink_metadata(&dir).is_ok() {
            return Err(Error::AlreadyExists {
                thing: Thing::Repository,
                name: dir.display().to_string(),
                hint: "nothing was changed".to_owned(),
            });
        }
        let account = Account::for_new_repository()?;
        let postgres = PostgresInstall::find(options.pg_bin_dir.as_deref())?;
        let pageserver = companions::find(companions::PAGESERVER)?;

        let building = Building::begin(&dir, &account)?;
        account.check_reach(&building.dir)?;
        let pgdata = building.dir.join("initdb");
        progress(&format!("initdb with PostgreSQL {}", postgres.version()));
        initdb(&postgres, &account, &pgdata)?;
        {
            let _identity = account.enter();
            for name in FOLDERS {
                let path = building.dir.join(name);
                fs::DirBuilder::new().mode(0o700).create(&path).io("create", &path)?;
            }
            let text = Config::initial_text(postgres.bin_dir(), FIRST_BRANCH);
            let path = building.dir.join(CONFIG_FILE);
            durable_files::write_file(&path, text.as_bytes()).io("write", &path)?;
        }
        companions::install_libraries(&building.dir.join("lib"), &account)?;
        progress("loading it into the page server");
        load(&pageserver, &account, &building.dir, &pgdata)?;
        fs::remove_dir_all(&pgdata).io("remove", &pgdata)?;
        account.own_tree(&building.dir)?;
        building.finish(&dir)?;
        Repository::open(&dir)
    }
}

/// A repository being made, under a name that is none; removed when dropped unfinished.
struct Building {
    dir: PathBuf,
    /// The topmost folder that had to be made for it.
    made: Option<PathBuf>,
    finished: bool,
}

impl Building {
    fn begin(dir: &Path, account: &Account) -> Result<Building> {
        let folder = dir.parent().unwrap_or(Path::new("/"));
        let missing = folder.ancestors().take_while(|folder| !folder.exists()).last();
        let made = missing.map(Path::to_owned);
        fs::create_dir_all(folder).io("create", folder)?;
        let name = format!("{REPOSITORY_DIR}.init-{}", std::process::id());
        let building = Building { dir: folder.join(name), made, finished: false };
        remove_abandoned(folder);
        fs::DirBuilder::new().mode(0o700).create(&building.dir).io("create", &building.dir)?;
        account.own_tree(&building.dir)?;
        Ok(building)
    }

    fn finish(mut self, dir: &Path) -> Result<()> {
        durable_files::rename(&self.dir, dir).io("rename", &self.dir)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.dir);
            if let Some(made) = &self.made {
                // Only folders, and only empty ones: others may have put something there.
                let folder = self.dir.parent().unwrap_or(made);
                for folder in folder.ancestors().take_while(|folder| folder.starts_with(made)) {
                    let _ = fs::remove_dir(folder);
                }
            }
        }
    }
}

/// Removes what an `init` that was killed has left in `folder`.
fn remove_abandoned(folder: &Path) {
    let prefix = format!("{REPOSITORY_DIR}.init-");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
        if let Some(pid) = pid
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn initdb(postgres: &PostgresInstall, account: &Account, pgdata: &Path) -> Result<()> {
    let run = |locale: &str| {
        let mut command = Command::new(postgres.program("initdb"));
        command.arg("--pgdata").arg(pgdata).args([
            "--username",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--data-checksums",
            "--no-instructions",
            // The page server syncs what it makes of these files; they themselves are thrown away.
            "--no-sync",
        ]);
        command.arg(format!("--locale={locale}"));
        command.current_dir(pgdata.parent().unwrap_or(Path::new("/")));
        account.apply(&mut command);
        process::run_program("initdb", &mut command).map(|_| ())
    };
    match run("C.UTF-8") {
        // Some systems do not have it; PostgreSQL knows C by itself.
        Err(Error::Program { detail, .. }) if detail.contains("locale") => run("C"),
        other => other,
    }
}

fn load(pageserver: &Path, account: &Account, repository: &Path, pgdata: &Path) -> Result<()> {
    let mut command = Command::new(pageserver);
    command.arg("init").arg("--repo").arg(repository).arg("--pgdata").arg(pgdata);
    if account.must_switch() {
        let (uid, gid) = account.ids();
        command.arg("--run-as").arg(format!("{uid}:{gid}"));
    }
    command.current_dir(repository);
    process::run_program("pageserver init", &mut command).map(|_| ())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nothing_is_left_of_an_unfinished_repository() {
        let dir = tempfile::tempdir().unwrap();
        let account = Account::for_new_repository().unwrap();
        let folder = dir.path().join("a/b");
        let building = Building::begin(&folder.join(REPOSITORY_DIR), &account).unwrap();
        fs::write(building.dir.join("x"), "").unwrap();
        drop(building);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_with_a_repository_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join(REPOSITORY_DIR);
        fs::create_dir(&taken).unwrap();
        for path in [dir.path(), &taken] {
            let error = Repository::init(path, &InitOptions::default(), &mut |_| ()).unwrap_err();
            assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        }
        assert_eq!(fs::read_dir(&taken).unwrap().count(), 0);
    }

    #[test]
    fn a_finished_repository_stays_and_abandoned_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let account = Account::for_new_repository().unwrap();
        // No process can have this number: the kernel's limit is far below.
        let abandoned = dir.path().join(format!("{REPOSITORY_DIR}.init-4000000000"));
        fs::create_dir(&abandoned).unwrap();
        let target = dir.path().join(REPOSITORY_DIR);
        Building::begin(&target, &account).unwrap().finish(&target).unwrap();
        assert!(target.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
