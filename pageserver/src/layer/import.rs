//! Loading a cleanly stopped data directory as the beginning of a timeline.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use layers::BuildError;
use postgres_formats::checkpoint::CheckpointState;
use postgres_formats::control_file::{ClusterState, ControlFileError};
use postgres_formats::relpath::{
    BLOCKS_PER_SEGMENT, TABLESPACE_VERSION_DIRECTORY, parse_relation_path,
};
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH};
use postgres_formats::slru::SlruKind;
use postgres_formats::wal::{Reassembled, WalDecodeError, reassemble};
use postgres_formats::{BLCKSZ, BlockNumber, Lsn, Oid, PageImage, TimelineId, page_checksum};

use super::file::make_file;
use super::imaged::{ImageWriter, Things};
use crate::cluster::Cluster;
use crate::object::{DbTag, ObjectPage, ObjectTag};

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;
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
    /// The layer cannot be written.
    #[error("layer {path}")]
    Layer {
        /// The layer.
        path: PathBuf,
        /// The cause.
        source: BuildError,
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

    /// Writes everything into an image layer of `timeline` at `layer`.
    ///
    /// # Errors
    /// See `ImportError`; the layer then does not exist.
    pub fn load(&self, timeline: TimelineId, layer: &Path) -> Result<(), ImportError> {
        let found = self.survey()?;
        let failed = |error| match error {
            BuildError::Io { source, .. } => io_error(layer)(source),
            other => ImportError::Layer { path: layer.to_owned(), source: other },
        };
        make_file(
            layer,
            |error| io_error(layer)(error),
            |out| {
                let mut out =
                    ImageWriter::begin(out, timeline, self.end, &found.things).map_err(failed)?;
                for (object, files) in &found.files {
                    let mut block = BlockNumber(0);
                    for file in files {
                        self.load_pages(*object, block, file, |page, image| {
                            out.page(page, image).map_err(failed)
                        })?;
                        block.0 += file.pages;
                    }
                }
                out.finish().map_err(failed)
            },
        )
        .map(drop)
    }

    /// What there is, pages aside.
    fn survey(&self) -> Result<Survey, ImportError> {
        let mut found = Survey::default();
        found.things.state = self.state;
        let shared = DbTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid::INVALID };
        self.survey_folder(&mut found, "global", shared)?;
        for (name, _) in self.entries("base")? {
            let Ok(db) = name.parse() else { continue };
            let tag = DbTag { spc: Oid::DEFAULT_TABLESPACE, db: Oid(db) };
            found.things.databases.insert(tag);
            self.survey_folder(&mut found, &format!("base/{db}"), tag)?;
        }
        for (name, path) in self.entries("pg_tblspc")? {
            if let Ok(spc) = name.parse() {
                self.survey_tablespace(&mut found, Oid(spc), &path)?;
            }
        }
        for kind in SlruKind::ALL {
            for (name, path) in self.entries(kind.dir())? {
                let Ok(segment) = u32::from_str_radix(&name, 16) else { continue };
                found.add(ObjectTag::Slru { kind, segment }, path)?;
            }
        }
        self.read_two_phase(&mut found.things)?;
        self.read_replication_origins(&mut found.things)?;
        Ok(found)
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

    /// Looks at what is behind the link, or in the folder, at `path`.
    fn survey_tablespace(
        &self,
        found: &mut Survey,
        spc: Oid,
        path: &Path,
    ) -> Result<(), ImportError> {
        let location = match fs::read_link(path) {
            Ok(location) => location.into_os_string().into_vec(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Vec::new(),
            Err(error) => return Err(io_error(path)(error)),
        };
        found.things.tablespaces.insert(spc, location.into());
        // That it is not there would mean that a disk is missing.
        let folder = format!("pg_tblspc/{spc}/{TABLESPACE_VERSION_DIRECTORY}");
        for (name, _) in self.entries(&folder)? {
            let Ok(db) = name.parse() else { continue };
            let tag = DbTag { spc, db: Oid(db) };
            found.things.databases.insert(tag);
            self.survey_folder(found, &format!("{folder}/{db}"), tag)?;
        }
        Ok(())
    }

    fn survey_folder(
        &self,
        found: &mut Survey,
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
                found.things.rel_maps.insert(tag, map.into());
            } else if let Ok(file) = parse_relation_path(&format!("{folder}/{name}")) {
                segments.push((file.tag, file.segment, path));
            }
            // Anything else belongs to the server that was stopped: caches, temporary files.
        }
        segments.sort();
        for (rel, segment, path) in segments {
            let object = ObjectTag::Rel(rel);
            let before = found.things.objects.get(&object).copied().unwrap_or(0);
            if u64::from(segment) * u64::from(BLOCKS_PER_SEGMENT) != u64::from(before) {
                let what = "the segment before it is missing or not full".to_owned();
                return Err(ImportError::Damaged { path, what });
            }
            found.add(object, path)?;
        }
        Ok(())
    }

    fn read_two_phase(&self, things: &mut Things) -> Result<(), ImportError> {
        for (name, path) in self.entries("pg_twophase")? {
            let Ok(xid) = u32::from_str_radix(&name, 16) else { continue };
            let mut state = fs::read(&path).map_err(io_error(&path))?;
            let length = state.len().checked_sub(TWO_PHASE_CRC_SIZE);
            let what = "it is too short".to_owned();
            state.truncate(length.ok_or(ImportError::Damaged { path, what })?);
            things.two_phase.insert(xid, state.into());
        }
        Ok(())
    }

    fn read_replication_origins(&self, things: &mut Things) -> Result<(), ImportError> {
        let path = self.path.join(REPLICATION_ORIGINS_PATH);
        let bytes = match fs::read(&path) {
            // Without replication slots the server does not write it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(io_error(&path))?,
        };
        things.origins = replication_origins::decode(&bytes)
            .map_err(|error| ImportError::Damaged { path, what: error.to_string() })?;
        Ok(())
    }

    /// Gives every page of a file of `object`, of which `first` is the first, to `take`.
    fn load_pages(
        &self,
        object: ObjectTag,
        first: BlockNumber,
        PageFile { path, pages }: &PageFile,
        mut take: impl FnMut(ObjectPage, &PageImage) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let file = File::open(path).map_err(io_error(path))?;
        let mut file = BufReader::with_capacity(READ_BYTES, file);
        let mut image = PageImage::zeroed();
        for block in (first.0..first.0 + pages).map(BlockNumber) {
            file.read_exact(&mut image[..]).map_err(io_error(path))?;
            if self.cluster.checksums
                && matches!(object, ObjectTag::Rel(_))
                && !image.is_new()
                && page_checksum::verify(&image, block).is_err()
            {
                let what = format!("the checksum of block {block} does not hold");
                return Err(ImportError::Damaged { path: path.clone(), what });
            }
            take(ObjectPage { object, block }, &image)?;
        }
        Ok(())
    }
}

/// A file of pages.
struct PageFile {
    path: PathBuf,
    pages: u32,
}

/// What is in a data directory.
#[derive(Default)]
struct Survey {
    things: Things,
    /// The files of each object, in order.
    files: BTreeMap<ObjectTag, Vec<PageFile>>,
}

impl Survey {
    /// Adds the next file of an object.
    fn add(&mut self, object: ObjectTag, path: PathBuf) -> Result<(), ImportError> {
        let length = fs::metadata(&path).map_err(io_error(&path))?.len();
        let pages = u32::try_from(length / BLCKSZ as u64).ok();
        let Some(pages) = pages.filter(|_| length % BLCKSZ as u64 == 0) else {
            let what = format!("its length of {length} bytes is not a whole number of pages");
            return Err(ImportError::Damaged { path, what });
        };
        *self.things.objects.entry(object).or_default() += pages;
        self.files.entry(object).or_default().push(PageFile { path, pages });
        Ok(())
    }
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
