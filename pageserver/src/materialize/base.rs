//! The base image as plain files.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, database_path, relation_path};
use postgres_formats::replication_origins::REPLICATION_ORIGINS_PATH;
use postgres_formats::{BlockNumber, Oid};

use super::{MaterializeError, io_error};
use crate::basebackup::layout::{DIRECTORIES, PG_VERSION, files_of, tablespace_dirs};
use crate::basebackup::with_checksum;
use crate::layer::image::{ImageLayer, SmallFile};
use crate::object::{DbTag, ObjectTag};

const BUFFER_BYTES: usize = 1 << 18;

/// Writes all of the data directory but WAL and `pg_control`.
pub(super) fn write(image: &ImageLayer, into: &Path) -> Result<(), MaterializeError> {
    for directory in DIRECTORIES {
        make_folder(&into.join(directory))?;
    }
    put(&into.join("PG_VERSION"), PG_VERSION)?;
    for (name, bytes) in image.small_files() {
        match name {
            SmallFile::Database(tag) => make_database(into, tag)?,
            SmallFile::RelMap(tag) => {
                let dir = into.join(database_path(tag.spc, tag.db));
                put(&dir.join("pg_filenode.map"), bytes)?;
                if tag.spc != Oid::GLOBAL_TABLESPACE {
                    put(&dir.join("PG_VERSION"), PG_VERSION)?;
                }
            }
            SmallFile::Tablespace(spc) => make_tablespace(into, spc)?,
            SmallFile::TwoPhase(xid) => {
                put(&into.join(format!("pg_twophase/{xid:08X}")), &with_checksum(bytes))?;
            }
            SmallFile::ReplicationOrigins => put(&into.join(REPLICATION_ORIGINS_PATH), bytes)?,
        }
    }
    for (object, nblocks) in image.objects() {
        match object {
            ObjectTag::Rel(rel) => {
                for (file, blocks) in files_of(BlockNumber(nblocks)) {
                    let path = into.join(relation_path(rel, file));
                    write_pages(image, object, file * BLOCKS_PER_SEGMENT, blocks, &path)?;
                }
            }
            ObjectTag::Slru { kind, segment } => {
                let path = into.join(kind.segment_path(segment));
                write_pages(image, object, 0, nblocks, &path)?;
            }
        }
    }
    Ok(())
}

/// Small files come in the order of their kinds, so that folders are there before what is in them.
fn make_database(into: &Path, tag: DbTag) -> Result<(), MaterializeError> {
    make_tablespace(into, tag.spc)?;
    make_folder(&into.join(database_path(tag.spc, tag.db)))
}

fn make_tablespace(into: &Path, spc: Oid) -> Result<(), MaterializeError> {
    for directory in tablespace_dirs(spc) {
        make_folder(&into.join(directory))?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), MaterializeError> {
    fs::create_dir_all(path).map_err(io_error(path))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), MaterializeError> {
    fs::write(path, bytes).map_err(io_error(path))
}

fn write_pages(
    image: &ImageLayer,
    object: ObjectTag,
    first: u32,
    count: u32,
    path: &Path,
) -> Result<(), MaterializeError> {
    let file = File::create(path).map_err(io_error(path))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    for block in first..first + count {
        if let Some(page) = image.page(object, BlockNumber(block))? {
            out.write_all(&page[..]).map_err(io_error(path))?;
        }
    }
    out.flush().map_err(io_error(path))
}
