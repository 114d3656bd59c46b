//! Loading a cleanly stopped data directory as the beginning of a timeline.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::control_file::{ClusterState, ControlFileError};
use postgres_formats::relpath::{
    BLOCKS_PER_SEGMENT, TABLESPACE_VERSION_DIRECTORY, parse_relation_path,
};
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH};
use postgres_formats::slru::SlruKind;
use postgres_formats::wal::{Reassembled, WalDecodeError, reassemble};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, Oid, PageImage, page_checksum};

use super::image::{ImageLayerWriter, SmallFile};
use crate::cluster::Cluster;
use crate::object::{DbTag, ObjectTag};

/// Size in bytes of `pg_filenode.map` (PostgreSQL 15, `utils/cache/relmapper.c`).
const RELMAP_SIZE: usize = 512;
/// Bytes of the CRC-32C that ends a file in `pg_twophase`.
const TWO_PHASE_CRC_SIZE: usize = 4;

/// Why a data directory cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The operating system's answer.
    #[error("{path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `pg_control` cannot be used, for one because of another major version.
    #[error("{path}")]
    ControlFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ControlFileError,
    },
    /// The server runs or has crashed.
    #[error(
        "{0} was not shut down cleanly: start PostgreSQL on it once more and stop it with \
         pg_ctl stop -m fast"
    )]
    NotShutDown(PathBuf),
    /// The last checkpoint's record is not where `pg_control` says.
    #[error("the last checkpoint of {pgdata} at {lsn} cannot be read")]
    Checkpoint {
        /// The data directory.
        pgdata: PathBuf,
        /// Where the record should be.
        lsn: Lsn,
        /// Why it cannot be read, if it is not simply missing.
        source: Option<WalDecodeError>,
    },
    /// A file is not as PostgreSQL leaves it.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

/// A data directory, looked at but not yet loaded.
pub struct DataDirectory {
    path: PathBuf,
    /// The bytes of `pg_control`.
    pub control_file: Vec<u8>,
    /// What is in it.
    pub cluster: Cluster,
    /// Where the next record would begin.
    pub end: Lsn,
    /// End of the checkpoint record; differs from `end` at a page boundary.
    record_end: Lsn,
    /// The checkpoint state at `end`.
    pub state: CheckpointState,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ImportError + '_ {
    |source| ImportError::Io { path: path.to_owned(), source }
}

impl DataDirectory {
    /// Looks at the data directory at `path`.
    ///
    /// # Errors
    /// See `ImportError`.
    pub fn open(path: &Path) -> Result<DataDirectory, ImportError> {
        let control_path = path.join("global/pg_control");
        let control_file = fs::read(&control_path).map_err(io_error(&control_path))?;
        let cluster = Cluster::from_control_file(&control_file)
            .map_err(|source| ImportError::ControlFile { path: control_path, source })?;
        if cluster.control_file.state != ClusterState::ShutDown {
            return Err(ImportError::NotShutDown(path.to_owned()));
        }
        let at = cluster.control_file.check_point;
        let record_end = checkpoint_end(path, &cluster, at)?;
        let state = CheckpointState {
            checkpoint: cluster.control_file.check_point_copy,
            parameters: cluster.control_file.parameters,
            prev_record: at,
        };
        let end = record_end.normalized(cluster.segment_size);
        let path = path.to_owned();
        Ok(DataDirectory { path, control_file, cluster, end, record_end, state })
    }

    /// The beginning of the last WAL segment, up to the end of the last record: what has to be
    /// there for the segment to be complete when more follows.
    ///
    /// # Errors
    /// `Io`.
    pub fn last_segment(&self) -> Result<(Lsn, Vec<u8>), ImportError> {
        let size = self.cluster.segment_size;
        let segment = self.cluster.control_file.check_point.segment(size);
        let path = self.path.join("pg_wal").join(segment.file_name(self.cluster.tli, size));
        let length = self.record_end.distance_from(segment.start(size)).unwrap_or(0);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(io_error(&path))?;
        file.take(length).read_to_end(&mut bytes).map_err(io_error(&path))?;
        Ok((segment.start(size), bytes))
    }

    /// Writes everything into an image layer at `layer`.
    ///
    /// # Errors
    /// See `ImportError`; the layer then does not exist.
    pub fn load(&self, layer: &Path) -> Result<(), ImportError> {
        let mut out = ImageLayerWriter::create(layer, self.end).map_err(io_error(layer))?;
        self.load_database(&mut out, "global", DbTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid(0) })?;
        for (name, _) in self.entries("base")? {
            let Ok(db) = name.parse() else { continue };
            let tag = DbTag { spc: Oid::DEFAULT_TABLESPACE, db: Oid(db) };
            out.add_small_file(SmallFile::Database(tag), Bytes::new());
            self.load_database(&mut out, &format!("base/{db}"), tag)?;
        }
        for (name, path) in self.entries("pg_tblspc")? {
            if let Ok(spc) = name.parse() {
                self.load_tablespace(&mut out, Oid(spc), &path)?;
            }
        }
        for kind in SlruKind::ALL {
            self.load_slru(&mut out, kind)?;
        }
        self.load_two_phase(&mut out)?;
        self.load_replication_origins(&mut out)?;
        out.finish().map_err(io_error(layer))
    }

    /// The names and paths in one of its folders, in order.
    fn entries(&self, folder: &str) -> Result<Vec<(String, PathBuf)>, ImportError> {
        let path = self.path.join(folder);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&path).map_err(io_error(&path))? {
            let entry = entry.map_err(io_error(&path))?;
            entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
        entries.sort();
        Ok(entries)
    }

    /// Loads what is behind the link, or in the folder, at `path`.
    fn load_tablespace(
        &self,
        out: &mut ImageLayerWriter,
        spc: Oid,
        path: &Path,
    ) -> Result<(), ImportError> {
        let location = match fs::read_link(path) {
            Ok(location) => location.into_os_string().into_vec(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Vec::new(),
            Err(error) => return Err(io_error(path)(error)),
        };
        out.add_small_file(SmallFile::Tablespace(spc), location.into());
        // That it is not there would mean that a disk is missing.
        let folder = format!("pg_tblspc/{spc}/{TABLESPACE_VERSION_DIRECTORY}");
        for (name, _) in self.entries(&folder)? {
            let Ok(db) = name.parse() else { continue };
            let tag = DbTag { spc, db: Oid(db) };
            out.add_small_file(SmallFile::Database(tag), Bytes::new());
            self.load_database(out, &format!("{folder}/{db}"), tag)?;
        }
        Ok(())
    }

    fn load_database(
        &self,
        out: &mut ImageLayerWriter,
        folder: &str,
        tag: DbTag,
    ) -> Result<(), ImportError> {
        let mut segments = Vec::new();
        for (name, path) in self.entries(folder)? {
            if name == "pg_filenode.map" {
                let map = fs::read(&path).map_err(io_error(&path))?;
                if map.len() != RELMAP_SIZE {
                    let what = format!("it has {} bytes, not {RELMAP_SIZE}", map.len());
                    return Err(ImportError::Damaged { path, what });
                }
                out.add_small_file(SmallFile::RelMap(tag), map.into());
            } else if let Ok(file) = parse_relation_path(&format!("{folder}/{name}")) {
                segments.push((file.tag, file.segment, path));
            }
            // Anything else belongs to the server that was stopped: caches, temporary files.
        }
        segments.sort();
        let mut current = None;
        let mut block = 0;
        for (rel, segment, path) in segments {
            let object = ObjectTag::Rel(rel);
            if current != Some(rel) {
                out.begin_object(object);
                (current, block) = (Some(rel), 0);
            }
            if block != segment * BLOCKS_PER_SEGMENT {
                let what = "the segment before it is missing or not full".to_owned();
                return Err(ImportError::Damaged { path, what });
            }
            load_pages(&path, |page| {
                let at = BlockNumber(block);
                block += 1;
                if self.cluster.checksums
                    && !page.is_new()
                    && page_checksum::verify(page, at).is_err()
                {
                    let what = format!("the checksum of block {at} does not hold");
                    return Err(ImportError::Damaged { path: path.clone(), what });
                }
                out.add_page(object, page).map_err(io_error(&path))
            })?;
        }
        Ok(())
    }

    fn load_slru(&self, out: &mut ImageLayerWriter, kind: SlruKind) -> Result<(), ImportError> {
        for (name, path) in self.entries(kind.dir())? {
            let Ok(segment) = u32::from_str_radix(&name, 16) else { continue };
            let object = ObjectTag::Slru { kind, segment };
            out.begin_object(object);
            load_pages(&path, |page| out.add_page(object, page).map_err(io_error(&path)))?;
        }
        Ok(())
    }

    fn load_two_phase(&self, out: &mut ImageLayerWriter) -> Result<(), ImportError> {
        for (name, path) in self.entries("pg_twophase")? {
            let Ok(xid) = u32::from_str_radix(&name, 16) else { continue };
            let mut state = fs::read(&path).map_err(io_error(&path))?;
            let length = state.len().checked_sub(TWO_PHASE_CRC_SIZE);
            let what = "it is too short".to_owned();
            state.truncate(length.ok_or(ImportError::Damaged { path, what })?);
            out.add_small_file(SmallFile::TwoPhase(xid), state.into());
        }
        Ok(())
    }

    fn load_replication_origins(&self, out: &mut ImageLayerWriter) -> Result<(), ImportError> {
        let path = self.path.join(REPLICATION_ORIGINS_PATH);
        let bytes = match fs::read(&path) {
            // Without replication slots the server does not write it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(io_error(&path))?,
        };
        if let Err(error) = replication_origins::decode(&bytes) {
            return Err(ImportError::Damaged { path, what: error.to_string() });
        }
        out.add_small_file(SmallFile::ReplicationOrigins, bytes.into());
        Ok(())
    }
}

/// Gives every page of the file at `path` to `take`.
fn load_pages(
    path: &Path,
    mut take: impl FnMut(&PageImage) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let length = file.metadata().map_err(io_error(path))?.len();
    if length % BLCKSZ as u64 != 0 {
        let what = format!("its length of {length} bytes is not a whole number of pages");
        return Err(ImportError::Damaged { path: path.to_owned(), what });
    }
    let mut page = PageImage::zeroed();
    for _ in 0..length / BLCKSZ as u64 {
        file.read_exact(&mut page[..]).map_err(io_error(path))?;
        take(&page)?;
    }
    Ok(())
}

/// The end of the checkpoint record at `lsn`.
fn checkpoint_end(pgdata: &Path, cluster: &Cluster, lsn: Lsn) -> Result<Lsn, ImportError> {
    let size = cluster.segment_size;
    let missing = |source| ImportError::Checkpoint { pgdata: pgdata.to_owned(), lsn, source };
    let segment = lsn.segment(size);
    let path = pgdata.join("pg_wal").join(segment.file_name(cluster.tli, size));
    let bytes = fs::read(&path).map_err(io_error(&path))?;
    let offset = usize::try_from(lsn.segment_offset(size)).map_err(|_| missing(None))?;
    let raw = bytes.get(offset..).ok_or_else(|| missing(None))?;
    match reassemble(lsn, raw, size).map_err(|source| missing(Some(source)))? {
        Reassembled::Complete(record) => Ok(record.end),
        // A shutdown checkpoint that goes over into a segment not looked at here.
        Reassembled::NeedMore(_) => Err(missing(None)),
    }
}
