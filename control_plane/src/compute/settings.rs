//! The configuration files of a compute.
//!
//! `postgresql.conf` is written once and is the user's from then on. Its last line includes
//! `zenith.conf`, which is written again at every start: what must be so, and what depends on where
//! the repository is.

use std::path::Path;
use std::{fs, io};

use postgres_formats::control_file::{CONTROL_FILE_PATH, ControlFile};
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH};

use pageserver_client::{STANDBY_NAME, WRITER_SETTING};

use super::{Compute, Durability, Mode};
use crate::error::{Error, IoContext, Result};

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
";

const LAST_LINES: &str = "
# What Zenith itself needs; it writes that file again at every start.
include = 'zenith.conf'
";

const IN_PLACE_CONF: &str = "\
# Tablespaces older than this compute are folders in pg_tblspc. Recovery of a pg_basebackup refuses
# those otherwise.
allow_in_place_tablespaces = on
";

/// As in `USER_CONF`.
const MAX_PREPARED_TRANSACTIONS: usize = 100;
const MAX_REPLICATION_SLOTS: usize = 10;

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

/// Writes the files that belong to the user from then on, into an unpacked base backup.
pub(super) fn write_initial(pgdata: &Path) -> Result<()> {
    let postgresql_conf = [USER_CONF, &inherited(pgdata)?, LAST_LINES].concat();
    for (name, text) in [
        ("postgresql.conf", postgresql_conf.as_str()),
        ("postgresql.auto.conf", ""),
        ("pg_hba.conf", HBA_CONF),
        ("pg_ident.conf", ""),
    ] {
        let path = pgdata.join(name);
        fs::write(&path, text).io("write", &path)?;
    }
    Ok(())
}

/// Settings without which a server would lose, or could not hold, what it begins with.
fn inherited(pgdata: &Path) -> Result<String> {
    let path = pgdata.join(CONTROL_FILE_PATH);
    let control = fs::read(&path).io("read", &path)?;
    let control = ControlFile::decode(&control)
        .map_err(|error| Error::Corrupt { path, detail: error.to_string() })?;
    let mut lines = String::new();
    if control.parameters.track_commit_timestamp {
        lines += "# On where this begins; without it all timestamps are removed at the next start.\n\
                  track_commit_timestamp = on\n";
    }
    let path = pgdata.join("pg_twophase");
    let prepared = fs::read_dir(&path).io("list", &path)?.count();
    if prepared > MAX_PREPARED_TRANSACTIONS {
        lines += &format!("max_prepared_transactions = {}\n", prepared + MAX_PREPARED_TRANSACTIONS);
    }
    // Each origin whose progress is known takes the place of a slot; a server with too few of them
    // does not start.
    let path = pgdata.join(REPLICATION_ORIGINS_PATH);
    let origins = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        file => replication_origins::decode(&file.io("read", &path)?)
            .map_err(|error| Error::Corrupt { path, detail: error.to_string() })?
            .len(),
    };
    if origins > 0 {
        lines += &format!("max_replication_slots = {}\n", origins + MAX_REPLICATION_SLOTS);
    }
    Ok(lines)
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
    // Otherwise it stays off, as on any other server: it changes what CREATE TABLESPACE accepts.
    let in_place = match compute.has_tablespaces_in_place() {
        true => IN_PLACE_CONF,
        false => "",
    };
    format!(
        "# Written by Zenith at every start; changes are lost.\n\
         listen_addresses = '127.0.0.1'\n\
         port = {}\n\
         unix_socket_directories = {}\n\
         synchronous_standby_names = '{standby}'\n\
         fsync = {fsync}\n\
         full_page_writes = on\n\
         logging_collector = off\n\
         {in_place}\
         max_slot_wal_keep_size = -1\n\
         {WRITER_SETTING} = '{}'\n",
        compute.port,
        quoted(&socket_dir.to_string_lossy()),
        compute.writer_setting(),
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
    #![allow(clippy::unwrap_used)]

    use postgres_formats::{Lsn, SystemId};

    use super::*;

    /// Settings that a compute begins with, from a base backup with this control file.
    fn initial(change: impl FnOnce(&mut ControlFile)) -> String {
        let pgdata = tempfile::tempdir().unwrap();
        for folder in ["global", "pg_twophase", "pg_logical"] {
            fs::create_dir(pgdata.path().join(folder)).unwrap();
        }
        for xid in 0..101 {
            fs::write(pgdata.path().join(format!("pg_twophase/{xid:08X}")), "").unwrap();
        }
        let mut control = ControlFile::for_new_cluster(SystemId(1));
        change(&mut control);
        fs::write(pgdata.path().join(CONTROL_FILE_PATH), control.encode()).unwrap();
        let origins = replication_origins::encode(&[(1, Lsn::new(2)), (7, Lsn::new(3))].into());
        fs::write(pgdata.path().join(REPLICATION_ORIGINS_PATH), origins).unwrap();
        write_initial(pgdata.path()).unwrap();
        fs::read_to_string(pgdata.path().join("postgresql.conf")).unwrap()
    }

    #[test]
    fn what_the_server_before_had_is_not_lost() {
        let text = initial(|control| control.parameters.track_commit_timestamp = true);
        let line = |wanted: &str| text.lines().any(|line| line == wanted);
        assert!(line("track_commit_timestamp = on"));
        assert!(line("max_prepared_transactions = 201"));
        assert!(line("max_replication_slots = 12"));
        assert!(text.ends_with("include = 'zenith.conf'\n"));
        assert!(!initial(|_| ()).contains("track_commit_timestamp"));
    }

    #[test]
    fn paths_are_quoted_twice() {
        assert_eq!(quoted("/a b"), "'\"/a b\"'");
        assert_eq!(quoted("/it's"), "'\"/it''s\"'");
    }
}
