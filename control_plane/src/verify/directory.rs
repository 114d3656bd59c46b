//! The stock server's data directory: which relations there are, and how long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, parse_relation_path, relation_path};
use postgres_formats::{BLCKSZ, ForkNumber, RelFileLocator, RelTag};

use super::report::{Difference, Permitted, Verification};
use super::{is_logged, pages};
use crate::error::{Error, IoContext, Result};

/// Folders whose files hold no relations and are compared as they are.
const FILE_FOLDERS: [&str; 4] =
    ["pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_twophase"];
/// Files of a database's folder that are compared as they are.
const DATABASE_FILES: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// What is in it.
pub(super) struct DataDirectory {
    pgdata: PathBuf,
    /// Size in blocks of every fork that has a file.
    pub relations: BTreeMap<RelTag, u32>,
    /// Paths of other files that a base backup has, too.
    pub files: BTreeSet<String>,
}

impl DataDirectory {
    pub fn scan(pgdata: &Path) -> Result<DataDirectory> {
        let mut found = DataDirectory {
            pgdata: pgdata.to_owned(),
            relations: BTreeMap::new(),
            files: BTreeSet::new(),
        };
        for folder in FILE_FOLDERS {
            found
                .files
                .extend(entries(pgdata, folder)?.into_iter().map(|n| format!("{folder}/{n}")));
        }
        found.scan_database("global")?;
        for database in entries(pgdata, "base")? {
            found.scan_database(&format!("base/{database}"))?;
        }
        for tablespace in entries(pgdata, "pg_tblspc")? {
            for version in entries(pgdata, &format!("pg_tblspc/{tablespace}"))? {
                let folder = format!("pg_tblspc/{tablespace}/{version}");
                for database in entries(pgdata, &folder)? {
                    found.scan_database(&format!("{folder}/{database}"))?;
                }
            }
        }
        Ok(found)
    }

    fn scan_database(&mut self, folder: &str) -> Result<()> {
        for name in entries(&self.pgdata, folder)? {
            let path = format!("{folder}/{name}");
            if DATABASE_FILES.contains(&name.as_str()) {
                self.files.insert(path);
            } else if let Ok(file) = parse_relation_path(&path) {
                let absolute = self.pgdata.join(&path);
                let bytes = fs::metadata(&absolute).io("look at", &absolute)?.len();
                let blocks = u32::try_from(bytes / BLCKSZ as u64).unwrap_or(u32::MAX);
                *self.relations.entry(file.tag).or_default() += blocks;
            }
        }
        Ok(())
    }

    /// Reads one of the other files.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let absolute = self.pgdata.join(path);
        fs::read(&absolute).io("read", &absolute)
    }

    /// Reads `count` consecutive pages that lie in one file.
    pub fn read_pages(&self, rel: RelTag, first: u32, count: u32) -> Result<Vec<u8>> {
        let path = self.pgdata.join(relation_path(rel, first / BLOCKS_PER_SEGMENT));
        let mut bytes = vec![0; count as usize * BLCKSZ];
        let offset = u64::from(first % BLOCKS_PER_SEGMENT) * BLCKSZ as u64;
        let file = File::open(&path).io("open", &path)?;
        file.read_exact_at(&mut bytes, offset).io("read", &path)?;
        Ok(bytes)
    }
}

fn entries(pgdata: &Path, folder: &str) -> Result<Vec<String>> {
    let path = pgdata.join(folder);
    let listed = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.io("list", &path)?,
    };
    let mut names = Vec::new();
    for entry in listed {
        let name = entry.io("list", &path)?.file_name();
        let name = name.into_string().map_err(|name| Error::Corrupt {
            path: path.join(name),
            detail: "no file of PostgreSQL's is called so".to_owned(),
        })?;
        names.push(name);
    }
    Ok(names)
}

/// Compares which relations there are and their sizes. Gives those whose pages can be compared, each
/// with how many both have.
pub(super) fn compare_relations(
    ours: &BTreeMap<RelTag, u32>,
    theirs: &DataDirectory,
    report: &mut Verification,
) -> Result<Vec<(RelTag, u32)>> {
    let all: BTreeSet<RelTag> = ours.keys().chain(theirs.relations.keys()).copied().collect();
    let unlogged: BTreeSet<RelFileLocator> =
        all.iter().filter(|rel| rel.fork == ForkNumber::Init).map(|rel| rel.locator()).collect();
    let mut common = Vec::new();
    for rel in all {
        if !is_logged(rel.fork, unlogged.contains(&rel.locator())) {
            continue;
        }
        report.relations.compared += 1;
        let (our, their) = (ours.get(&rel).copied(), theirs.relations.get(&rel).copied());
        let (our_size, their_size) = (our.unwrap_or(0), their.unwrap_or(0));
        let both = our_size.min(their_size);
        if both > 0 {
            common.push((rel, both));
        }
        if our == their {
            continue;
        }
        if rel.fork == ForkNumber::Vm
            && our_size < their_size
            && pages::has_no_bit(theirs, rel, our_size, their_size)?
        {
            report.permit(Permitted::EmptyVisibilityMap, u64::from(their_size - our_size));
            continue;
        }
        report.relations.different += 1;
        report.describe(match (our, their) {
            (Some(our), Some(their)) => Difference::of_relation(
                "size",
                rel,
                format!("{our} pages, and {their} on the stock server"),
            ),
            (Some(our), None) => Difference::of_relation(
                "relation",
                rel,
                format!("{our} pages, and it is not on the stock server"),
            ),
            _ => Difference::of_relation(
                "relation",
                rel,
                format!("missing, and it has {their_size} pages on the stock server"),
            ),
        });
    }
    Ok(common)
}
