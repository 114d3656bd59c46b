//! The stock server's data directory: which relations there are, and how long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lazyfiles::presence::{BootId, Map};
use postgres_formats::relpath::{
    BLOCKS_PER_SEGMENT, TABLESPACE_VERSION_DIRECTORY, parse_relation_path, relation_path,
};
use postgres_formats::replication_origins::REPLICATION_ORIGINS_PATH;
use postgres_formats::{BLCKSZ, ForkNumber, RelFileLocator, RelTag};

use super::report::{Difference, Permitted, Verification};
use super::undecided::{Counter, Subject};
use super::{is_logged, pages};
use crate::error::{Error, IoContext, Result};

/// Folders whose files hold no relations and are compared as they are.
const FILE_FOLDERS: [&str; 5] =
    ["pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts", "pg_twophase"];
/// The folder of tablespaces.
pub(super) const TABLESPACES: &str = "pg_tblspc";
/// Files of a database's folder that are compared as they are.
pub(super) const DATABASE_FILES: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// What is in it.
pub(super) struct DataDirectory {
    pgdata: PathBuf,
    /// Folder of the presence maps, where some files are stubs.
    presence: Option<PathBuf>,
    /// Size in blocks of every fork that has a file.
    pub relations: BTreeMap<RelTag, u32>,
    /// Paths of other files that a base backup has, too.
    pub files: BTreeSet<String>,
    /// Paths of the tablespaces' folders.
    pub tablespaces: BTreeSet<String>,
}

impl DataDirectory {
    pub fn scan(pgdata: &Path) -> Result<DataDirectory> {
        DataDirectory::scan_with(pgdata, None)
    }

    /// One whose files are stubs as the maps in `presence` say.
    pub fn scan_stubs(pgdata: &Path, presence: &Path) -> Result<DataDirectory> {
        DataDirectory::scan_with(pgdata, Some(presence.to_owned()))
    }

    fn scan_with(pgdata: &Path, presence: Option<PathBuf>) -> Result<DataDirectory> {
        let mut found = DataDirectory {
            pgdata: pgdata.to_owned(),
            presence,
            relations: BTreeMap::new(),
            files: BTreeSet::new(),
            tablespaces: BTreeSet::new(),
        };
        for folder in FILE_FOLDERS {
            found
                .files
                .extend(entries(pgdata, folder)?.into_iter().map(|n| format!("{folder}/{n}")));
        }
        // Not there on a server that can have no replication slots.
        if pgdata.join(REPLICATION_ORIGINS_PATH).exists() {
            found.files.insert(REPLICATION_ORIGINS_PATH.to_owned());
        }
        found.scan_database("global")?;
        for database in entries(pgdata, "base")? {
            found.scan_database(&format!("base/{database}"))?;
        }
        for tablespace in entries(pgdata, TABLESPACES)? {
            let tablespace = format!("{TABLESPACES}/{tablespace}");
            let folder = format!("{tablespace}/{TABLESPACE_VERSION_DIRECTORY}");
            for database in entries(pgdata, &folder)? {
                found.scan_database(&format!("{folder}/{database}"))?;
            }
            found.tablespaces.insert(tablespace);
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

    /// Whether it is that of a compute.
    pub fn has_stubs(&self) -> bool {
        self.presence.is_some()
    }

    /// Reads one of the other files.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let absolute = self.pgdata.join(path);
        fs::read(&absolute).io("read", &absolute)
    }

    /// The same, with pages that are not there taken from `ours`; and how many those are.
    pub fn read_file_over(&self, path: &str, ours: &[u8]) -> Result<(Vec<u8>, u64)> {
        let mut bytes = self.read_file(path)?;
        let mut absent = 0;
        if let Some(map) = self.map(Path::new(path))? {
            for (block, page) in (0..).zip(bytes.chunks_mut(BLCKSZ)) {
                let from = block as usize * BLCKSZ;
                if !map.is_present(block)
                    && let Some(ours) = ours.get(from..from + page.len())
                {
                    page.copy_from_slice(ours);
                    absent += 1;
                }
            }
        }
        Ok((bytes, absent))
    }

    /// Which of `count` consecutive pages that lie in one file are there; `None`: all.
    pub fn present_pages(&self, rel: RelTag, first: u32, count: u32) -> Result<Option<Vec<bool>>> {
        let map = self.map(Path::new(&relation_path(rel, first / BLOCKS_PER_SEGMENT)))?;
        let first = first % BLOCKS_PER_SEGMENT;
        Ok(map.map(|map| (first..first + count).map(|block| map.is_present(block)).collect()))
    }

    fn map(&self, path: &Path) -> Result<Option<Map>> {
        let Some(presence) = &self.presence else { return Ok(None) };
        let path = presence.join(path);
        let boot = BootId::current().io("read", &path)?;
        Map::open(&path, boot)
            .map_err(|error| Error::Corrupt { path, detail: crate::control::causes(&error) })
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

/// Names of what is in a folder; nothing if there is none.
pub(super) fn entries(pgdata: &Path, folder: &str) -> Result<Vec<String>> {
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
        if theirs.presence.is_some()
            && our.is_some()
            && rel.fork == ForkNumber::Main
            && our_size < their_size
            && pages::are_zeros(theirs, rel, our_size, their_size)?
        {
            report.permit(Permitted::ZeroPagesAtEnd, u64::from(their_size - our_size));
            continue;
        }
        let difference = match (our, their) {
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
        };
        report.differs(Counter::Relations, Subject::Relation(rel.locator()), difference);
    }
    Ok(common)
}
