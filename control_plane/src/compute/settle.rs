//! Whether the files that a compute began with have reached the disk.
//!
//! Laying out a compute syncs nothing, for its first query should not wait for the disk. But if the
//! machine went down before the kernel has written a stub's size, PostgreSQL would find an empty
//! relation and believe it. So a compute remembers in which run of the machine it was made. Once
//! it runs, a process in the background syncs the file system and then leaves a mark. Without the
//! mark, a compute starts only in the run of the machine in which it was made.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Compute, Mode};
use crate::error::{Error, IoContext, Result};

/// Identifies one run of the machine; another one after each boot.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// `$0` is the folder, `$1` the mark; the mark is synced as well, or a good compute would be refused.
/// The outer shell ends at once, so that its parent has no child to reap later.
const SYNC_AND_MARK: &str = r#"( sync -f "$0" && : > "$1" && sync -f "$0" ) &"#;

/// What to remember of the run of the machine in which a compute was made.
pub(super) fn current_boot_id() -> Result<String> {
    let text = fs::read_to_string(BOOT_ID_FILE).io("read", BOOT_ID_FILE)?;
    Ok(text.trim().to_owned())
}

impl Compute {
    /// Refuses a compute whose files may be damaged by the end of an earlier run of the machine.
    pub(super) fn refuse_if_unsettled(&self) -> Result<()> {
        if self.is_settled() || self.boot_id == current_boot_id()? {
            return Ok(());
        }
        let name = &self.name;
        let reason = match self.mode {
            Mode::ReadWrite => "was made just before this machine went down",
            Mode::Detached => "is detached, and such computes do not outlive a run of the machine",
        };
        Err(Error::Conflict(format!(
            "compute {name:?} {reason}, so its files cannot be trusted; remove it with `zenith pg \
             destroy {name}` and make it anew from the page server"
        )))
    }

    /// Has the files synced and the mark set, without waiting for it.
    pub(super) fn settle_in_background(&self) -> Result<()> {
        // A detached compute runs without fsync, so that nothing would be won.
        if self.mode == Mode::Detached || self.is_settled() {
            return Ok(());
        }
        let mut command = Command::new("sh");
        command.args(["-c", SYNC_AND_MARK]).arg(self.layout.dir()).arg(self.mark());
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.repository.account().apply(&mut command);
        command.status().map(|_| ()).io("run", "sh")
    }

    fn is_settled(&self) -> bool {
        self.mode == Mode::ReadWrite && self.mark().exists()
    }

    /// Another file for each compute that ever had this name: a late sync of one that was
    /// destroyed must not vouch for its successor.
    fn mark(&self) -> PathBuf {
        self.layout.dir().join(format!("settled.{}", self.instance))
    }
}
