//! The configuration files of a compute.
//!
//! `postgresql.conf` is written once and is the user's from then on. Its last line includes
//! `zenith.conf`, which is written again at every start: what must be so, and what depends on where
//! the repository is.

use std::fs;
use std::path::Path;

use super::{Compute, Durability, Mode};
use crate::error::{IoContext, Result};

/// `application_name` of the page server's replication connection.
pub(super) const STANDBY_NAME: &str = "zenith_pageserver";
/// Written again at every start.
const FORCED_FILE: &str = "zenith.conf";

const USER_CONF: &str = "\
# Settings of this compute. Yours to change; applied when it starts.
max_connections = 100
shared_buffers = 128MB
max_wal_size = 1GB
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
max_prepared_transactions = 100
# Blocks that are not on this machine yet are fetched many at a time.
effective_io_concurrency = 64
maintenance_io_concurrency = 64
log_line_prefix = '%m [%p] '
log_timezone = 'UTC'
timezone = 'UTC'
datestyle = 'iso, mdy'
default_text_search_config = 'pg_catalog.english'

# What Zenith itself needs; it writes that file again at every start.
include = 'zenith.conf'
";

const HBA_CONF: &str = "\
# Only this machine can connect: the server listens on the loopback address.
# TYPE  DATABASE     USER  ADDRESS       METHOD
local   all          all                 trust
host    all          all   127.0.0.1/32  trust
host    all          all   ::1/128       trust
local   replication  all                 trust
host    replication  all   127.0.0.1/32  trust
host    replication  all   ::1/128       trust
";

/// Files of a base backup that are replaced by ours.
pub(super) const REPLACED_FILES: [&str; 4] =
    ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];

/// Writes the files that belong to the user from then on.
pub(super) fn write_initial(pgdata: &Path) -> Result<()> {
    for (name, text) in [
        ("postgresql.conf", USER_CONF),
        ("postgresql.auto.conf", ""),
        ("pg_hba.conf", HBA_CONF),
        ("pg_ident.conf", ""),
    ] {
        let path = pgdata.join(name);
        fs::write(&path, text).io("write", &path)?;
    }
    Ok(())
}

/// Writes the file that says what must be so.
pub(super) fn write_forced(compute: &Compute, socket_dir: &Path) -> Result<()> {
    let path = compute.layout.pgdata().join(FORCED_FILE);
    fs::write(&path, forced(compute, socket_dir)).io("write", &path)
}

fn forced(compute: &Compute, socket_dir: &Path) -> String {
    let standby = match (compute.mode, compute.durability) {
        (Mode::ReadWrite, Durability::PageServer) => STANDBY_NAME,
        _ => "",
    };
    // What a detached compute writes is meant to be lost.
    let fsync = if compute.mode == Mode::Detached { "off" } else { "on" };
    format!(
        "# Written by Zenith at every start; changes are lost.\n\
         listen_addresses = '127.0.0.1'\n\
         port = {}\n\
         unix_socket_directories = {}\n\
         synchronous_standby_names = '{standby}'\n\
         fsync = {fsync}\n\
         full_page_writes = on\n\
         logging_collector = off\n\
         max_slot_wal_keep_size = -1\n",
        compute.port,
        quoted(&socket_dir.to_string_lossy()),
    )
}

/// A value of the configuration file. Within the list of socket folders, a path is in double quotes
/// so that commas and blanks in it are not taken for separators.
fn quoted(path: &str) -> String {
    let item = format!("\"{}\"", path.replace('"', "\"\""));
    format!("'{}'", item.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_twice() {
        assert_eq!(quoted("/a b"), "'\"/a b\"'");
        assert_eq!(quoted("/it's"), "'\"/it''s\"'");
    }
}
