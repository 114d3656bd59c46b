//! Which paths name files of our data directory that may be stubs.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::segment_file::SegmentFile;

/// The data directory of the compute, and the folder of its presence maps.
#[derive(Debug)]
pub struct DataDirectory {
    /// The names under which absolute paths may speak of it, each with a slash at the end.
    prefixes: [Vec<u8>; 2],
    /// Device and inode, by which the working directory is recognised whatever its name.
    identity: (u64, u64),
    folder: PathBuf,
    presence: PathBuf,
}

/// A file of a relation or an SLRU in the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentPath {
    /// What it holds.
    pub file: SegmentFile,
    /// Its path in the data directory.
    pub relative: String,
}

impl DataDirectory {
    /// The data directory `pgdata`, which must exist, with presence maps below `presence`.
    pub fn new(pgdata: &Path, presence: &Path) -> io::Result<DataDirectory> {
        let metadata = fs::metadata(pgdata)?;
        let prefix = |path: &Path| {
            let name = path.as_os_str().as_bytes();
            let name = name.strip_suffix(b"/").unwrap_or(name);
            [name, b"/"].concat()
        };
        Ok(DataDirectory {
            prefixes: [prefix(pgdata), prefix(&fs::canonicalize(pgdata)?)],
            identity: (metadata.dev(), metadata.ino()),
            folder: pgdata.to_owned(),
            presence: presence.to_owned(),
        })
    }

    /// The file of a relation or an SLRU that `path` names, `None` for any other file anywhere.
    ///
    /// A relative path counts if the working directory is the data directory, as it is in every
    /// server process. The file need not exist.
    pub fn segment(&self, path: &[u8]) -> Option<SegmentPath> {
        let absolute = path.first() == Some(&b'/');
        let mut inside = if absolute {
            self.prefixes.iter().find_map(|prefix| path.strip_prefix(&prefix[..]))?
        } else {
            path
        };
        while let Some(rest) = inside.strip_prefix(b"./") {
            inside = rest;
        }
        // The cheap question comes first: most files that a server opens are no relations.
        if !SegmentFile::may_be_at(inside) {
            return None;
        }
        let inside = std::str::from_utf8(inside).ok()?;
        let file = SegmentFile::parse(inside)?;
        if !absolute {
            let here = fs::metadata(".").ok()?;
            if (here.dev(), here.ino()) != self.identity {
                return None;
            }
        }
        Some(SegmentPath { file, relative: inside.to_owned() })
    }

    /// The data directory itself, absolute.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The absolute path of such a file.
    pub fn path(&self, file: &SegmentPath) -> PathBuf {
        self.folder.join(&file.relative)
    }

    /// Where the presence map of such a file is, if it has one.
    pub fn presence_map(&self, file: &SegmentPath) -> PathBuf {
        self.presence.join(&file.relative)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_segments_of_this_data_directory_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let pgdata = dir.path().join("pgdata");
        let link = dir.path().join("link");
        fs::create_dir(&pgdata).unwrap();
        std::os::unix::fs::symlink(&pgdata, &link).unwrap();
        let data = DataDirectory::new(&link, Path::new("/presence")).unwrap();

        let absolute = |folder: &Path, rest: &str| {
            let path = folder.join(rest);
            data.segment(path.as_os_str().as_bytes()).map(|found| found.relative)
        };
        for folder in [&link, &pgdata] {
            assert_eq!(absolute(folder, "base/5/16384.1"), Some("base/5/16384.1".to_owned()));
            assert_eq!(absolute(folder, "./global/1262"), Some("global/1262".to_owned()));
            assert_eq!(absolute(folder, "pg_xact/0001"), Some("pg_xact/0001".to_owned()));
            let tablespace = "pg_tblspc/16400/PG_15_202209061";
            let inside = format!("{tablespace}/5/16384_fsm.1");
            assert_eq!(absolute(folder, &inside), Some(inside));
            for other in ["pgsql_tmp/pgsql_tmp7.0", "5/t3_16384", "5/PG_VERSION"] {
                assert_eq!(absolute(folder, &format!("{tablespace}/{other}")), None);
            }
            for other in ["base/5/pg_filenode.map", "base/5/t3_16384", "pg_wal/1", "base/5/"] {
                assert_eq!(absolute(folder, other), None);
            }
        }
        assert_eq!(absolute(dir.path(), "pgdata2/base/5/16384"), None);
        // The working directory of the test is another one.
        assert_eq!(data.segment(b"base/5/16384"), None);
        assert_eq!(data.segment(b""), None);

        let found = data.segment(link.join("base/5/16384_vm").as_os_str().as_bytes()).unwrap();
        assert_eq!(data.presence_map(&found), Path::new("/presence/base/5/16384_vm"));
    }
}
