//! Lays out a data directory from a base backup: small files as they come, files of relations and
//! SLRUs as sparse stubs with a presence map each.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use lazyfiles::presence::{BootId, Map, PresenceError};
use postgres_formats::BLCKSZ;

use super::layout::Layout;
use super::{Compute, settings};
use crate::control::Control;
use crate::error::{Error, IoContext, Result};

/// First entry of the archive: a line `PATH BYTES` for each file to be made as a stub.
const RELATIONS_ENTRY: &str = "zenith.relations";
/// Begins the names of entries that hold one page of a stub each: `zenith.pages/STUB/PAGE`.
const PAGES_FOLDER: &str = "zenith.pages";
/// Largest size of a relation's segment file in bytes (`RELSEG_SIZE` pages).
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const COPY_BYTES: usize = 1 << 16;

/// Fetches the base backup of `compute` from the page server at `connstr` and lays it out.
pub(super) fn base_backup(connstr: &str, compute: &Compute, layout: &Layout) -> Result<()> {
    let command = format!("basebackup {} {} stubs", compute.timeline(), compute.base_lsn());
    Control::connect(connstr)?.copy_out(&command, |stream| {
        unpack_base_backup(stream, &layout.pgdata(), &layout.presence())
    })
}

/// Lays out the archive that `stream` gives in the empty folders `pgdata` and `presence`; the one
/// gets the files, the other the presence maps of those that are stubs.
///
/// # Errors
/// The archive is damaged, cut off, or would reach outside the folders; or a file cannot be written.
/// What has been written up to there stays.
pub fn unpack_base_backup(stream: impl Read, pgdata: &Path, presence: &Path) -> Result<()> {
    let received = |error: io::Error| Error::Connection {
        what: "page server".to_owned(),
        detail: format!("the base backup is damaged or was cut off: {error}"),
    };
    let mut tree = Tree::new(pgdata.to_owned());
    let mut presence = Tree::new(presence.to_owned());
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
        if let Ok(page) = path.strip_prefix(PAGES_FOLDER) {
            let mut bytes = Vec::new();
            // A page too long is found to be one without reading all of it.
            entry.take(BLCKSZ as u64 + 1).read_to_end(&mut bytes).map_err(received)?;
            fill_in(page, &bytes, &tree.root, &presence.root)?;
            continue;
        }
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
        // An empty file lacks nothing, so it is an ordinary one, without a map. Making files is what takes the
        // time here.
        if stub.blocks == 0 {
            continue;
        }
        file.set_len(stub.bytes).io("set the size of", &path)?;
        presence.folder_of(&stub.path)?;
        let map = presence.root.join(&stub.path);
        lazyfiles::presence::create(&map, stub.blocks).map_err(|error| Error::Io {
            action: "create",
            path: map,
            source: io::Error::other(error),
        })?;
    }
    Ok(())
}

/// Puts a page into its stub. `path` is the stub's and, as its last part, the page's number.
fn fill_in(path: &Path, page: &[u8], pgdata: &Path, presence: &Path) -> Result<()> {
    let senseless = || Error::Connection {
        what: "page server".to_owned(),
        detail: format!("the base backup has a page {}", path.display()),
    };
    let number = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let stub = path.parent().filter(|stub| !stub.as_os_str().is_empty());
    let (Some(stub), Some(number)) = (stub, number) else { return Err(senseless()) };
    let map_path = presence.join(stub);
    let unusable = |error: PresenceError| Error::Io {
        action: "open",
        path: map_path.clone(),
        source: io::Error::other(error),
    };
    let boot = BootId::current().io("read", "the boot id")?;
    let map = Map::open(&map_path, boot).map_err(unusable)?;
    let map = map.filter(|map| number < map.nblocks() && page.len() == BLCKSZ);
    let map = map.ok_or_else(senseless)?;
    let path = pgdata.join(stub);
    let file = File::options().write(true).open(&path).io("open", &path)?;
    file.write_all_at(page, u64::from(number) * BLCKSZ as u64).io("write", &path)?;
    map.mark_present(number..number + 1);
    // Both will be durable before they are relied on, like the rest of what is laid out here.
    map.equalize_without_sync();
    Ok(())
}

#[derive(PartialEq, Eq, Debug)]
struct Stub {
    path: PathBuf,
    bytes: u64,
    blocks: u32,
}

fn parse_stub(line: &str) -> Result<Stub> {
    let stub = line.rsplit_once(' ').and_then(|(path, bytes)| {
        let bytes: u64 = bytes.parse().ok()?;
        let page = BLCKSZ as u64;
        let blocks = u32::try_from(bytes / page).ok()?;
        let whole = bytes <= SEGMENT_BYTES_MAX && bytes.is_multiple_of(page);
        whole.then(|| Stub { path: PathBuf::from(path), bytes, blocks })
    });
    let stub = stub.ok_or_else(|| Error::Connection {
        what: "page server".to_owned(),
        detail: format!("the base backup lists a file as {line:?}"),
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
    root: PathBuf,
    made: HashSet<PathBuf>,
}

impl Tree {
    fn new(root: PathBuf) -> Tree {
        Tree { root, made: HashSet::new() }
    }

    fn folder(&mut self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || self.made.contains(path) {
            return Ok(());
        }
        let whole = self.root.join(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&whole).io("create", &whole)?;
        self.made.insert(path.to_owned());
        Ok(())
    }

    fn folder_of(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |folder| self.folder(folder))
    }

    fn file(&mut self, path: &Path) -> Result<(File, PathBuf)> {
        self.folder_of(path)?;
        let whole = self.root.join(path);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            // Not `append_data`, which refuses the paths that we must refuse ourselves.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(entries: &[(&str, &[u8])]) -> (tempfile::TempDir, Layout, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path());
        fs::create_dir(layout.pgdata()).unwrap();
        fs::create_dir(layout.presence()).unwrap();
        let bytes = archive(entries);
        let result = unpack_base_backup(bytes.as_slice(), &layout.pgdata(), &layout.presence());
        (dir, layout, result)
    }

    const CONTROL: (&str, &[u8]) = ("global/pg_control", b"control");

    #[test]
    fn stubs_are_sparse_and_have_maps() {
        let list = b"base/5/1259 81920\nbase/5/1259_vm 8192\nglobal/1262 0\n";
        let mut wal = vec![0; 1 << 20];
        wal[0] = 1;
        let (_dir, layout, result) = unpacked(&[
            ("zenith.relations", list),
            ("./PG_VERSION", b"15\n"),
            ("postgresql.conf", b"theirs"),
            ("pg_wal/000000010000000000000001", &wal),
            CONTROL,
        ]);
        result.unwrap();
        let meta = |path: &str| fs::metadata(layout.pgdata().join(path)).unwrap();
        assert_eq!((meta("base/5/1259").len(), meta("base/5/1259").blocks()), (81920, 0));
        assert_eq!(meta("global/1262").len(), 0);
        assert!(layout.presence().join("base/5/1259_vm").is_file());
        assert!(!layout.presence().join("global/1262").exists());
        assert!(!layout.pgdata().join("postgresql.conf").exists());
        assert_eq!(fs::read(layout.pgdata().join("PG_VERSION")).unwrap(), b"15\n");
        let segment = layout.pgdata().join("pg_wal/000000010000000000000001");
        assert_eq!(fs::read(segment).unwrap(), wal);
        assert!(meta("pg_wal/000000010000000000000001").blocks() < 1 << 10);
    }

    #[test]
    fn pages_of_stubs_are_filled_in() {
        let page = [7; BLCKSZ];
        let list = b"pg_xact/0001 32768\n";
        let entry = "zenith.pages/pg_xact/0001/2";
        let (_dir, layout, result) =
            unpacked(&[("zenith.relations", list), (entry, &page), CONTROL]);
        result.unwrap();
        let bytes = fs::read(layout.pgdata().join("pg_xact/0001")).unwrap();
        assert_eq!(bytes, [&[0; 2 * BLCKSZ][..], &page, &[0; BLCKSZ]].concat());
        let map = layout.presence().join("pg_xact/0001");
        let map = Map::open(&map, BootId::current().unwrap()).unwrap().unwrap();
        assert_eq!((map.first_absent_run(0..9), map.first_absent_run(2..9)), (0..2, 3..4));
        assert!(map.undurable().is_none());

        for (bad, page) in [
            ("zenith.pages/pg_xact/0001/4", &page[..]),
            ("zenith.pages/pg_xact/0002/0", &page),
            ("zenith.pages/pg_xact/0001/x", &page),
            ("zenith.pages/0", &page),
            ("zenith.pages/pg_xact/0001/0", &page[1..]),
        ] {
            let (_dir, _, result) = unpacked(&[("zenith.relations", list), (bad, page), CONTROL]);
            assert!(matches!(result, Err(Error::Connection { .. })), "{bad}: {result:?}");
        }
    }

    #[test]
    fn an_archive_without_its_end_is_refused() {
        let (_dir, _, result) = unpacked(&[("PG_VERSION", b"15\n")]);
        assert!(matches!(result, Err(Error::Connection { .. })));
        let (_dir, _, result) = unpacked(&[CONTROL, ("PG_VERSION", b"15\n")]);
        assert!(matches!(result, Err(Error::Connection { .. })));
    }

    #[test]
    fn nothing_is_written_outside() {
        for path in ["../escape", "/tmp/escape", "base/../../escape"] {
            let (dir, _, result) = unpacked(&[(path, b"x"), CONTROL]);
            assert!(matches!(result, Err(Error::Connection { .. })), "{path}");
            assert!(!dir.path().join("escape").exists());
            let line = format!("{path} 8192");
            let (_dir, _, result) = unpacked(&[("zenith.relations", line.as_bytes()), CONTROL]);
            assert!(result.is_err(), "{path}");
        }
    }

    #[test]
    fn lists_of_relations() {
        let stub = parse_stub("base/5/1259.1 1073741824").unwrap();
        assert_eq!((stub.bytes, stub.blocks), (1 << 30, 131_072));
        for bad in ["", "base/5/1", "base/5/1 -1", "base/5/1 100", "base/5/1 1073750016", "x y"] {
            assert!(parse_stub(bad).is_err(), "{bad:?}");
        }
    }
}
