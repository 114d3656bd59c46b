//! Lays out a data directory from a base backup: small files as they come, relation files as
//! sparse stubs with a presence map each.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use postgres::{Client, NoTls};
use postgres_formats::BLCKSZ;

use super::layout::Layout;
use super::{Compute, settings};
use crate::control::causes;
use crate::error::{Error, IoContext, Result};

/// First entry of the archive: a line `PATH BYTES` for each relation file to be made as a stub.
const RELATIONS_ENTRY: &str = "zenith.relations";
/// Largest size of a relation's segment file in bytes (`RELSEG_SIZE` pages).
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const COPY_BYTES: usize = 1 << 16;

/// Fetches the base backup of `compute` from the page server at `connstr` and lays it out.
pub(super) fn base_backup(connstr: &str, compute: &Compute, layout: &Layout) -> Result<()> {
    let failed = |error: postgres::Error| match error.as_db_error() {
        Some(refused) => Error::PageServer {
            sqlstate: refused.code().code().to_owned(),
            message: refused.message().to_owned(),
        },
        None => Error::Connection { what: "page server".to_owned(), detail: causes(&error) },
    };
    let mut client = Client::connect(connstr, NoTls).map_err(failed)?;
    let command = format!("basebackup {} {}", compute.timeline(), compute.base_lsn());
    let stream = client.copy_out(&command).map_err(failed)?;
    unpack(BufReader::with_capacity(COPY_BYTES, stream), layout)
}

/// Lays out the archive that `stream` gives.
fn unpack(stream: impl Read, layout: &Layout) -> Result<()> {
    let received = |error: io::Error| Error::Connection {
        what: "page server".to_owned(),
        detail: format!("the base backup is damaged or was cut off: {error}"),
    };
    let mut tree = Tree { pgdata: layout.pgdata(), made: HashSet::new() };
    let mut presence = Tree { pgdata: layout.presence(), made: HashSet::new() };
    let mut archive = tar::Archive::new(stream);
    let mut control_file_seen = false;
    for entry in archive.entries().map_err(received)? {
        let mut entry = entry.map_err(received)?;
        let path = entry.path().map_err(received)?.into_owned();
        if path == Path::new(RELATIONS_ENTRY) {
            make_stubs(BufReader::new(entry), &mut tree, &mut presence)?;
            continue;
        }
        let path = checked(&path)?;
        match entry.header().entry_type() {
            tar::EntryType::Directory => tree.folder(&path)?,
            // A tablespace's folder: the compute keeps its files within its own directory.
            tar::EntryType::Symlink => tree.folder(&path)?,
            tar::EntryType::Regular => {
                if settings::REPLACED_FILES.iter().any(|name| path == Path::new(name)) {
                    continue;
                }
                control_file_seen = path == Path::new("global/pg_control");
                let (file, path) = tree.file(&path)?;
                copy_sparsely(&mut entry, file).io("write", &path)?;
            }
            other => {
                return Err(received(io::Error::other(format!(
                    "it holds {} of an unexpected kind {other:?}",
                    path.display()
                ))));
            }
        }
    }
    // It comes last, so that what was cut off cannot be taken for whole.
    if !control_file_seen {
        return Err(received(io::Error::other("it does not end with global/pg_control")));
    }
    Ok(())
}

fn make_stubs(lines: impl BufRead, tree: &mut Tree, presence: &mut Tree) -> Result<()> {
    for line in lines.lines() {
        let line = line.map_err(|error| Error::Connection {
            what: "page server".to_owned(),
            detail: format!("the base backup was cut off: {error}"),
        })?;
        let stub = parse_stub(&line)?;
        let (file, path) = tree.file(&stub.path)?;
        file.set_len(stub.bytes).io("set the size of", &path)?;
        presence.folder_of(&stub.path)?;
    }
    Ok(())
}

#[derive(PartialEq, Eq, Debug)]
struct Stub {
    path: PathBuf,
    bytes: u64,
}

fn parse_stub(line: &str) -> Result<Stub> {
    let stub = line.rsplit_once(' ').and_then(|(path, bytes)| {
        let bytes: u64 = bytes.parse().ok()?;
        let whole = bytes <= SEGMENT_BYTES_MAX && bytes % BLCKSZ as u64 == 0;
        whole.then(|| Stub { path: PathBuf::from(path), bytes })
    });
    let stub = stub.ok_or_else(|| Error::Connection {
        what: "page server".to_owned(),
        detail: format!("the base backup lists a relation file as {line:?}"),
    })?;
    checked(&stub.path)?;
    Ok(stub)
}

/// The path without a leading `./`, if it stays within the data directory.
fn checked(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => {
                return Err(Error::Connection {
                    what: "page server".to_owned(),
                    detail: format!("the base backup names the path {}", path.display()),
                });
            }
        }
    }
    Ok(clean)
}

/// A tree of folders and files that is being made, which remembers the folders that it has made.
struct Tree {
    pgdata: PathBuf,
    made: HashSet<PathBuf>,
}

impl Tree {
    fn folder(&mut self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || self.made.contains(path) {
            return Ok(());
        }
        let whole = self.pgdata.join(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&whole).io("create", &whole)?;
        self.made.insert(path.to_owned());
        Ok(())
    }

    fn folder_of(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |folder| self.folder(folder))
    }

    fn file(&mut self, path: &Path) -> Result<(File, PathBuf)> {
        self.folder_of(path)?;
        let whole = self.pgdata.join(path);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&whole)
            .io("create", &whole)?;
        Ok((file, whole))
    }
}

/// Copies without writing zeros: most of a WAL segment is empty.
fn copy_sparsely(from: &mut impl Read, mut to: File) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut length: u64 = 0;
    loop {
        let count = read_full(from, &mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        if bytes.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(i64::try_from(count).unwrap_or(i64::MAX)))?;
        } else {
            to.write_all(bytes)?;
        }
        length += count as u64;
    }
    to.set_len(length)
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
