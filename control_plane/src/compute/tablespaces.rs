//! Tablespaces that a compute keeps outside its own directory.
//!
//! `CREATE TABLESPACE ... LOCATION '/folder'` is PostgreSQL's own: `pg_tblspc` gets a link to that
//! folder. Only the compute that ran it ever uses the folder. All others, and this one when it is
//! made anew, have the tablespace as a plain folder in `pg_tblspc`. So the folder and what is in it
//! are left alone by whatever is done here, and its owner is told of it.

use std::fs;
use std::path::PathBuf;

use super::Compute;

impl Compute {
    /// The folders outside its own directory in which it keeps tablespaces, in order. Those that
    /// cannot be told are left out.
    pub fn outside_tablespaces(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.pgdata().join("pg_tblspc")).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> =
            entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        found.sort();
        found
    }

    /// Whether tablespaces are plain folders in its own `pg_tblspc`.
    pub(super) fn has_tablespaces_in_place(&self) -> bool {
        let entries = fs::read_dir(self.pgdata().join("pg_tblspc")).into_iter().flatten().flatten();
        // Links do not count: what is looked at is the entry itself.
        entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    }
}
