//! Names of the files of relations.
//!
//! Source: PostgreSQL `common/relpath.c` (`GetRelationPath`), `storage/smgr/md.c` (segments).
//!
//! ```text
//! global/REL                                   shared by all databases
//! base/DB/REL                                  default tablespace
//! pg_tblspc/SPC/PG_15_202209061/DB/REL         other tablespaces
//!
//! REL = number [_fsm | _vm | _init] [.segment]     t3_number.. is a temporary relation
//! ```

use std::fmt::Write as _;

use crate::{ForkNumber, Oid, RelTag};

/// Pages in one file of a relation (`RELSEG_SIZE`): files are cut at 1 GiB.
pub const BLOCKS_PER_SEGMENT: u32 = 131_072;
/// `CATALOG_VERSION_NO` of PostgreSQL 15.
pub const CATALOG_VERSION: u32 = 202209061;
/// The folder inside a tablespace that belongs to PostgreSQL 15 (`TABLESPACE_VERSION_DIRECTORY`).
pub const TABLESPACE_VERSION_DIRECTORY: &str = "PG_15_202209061";

/// Which relation, fork and part of it a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFile {
    /// Relation and fork.
    pub tag: RelTag,
    /// Which gibibyte of it, from 0.
    pub segment: u32,
}

impl RelFile {
    /// Path of the file relative to the data directory.
    pub fn path(&self) -> String {
        relation_path(self.tag, self.segment)
    }
}

/// The path does not name a file of an ordinary relation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{path}\" is not the file of a relation: {kind}")]
pub struct FilePathError {
    /// The path as given.
    pub path: String,
    /// What it is, or what is wrong with it.
    pub kind: FilePathErrorKind,
}

/// What a path is that does not name a file of an ordinary relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilePathErrorKind {
    /// It is not where relations are.
    #[error("it is in none of the folders that hold relations")]
    OtherFolder,
    /// It is in a tablespace, but in the folder of another version of PostgreSQL.
    #[error("the tablespace's folder belongs to another version of PostgreSQL")]
    OtherVersion,
    /// The database or tablespace is not an object id.
    #[error("a folder's name is not an object id")]
    InvalidFolder,
    /// It is a temporary relation's, which belongs to one session and is not logged.
    #[error("it belongs to a temporary relation")]
    Temporary,
    /// It is another kind of file that lives beside relations, such as `pg_filenode.map`.
    #[error("it is another kind of file")]
    OtherFile,
    /// It begins like a relation's name, but the number is not an object id.
    #[error("its number is not an object id")]
    InvalidRelation,
    /// It looks like a relation's name, but there is no such fork.
    #[error("there is no such fork")]
    InvalidFork,
    /// It looks like a relation's name, but the segment is not a number that PostgreSQL writes.
    #[error("its segment number is not valid")]
    InvalidSegment,
}

/// The relation, fork and segment that the file at `path`, relative to the data directory, holds.
///
/// Accepts exactly what [`relation_path`] gives, so that one file never has two names.
pub fn parse_relation_path(path: &str) -> Result<RelFile, FilePathError> {
    parse(path).map_err(|kind| FilePathError { path: path.to_owned(), kind })
}

fn parse(path: &str) -> Result<RelFile, FilePathErrorKind> {
    use FilePathErrorKind as Kind;
    let folder = |name: &str| parse_number(name).map(Oid).ok_or(Kind::InvalidFolder);
    let mut parts = path.split('/');
    let mut next = || parts.next().ok_or(Kind::OtherFolder);
    let (spc, db) = match next()? {
        "global" => (Oid::GLOBAL_TABLESPACE, Oid::INVALID),
        "base" => (Oid::DEFAULT_TABLESPACE, folder(next()?)?),
        "pg_tblspc" => {
            let spc = folder(next()?)?;
            if spc == Oid::DEFAULT_TABLESPACE || spc == Oid::GLOBAL_TABLESPACE {
                return Err(Kind::InvalidFolder);
            }
            if next()? != TABLESPACE_VERSION_DIRECTORY {
                return Err(Kind::OtherVersion);
            }
            (spc, folder(next()?)?)
        }
        _ => return Err(Kind::OtherFolder),
    };
    let name = next()?;
    if parts.next().is_some() {
        return Err(Kind::OtherFolder);
    }
    let (rel, fork, segment) = parse_file_name(name)?;
    Ok(RelFile { tag: RelTag { spc, db, rel, fork }, segment })
}

fn parse_file_name(name: &str) -> Result<(Oid, ForkNumber, u32), FilePathErrorKind> {
    use FilePathErrorKind as Kind;
    if is_temporary(name) {
        return Err(Kind::Temporary);
    }
    if !name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Kind::OtherFile);
    }
    let (name, segment) = match name.split_once('.') {
        None => (name, 0),
        Some((name, segment)) => (name, parse_number(segment).ok_or(Kind::InvalidSegment)?),
    };
    if segment > u32::MAX / BLOCKS_PER_SEGMENT {
        return Err(Kind::InvalidSegment);
    }
    let (rel, fork) = match name.split_once('_') {
        None => (name, ForkNumber::Main),
        Some((rel, "fsm")) => (rel, ForkNumber::Fsm),
        Some((rel, "vm")) => (rel, ForkNumber::Vm),
        Some((rel, "init")) => (rel, ForkNumber::Init),
        Some(_) => return Err(Kind::InvalidFork),
    };
    Ok((Oid(parse_number(rel).ok_or(Kind::InvalidRelation)?), fork, segment))
}

/// Whether the name begins like a temporary relation's: `t`, the session's number, `_`, a number.
fn is_temporary(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix('t').and_then(|rest| rest.split_once('_')).is_some_and(|(session, rel)| {
        digits(session) && rel.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// A number above zero as PostgreSQL writes it: digits only, no zeros in front.
fn parse_number(text: &str) -> Option<u32> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    canonical.then(|| text.parse().ok()).flatten()
}

/// Path, relative to the data directory, of the file that holds gibibyte `segment` of a fork.
pub fn relation_path(tag: RelTag, segment: u32) -> String {
    let mut path = database_path(tag.spc, tag.db);
    // Writing to a String does not fail.
    let _ = write!(path, "/{}", tag.rel);
    if tag.fork != ForkNumber::Main {
        let _ = write!(path, "_{}", tag.fork);
    }
    if segment > 0 {
        let _ = write!(path, ".{segment}");
    }
    path
}

/// Path, relative to the data directory, of the folder that holds a database's relations in a
/// tablespace. The database does not matter for the tablespace of shared relations.
pub fn database_path(spc: Oid, db: Oid) -> String {
    match spc {
        Oid::GLOBAL_TABLESPACE => "global".to_owned(),
        Oid::DEFAULT_TABLESPACE => format!("base/{db}"),
        spc => format!("pg_tblspc/{spc}/{TABLESPACE_VERSION_DIRECTORY}/{db}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn kind(path: &str) -> FilePathErrorKind {
        parse_relation_path(path).unwrap_err().kind
    }

    #[test]
    fn paths_of_every_shape() {
        let tag = |spc, db, rel, fork| RelTag { spc: Oid(spc), db: Oid(db), rel: Oid(rel), fork };
        for (path, expected, segment) in [
            ("global/1262", tag(1664, 0, 1262, ForkNumber::Main), 0),
            ("global/1262_fsm", tag(1664, 0, 1262, ForkNumber::Fsm), 0),
            ("base/5/16384", tag(1663, 5, 16384, ForkNumber::Main), 0),
            ("base/5/16384_vm.3", tag(1663, 5, 16384, ForkNumber::Vm), 3),
            ("base/5/4294967295_init", tag(1663, 5, u32::MAX, ForkNumber::Init), 0),
            ("pg_tblspc/99/PG_15_202209061/5/7.1", tag(99, 5, 7, ForkNumber::Main), 1),
        ] {
            let file = parse_relation_path(path).unwrap();
            assert_eq!((file.tag, file.segment), (expected, segment));
            assert_eq!(file.path(), path);
        }
    }

    #[test]
    fn other_paths_say_what_they_are() {
        use FilePathErrorKind::*;
        for (path, expected) in [
            ("", OtherFolder),
            ("pg_wal/000000010000000000000001", OtherFolder),
            ("base", OtherFolder),
            ("base/5", OtherFolder),
            ("base/5/6/7", OtherFolder),
            ("/base/5/6", OtherFolder),
            ("base/pgsql_tmp/pgsql_tmp1.0", InvalidFolder),
            ("base/05/1", InvalidFolder),
            ("pg_tblspc/1663/PG_15_202209061/5/7", InvalidFolder),
            ("pg_tblspc/99/PG_14_202107181/5/7", OtherVersion),
            ("base/5/t3_16384", Temporary),
            ("base/5/t3_16384_fsm", Temporary),
            ("base/5/PG_VERSION", OtherFile),
            ("base/5/pg_filenode.map", OtherFile),
            ("global/pg_control", OtherFile),
            ("base/5/", OtherFile),
            ("base/5/t_1", OtherFile),
            ("base/5/4294967296", InvalidRelation),
            ("base/5/0", InvalidRelation),
            ("base/5/12x", InvalidRelation),
            ("base/5/12_toast", InvalidFork),
            ("base/5/12_main", InvalidFork),
            ("base/5/12_", InvalidFork),
            ("base/5/12.0", InvalidSegment),
            ("base/5/12.", InvalidSegment),
            ("base/5/12.32768", InvalidSegment),
            ("base/5/12.1_fsm", InvalidSegment),
        ] {
            assert_eq!(kind(path), expected, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_round_trips(path in "(base|global|pg_tblspc)(/[0-9t_.a-z]{0,8}){1,3}") {
            if let Ok(file) = parse_relation_path(&path) {
                prop_assert_eq!(file.path(), path);
            }
        }

        #[test]
        fn every_file_has_a_path_that_says_so(
            spc in 1u32.., db in 1u32.., rel in 1u32.., fork in 0u8..4, segment in 0u32..32768,
        ) {
            let (spc, db) = if spc == 1664 { (spc, 0) } else { (spc, db) };
            let tag = RelTag {
                spc: Oid(spc),
                db: Oid(db),
                rel: Oid(rel),
                fork: ForkNumber::from_u8(fork).unwrap(),
            };
            let file = RelFile { tag, segment };
            prop_assert_eq!(parse_relation_path(&file.path()), Ok(file));
        }
    }
}
