//! The service account: who owns a repository and runs its PostgreSQL processes.
//!
//! It is whoever runs Zenith, except for root, as whom PostgreSQL refuses to run: then it is the
//! account `postgres`, or the one that `ZENITH_PG_USER` names. Once a repository exists, its owner
//! is the account.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Group, Uid, User};

use crate::error::{Error, IoContext, Result};

/// Names the account to use when root runs Zenith.
pub const ACCOUNT_VARIABLE: &str = "ZENITH_PG_USER";
const DEFAULT_ACCOUNT: &str = "postgres";

/// An account of this machine, and whether we must switch to it.
#[derive(Clone, Debug)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
    /// All groups including the primary one; needed to leave root's groups behind.
    groups: Vec<libc::gid_t>,
    /// We are root, the account is another.
    switch: bool,
}

impl Account {
    /// The account for a repository about to be made.
    pub fn for_new_repository() -> Result<Account> {
        let own = Uid::effective();
        if !own.is_root() {
            return Account::own();
        }
        let from_environment = std::env::var(ACCOUNT_VARIABLE).ok().filter(|name| !name.is_empty());
        let name = from_environment.as_deref().unwrap_or(DEFAULT_ACCOUNT);
        let user = User::from_name(name).ok().flatten().ok_or_else(|| {
            Error::Environment(format!(
                "there is no account {name:?} to run PostgreSQL as, and it refuses to run as root; \
                 install the Debian package postgresql-15 or name an account in {ACCOUNT_VARIABLE}"
            ))
        })?;
        if user.uid.is_root() {
            return Err(Error::Environment(format!(
                "PostgreSQL refuses to run as root; name another account than {name:?} in \
                 {ACCOUNT_VARIABLE}"
            )));
        }
        Account::of_user(&user, true)
    }

    /// The owner of the repository in `dir`, if we may act as that account.
    pub fn of_repository(dir: &Path) -> Result<Account> {
        let owner = Uid::from_raw(fs::metadata(dir).io("look at", dir)?.uid());
        let own = Uid::effective();
        if own.is_root() && owner.is_root() {
            return Err(Error::Environment(format!(
                "{} belongs to root, and PostgreSQL refuses to run as root; give it away with \
                 `chown -R {DEFAULT_ACCOUNT}: {}`",
                dir.display(),
                dir.display()
            )));
        }
        if own == owner {
            return Account::own();
        }
        let user = User::from_uid(owner).ok().flatten().ok_or_else(|| {
            Error::Environment(format!(
                "{} belongs to uid {owner}, which is no account of this machine",
                dir.display()
            ))
        })?;
        if !own.is_root() {
            return Err(Error::Environment(format!(
                "the repository {} belongs to the account {}; run zenith as that account or root",
                dir.display(),
                user.name
            )));
        }
        Account::of_user(&user, true)
    }

    fn own() -> Result<Account> {
        let uid = Uid::effective();
        match User::from_uid(uid).ok().flatten() {
            Some(user) => Account::of_user(&user, false),
            // Containers run under uids that /etc/passwd does not know; PostgreSQL copes with
            // them when the superuser's name is given to initdb, as we do.
            None => Ok(Account {
                name: uid.to_string(),
                uid: uid.as_raw(),
                gid: Gid::effective().as_raw(),
                groups: Vec::new(),
                switch: false,
            }),
        }
    }

    fn of_user(user: &User, switch: bool) -> Result<Account> {
        let name = CString::new(user.name.as_str()).unwrap_or_default();
        let groups = group_list(&name, user.gid);
        Ok(Account {
            name: user.name.clone(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups,
            switch,
        })
    }

    /// Its name, or its number if it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its user and primary group numbers.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Whether processes must be started, and files made, under another identity than our own.
    pub fn must_switch(&self) -> bool {
        self.switch
    }

    /// Makes `command` run under the account.
    pub fn apply(&self, command: &mut Command) {
        if !self.switch {
            return;
        }
        let (uid, gid, groups) = (self.uid, self.gid, self.groups.clone());
        let become_account = move || {
            // SAFETY: plain system calls on memory owned by the closure; all three are
            // async-signal-safe, as is required between fork and exec.
            let failed = unsafe {
                libc::setgroups(groups.len(), groups.as_ptr()) != 0
                    || libc::setgid(gid) != 0
                    || libc::setuid(uid) != 0
            };
            if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: the closure allocates nothing and takes no lock.
        unsafe { command.pre_exec(become_account) };
    }

    /// Until the guard is dropped this thread touches files as the account: what it creates
    /// belongs to the account, and what the account may not enter is refused to it.
    pub fn enter(&self) -> FileIdentity {
        if !self.switch {
            return FileIdentity { previous: None, _thread: PhantomData };
        }
        let previous_groups = thread_groups();
        set_thread_groups(&self.groups);
        // SAFETY: system calls without memory arguments that change this thread only.
        let previous =
            unsafe { (libc::setfsgid(self.gid) as u32, libc::setfsuid(self.uid) as u32) };
        FileIdentity {
            previous: Some((previous.1, previous.0, previous_groups)),
            _thread: PhantomData,
        }
    }

    /// Checks that the account can reach `dir`, and names the folder that bars the way if not.
    pub fn check_reach(&self, dir: &Path) -> Result<()> {
        let _identity = self.enter();
        let folders: Vec<&Path> = dir.ancestors().collect();
        for folder in folders.into_iter().rev() {
            // Looking up "." inside a folder needs the right to search it, nothing more.
            if let Err(error) = fs::metadata(folder.join("."))
                && error.kind() == io::ErrorKind::PermissionDenied
            {
                return Err(Error::Environment(format!(
                    "the account {} cannot enter {}; use a folder that it can reach, such as one \
                     below /var/lib/postgresql, or permit it with `chmod o+x {}`",
                    self.name,
                    folder.display(),
                    folder.display()
                )));
            }
        }
        Ok(())
    }

    /// Gives everything below and including `path` to the account.
    pub fn own_tree(&self, path: &Path) -> Result<()> {
        if !self.switch {
            return Ok(());
        }
        let meta = fs::symlink_metadata(path).io("look at", path)?;
        if (meta.uid(), meta.gid()) != (self.uid, self.gid) {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
                .io("change the owner of", path)?;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(path).io("list", path)? {
                self.own_tree(&entry.io("list", path)?.path())?;
            }
        }
        Ok(())
    }
}

/// See [`Account::enter`]. Bound to its thread, since identities of file access are per thread.
#[must_use]
pub struct FileIdentity {
    /// uid, gid, groups.
    previous: Option<(u32, u32, Vec<libc::gid_t>)>,
    _thread: PhantomData<*const ()>,
}

impl Drop for FileIdentity {
    fn drop(&mut self) {
        if let Some((uid, gid, groups)) = self.previous.take() {
            // SAFETY: as in `enter`.
            unsafe {
                libc::setfsuid(uid);
                libc::setfsgid(gid);
            }
            set_thread_groups(&groups);
        }
    }
}

fn thread_groups() -> Vec<libc::gid_t> {
    nix::unistd::getgroups()
        .map(|groups| groups.into_iter().map(Gid::as_raw).collect())
        .unwrap_or_default()
}

/// The C library's `setgroups` would change every thread of the process, hence the bare call.
fn set_thread_groups(groups: &[libc::gid_t]) {
    // SAFETY: the pointer and length describe `groups`, which outlives the call.
    unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
}

fn group_list(name: &CStr, gid: Gid) -> Vec<libc::gid_t> {
    match nix::unistd::getgrouplist(name, gid) {
        Ok(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        Err(_) => Group::from_gid(gid).ok().flatten().map(|g| g.gid.as_raw()).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_belong_to_the_account_inside_the_guard_only() {
        let account = Account::for_new_repository().unwrap();
        let dir = tempfile::tempdir().unwrap();
        account.own_tree(dir.path()).unwrap();
        let owner = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            fs::metadata(path).unwrap().uid()
        };
        let inside = {
            let _identity = account.enter();
            owner("inside")
        };
        assert_eq!(inside, account.ids().0);
        assert_eq!(owner("outside"), Uid::effective().as_raw());
        assert_eq!(Account::of_repository(dir.path()).unwrap().ids(), account.ids());
    }

    #[test]
    fn commands_run_as_the_account() {
        let account = Account::for_new_repository().unwrap();
        let mut command = Command::new("id");
        account.apply(command.arg("-u"));
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), account.ids().0.to_string());
    }

    #[test]
    fn a_folder_that_bars_the_way_is_named() {
        let account = Account::for_new_repository().unwrap();
        if !account.must_switch() {
            return; // An ordinary user owns the folder and is never barred from it.
        }
        let dir = tempfile::tempdir().unwrap();
        let barred = dir.path().join("barred");
        fs::create_dir(&barred).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&barred, fs::Permissions::from_mode(0o700)).unwrap();
        account.check_reach(dir.path()).unwrap();
        let message = account.check_reach(&barred.join("below")).unwrap_err().to_string();
        assert!(message.contains(&format!("cannot enter {};", barred.display())), "{message}");
        assert!(message.contains(account.name()), "{message}");
    }
}
