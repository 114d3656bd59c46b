//! PostgreSQL's lock files, `postmaster.pid` and the socket's: what they say, and what is left of them
//! after a crash.

use std::fs;
use std::path::Path;

use crate::error::{IoContext, Result};

/// Whether the server whose `postmaster.pid` has this text accepts connections: its eighth line is
/// the status (`LOCK_FILE_LINE_PM_STATUS` in PostgreSQL's `utils/pidfile.h`).
pub(super) fn lock_file_says_ready(text: &str) -> bool {
    text.lines().nth(7).is_some_and(|status| status.trim() == "ready")
}

/// After a crash PostgreSQL's lock files stay, and it refuses to start while any process of the same
/// account has the number in one of them. Removing `postmaster.pid` is no way out: it also says which
/// shared memory to check for processes of the crashed server that still run. So a number that is
/// somebody else's by now is replaced by ours: a server does not take its parent for another server.
/// So is what is no number at all, as a full disk leaves it: no server could start then.
///
/// The caller knows that our server does not run.
pub(super) fn disarm_stale_lock_file(path: &Path) -> Result<()> {
    let Ok(bytes) = fs::read(path) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&bytes);
    let stops_a_server = match text.lines().next().and_then(|line| line.trim().parse::<i64>().ok())
    {
        Some(pid) if pid > 0 => Path::new(&format!("/proc/{pid}")).exists(),
        // That of `postgres --single`, which somebody may be running by hand.
        Some(pid) if pid < 0 => false,
        _ => true,
    };
    if !stops_a_server {
        return Ok(());
    }
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    fs::write(path, format!("{}\n{rest}", std::process::id())).io("write", path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lock_files_of_nobody_are_disarmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postmaster.pid");
        let ours = std::process::id();
        disarm_stale_lock_file(&path).unwrap();
        assert!(!path.exists());
        for (before, disarmed) in [
            (&b"1\n/data\n"[..], true),
            (b"garbage\n/data\n", true),
            (b"\xFF\xFE\n/data\n", true),
            (b"0\n/data\n", true),
            (b"\n/data\n", true),
            // PostgreSQL itself sees that there is no such process.
            (b"2000000000\n/data\n", false),
            (b"-1\n/data\n", false),
        ] {
            fs::write(&path, before).unwrap();
            disarm_stale_lock_file(&path).unwrap();
            let after = fs::read(&path).unwrap();
            match disarmed {
                true => assert_eq!(after, format!("{ours}\n/data\n").as_bytes()),
                false => assert_eq!(after, before),
            }
        }
    }
}
