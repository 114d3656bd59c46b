//! What a data directory of PostgreSQL 15 is made of, apart from its content.
//!
//! Sources: `initdb.c` (`subdirs`), `postmaster.c` and `xlog.c` for what start-up insists on,
//! `md.c` for how a fork is cut into files.

use std::collections::BTreeSet;

use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, TABLESPACE_VERSION_DIRECTORY, relation_path};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Oid, RelTag};

/// PostgreSQL's major version, the content of every `PG_VERSION`.
pub(crate) const PG_VERSION: &[u8] = b"15\n";

/// Name of the tar's first entry: the files that are to be made as stubs.
pub(crate) const RELATION_LIST: &str = "zenith.relations";

/// Begins the names of entries that hold one page of a stub each: `zenith.pages/STUB/PAGE`.
pub(crate) const PAGES_FOLDER: &str = "zenith.pages";

/// Every folder that start-up insists on or that PostgreSQL would not make by itself.
pub(crate) const DIRECTORIES: &[&str] = &[
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
];

/// The folders above a database's own that PostgreSQL does not make by itself, outermost first.
///
/// A tablespace of the user's own becomes a plain folder in `pg_tblspc` instead of a link to one
/// elsewhere: where it was belongs to another machine, and reads and writes work through either.
pub(crate) fn tablespace_dirs(spc: Oid) -> Vec<String> {
    match spc {
        Oid::GLOBAL_TABLESPACE | Oid::DEFAULT_TABLESPACE => Vec::new(),
        spc => vec![
            format!("pg_tblspc/{spc}"),
            format!("pg_tblspc/{spc}/{TABLESPACE_VERSION_DIRECTORY}"),
        ],
    }
}

/// Whether the fork's content comes from its init fork after a crash, as a compute's start is one:
/// every fork of an unlogged relation but the init fork itself.
pub(crate) fn is_reset(rel: RelTag, init_forks: &BTreeSet<RelTag>) -> bool {
    rel.fork != ForkNumber::Init && init_forks.contains(&RelTag { fork: ForkNumber::Init, ..rel })
}

/// The files of a fork of `nblocks`, each with its number of blocks. An empty fork has one file.
pub(crate) fn files_of(nblocks: BlockNumber) -> impl Iterator<Item = (u32, u32)> {
    let files = nblocks.0.div_ceil(BLOCKS_PER_SEGMENT).max(1);
    (0..files).map(move |n| (n, (nblocks.0 - n * BLOCKS_PER_SEGMENT).min(BLOCKS_PER_SEGMENT)))
}

/// Appends the lines of `zenith.relations` for one fork: `PATH SIZE_IN_BYTES`, one per file.
pub(crate) fn push_relation_lines(list: &mut String, rel: RelTag, nblocks: BlockNumber) {
    for (file, blocks) in files_of(nblocks) {
        push_line(list, &relation_path(rel, file), blocks);
    }
}

/// Appends the line for one file of `pages`.
pub(crate) fn push_line(list: &mut String, path: &str, pages: u32) {
    use std::fmt::Write;
    // Writing to a String cannot fail.
    let _ = writeln!(list, "{path} {}", u64::from(pages) * BLCKSZ as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(spc: Oid, db: u32, fork: ForkNumber) -> RelTag {
        RelTag { spc, db: Oid(db), rel: Oid(77), fork }
    }

    #[test]
    fn a_fork_is_cut_into_files_of_a_gibibyte() {
        let files = |n| files_of(BlockNumber(n)).collect::<Vec<_>>();
        assert_eq!(files(0), [(0, 0)]);
        assert_eq!(files(1), [(0, 1)]);
        assert_eq!(files(131_072), [(0, 131_072)]);
        assert_eq!(files(131_073), [(0, 131_072), (1, 1)]);
        assert_eq!(files(300_000), [(0, 131_072), (1, 131_072), (2, 37_856)]);
    }

    #[test]
    fn lines_name_path_and_bytes() {
        let mut list = String::new();
        let main = rel(Oid::DEFAULT_TABLESPACE, 5, ForkNumber::Main);
        push_relation_lines(&mut list, main, BlockNumber(131_074));
        let fsm = rel(Oid::GLOBAL_TABLESPACE, 0, ForkNumber::Fsm);
        push_relation_lines(&mut list, fsm, BlockNumber(0));
        assert_eq!(list, "base/5/77 1073741824\nbase/5/77.1 16384\nglobal/77_fsm 0\n");
    }

    #[test]
    fn tablespaces_are_the_folders_that_paths_lead_through() {
        let path = relation_path(rel(Oid(16400), 5, ForkNumber::Main), 0);
        for dir in tablespace_dirs(Oid(16400)) {
            assert!(path.starts_with(&format!("{dir}/")), "{path} is not in {dir}");
        }
        assert!(tablespace_dirs(Oid::DEFAULT_TABLESPACE).is_empty());
    }
}
