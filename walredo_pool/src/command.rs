//! How a redo process is run: its program, settings, libraries and environment.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use postgres_formats::control_file::ControlFile;

use crate::config::WalRedoConfig;

/// Settings of the processes. The memory is little: a request needs a handful of pages, see
/// `module/redo.c`. Nothing may be left behind outside the data directory by a process that is
/// killed, hence no POSIX shared memory.
const SETTINGS: [&str; 14] = [
    "shared_buffers=256",
    "wal_buffers=4",
    "max_connections=1",
    "max_worker_processes=0",
    "max_wal_senders=0",
    "max_prepared_transactions=0",
    "max_locks_per_transaction=10",
    "autovacuum=off",
    "fsync=off",
    "huge_pages=off",
    "dynamic_shared_memory_type=mmap",
    "log_destination=stderr",
    "logging_collector=off",
    "log_line_prefix=",
];

/// The command that runs `program` with the data directory `dir`.
pub fn command(config: &WalRedoConfig, program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--single").arg("-D").arg(dir);
    for setting in SETTINGS {
        command.arg("-c").arg(setting);
    }
    if ControlFile::decode(&config.control_file).is_ok_and(|file| file.parameters.wal_log_hints) {
        // Decides, as data checksums do, whether redo stamps pages on which it sets only hints.
        command.arg("-c").arg("wal_log_hints=on");
    }
    // Ours is the last: it takes over when the others have set up what they need.
    let mut preload = OsString::from("shared_preload_libraries=");
    for library in &config.libraries {
        preload.push(format!("\"{library}\","));
    }
    preload.push("\"");
    preload.push(&config.module_path);
    preload.push("\"");
    command.arg("-c").arg(preload);
    // The name of a database is wanted, though none is ever opened.
    command.arg("postgres");

    // Nothing of our environment is any of its business, least of all preloaded libraries. The
    // library path may be what lets an installation of PostgreSQL start at all.
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", path);
    }
    command.env("ZENITH_WALREDO_OWNER", std::process::id().to_string());
    // A folder that the account can enter; and a group of its own, so that a terminal's Ctrl-C
    // reaches us and not it.
    command.current_dir(dir).process_group(0);
    if let Some(account) = config.account {
        command.uid(account.uid).gid(account.gid);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
