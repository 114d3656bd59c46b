//! Giving up root: PostgreSQL refuses to run as root, and so do the redo processes.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setgid, setgroups, setuid};

/// A user and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Account, String> {
        let parse = || {
            let (uid, gid) = text.split_once(':')?;
            Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        };
        parse().ok_or_else(|| "expected UID:GID, two numbers".to_owned())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Why the account could not be switched to.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Root, and nobody said whom to become.
    #[error(
        "started as root on {}, which belongs to root: PostgreSQL refuses root; give the \
         repository to another account (chown -R) or name one with --run-as UID:GID",
        .0.display()
    )]
    NobodyToBecome(PathBuf),
    /// Another account was asked for without being root.
    #[error("--run-as {wanted}: only root can run as another account")]
    NotRoot {
        /// The account that was asked for.
        wanted: Account,
    },
    /// The operating system refused.
    #[error("cannot run as {wanted}: {errno}")]
    Refused {
        /// The account that was asked for.
        wanted: Account,
        /// Why.
        errno: Errno,
    },
    /// The repository's owner is not known.
    #[error("cannot read {}: {source}", .repo.display())]
    Repository {
        /// The repository.
        repo: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Becomes `wanted`, or as root without a wish the owner of the folder `repo`. For anyone else
/// without a wish nothing changes. Must be called while the process has one thread.
pub fn switch_account(wanted: Option<Account>, repo: &Path) -> Result<(), PrivilegeError> {
    let now = geteuid();
    let wanted = match wanted {
        Some(wanted) if Uid::from_raw(wanted.uid) == now && wanted.uid != 0 => return Ok(()),
        Some(wanted) if !now.is_root() => return Err(PrivilegeError::NotRoot { wanted }),
        Some(wanted) => wanted,
        None if !now.is_root() => return Ok(()),
        None => {
            let owner = std::fs::metadata(repo)
                .map_err(|source| PrivilegeError::Repository { repo: repo.to_owned(), source })?;
            Account { uid: owner.uid(), gid: owner.gid() }
        }
    };
    if wanted.uid == 0 {
        return Err(PrivilegeError::NobodyToBecome(repo.to_owned()));
    }
    become_account(wanted).map_err(|errno| PrivilegeError::Refused { wanted, errno })
}

fn become_account(wanted: Account) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    // The order matters: groups can be changed only while still root.
    match User::from_uid(uid)?.and_then(|user| CString::new(user.name).ok()) {
        Some(name) => initgroups(&name, gid)?,
        None => setgroups(&[gid])?,
    }
    setgid(gid)?;
    setuid(uid)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_two_numbers() {
        assert_eq!("101:104".parse(), Ok(Account { uid: 101, gid: 104 }));
        for bad in ["", "101", "postgres:postgres", "101:", "-1:2", "1:2:3"] {
            assert!(bad.parse::<Account>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn without_root_only_oneself_can_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let me = Account { uid: geteuid().as_raw(), gid: 0 };
        if geteuid().is_root() {
            // The folder is root's: there is nobody to become, and nothing has changed.
            let error = switch_account(None, dir.path()).unwrap_err();
            assert!(matches!(error, PrivilegeError::NobodyToBecome(_)), "{error}");
            assert!(geteuid().is_root());
        } else {
            switch_account(None, dir.path()).unwrap();
            switch_account(Some(me), dir.path()).unwrap();
            let other = Account { uid: me.uid + 1, gid: 0 };
            let error = switch_account(Some(other), dir.path()).unwrap_err();
            assert!(matches!(error, PrivilegeError::NotRoot { .. }), "{error}");
        }
    }
}
