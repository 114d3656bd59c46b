//! The base image as plain files.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use postgres_formats::relpath::{BLOCKS_PER_SEGMENT, database_path, relation_path};
use postgres_formats::replication_origins::{self, REPLICATION_ORIGINS_PATH};
use postgres_formats::{BlockNumber, Oid, PageImage};

use super::lineage::{BaseImage, Lineage};
use super::{MaterializeError, io_error};
use crate::basebackup::layout::{DIRECTORIES, PG_VERSION, files_of, tablespace_dirs};
use crate::basebackup::with_checksum;
use crate::layer::image::{ImageLayer, LayerError, SmallFile};
use crate::layer::imaged::{ImagedLayer, Things};
use crate::layer::source::LayerFiles;
use crate::object::{DbTag, ObjectPage, ObjectTag};

const BUFFER_BYTES: usize = 1 << 18;

/// Blocks of a layer that are kept in memory.
const CACHE_BYTES: u64 = 4 << 20;

/// A base image of either kind.
pub(super) enum Image {
    First(ImageLayer),
    Layer(Box<ImagedLayer>),
}

impl Image {
    pub fn open(lineage: &Lineage) -> Result<Image, LayerError> {
        Ok(match &lineage.image {
            BaseImage::First(path) => Image::First(ImageLayer::open(path)?),
            BaseImage::Layer(path, timeline) => {
                let (size, files) = (lineage.cluster.segment_size, LayerFiles::new(1, CACHE_BYTES));
                Image::Layer(Box::new(ImagedLayer::open(path, *timeline, size, &files)?))
            }
        })
    }

    fn things(&self) -> Result<Things, LayerError> {
        let image = match self {
            Image::First(image) => image,
            Image::Layer(image) => return image.things(),
        };
        let mut things = Things { objects: image.objects().collect(), ..Things::default() };
        for (name, bytes) in image.small_files() {
            match name {
                SmallFile::Database(tag) => drop(things.databases.insert(tag)),
                SmallFile::RelMap(tag) => drop(things.rel_maps.insert(tag, bytes.clone())),
                SmallFile::Tablespace(spc) => drop(things.tablespaces.insert(spc, bytes.clone())),
                SmallFile::TwoPhase(xid) => drop(things.two_phase.insert(xid, bytes.clone())),
                SmallFile::ReplicationOrigins => {
                    things.origins = image.replication_origins().clone();
                }
            }
        }
        Ok(things)
    }

    fn page(&self, object: ObjectTag, block: BlockNumber) -> Result<PageImage, LayerError> {
        let page = match self {
            Image::First(image) => image.page(object, block)?,
            Image::Layer(image) => image.page(ObjectPage { object, block })?,
        };
        Ok(page.unwrap_or_else(PageImage::zeroed))
    }
}

/// Writes all of the data directory but WAL and `pg_control`.
pub(super) fn write(image: &Image, into: &Path) -> Result<(), MaterializeError> {
    let things = image.things()?;
    for directory in DIRECTORIES {
        make_folder(&into.join(directory))?;
    }
    put(&into.join("PG_VERSION"), PG_VERSION)?;
    for tag in things.databases {
        make_database(into, tag)?;
    }
    for (tag, map) in things.rel_maps {
        let dir = into.join(database_path(tag.spc, tag.db));
        put(&dir.join("pg_filenode.map"), &map)?;
        if tag.spc != Oid::GLOBAL_TABLESPACE {
            put(&dir.join("PG_VERSION"), PG_VERSION)?;
        }
    }
    for spc in things.tablespaces.into_keys() {
        make_tablespace(into, spc)?;
    }
    for (xid, state) in things.two_phase {
        put(&into.join(format!("pg_twophase/{xid:08X}")), &with_checksum(&state))?;
    }
    if !things.origins.is_empty() {
        let origins = replication_origins::encode(&things.origins);
        put(&into.join(REPLICATION_ORIGINS_PATH), &origins)?;
    }
    for (object, nblocks) in things.objects {
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
    image: &Image,
    object: ObjectTag,
    first: u32,
    count: u32,
    path: &Path,
) -> Result<(), MaterializeError> {
    let file = File::create(path).map_err(io_error(path))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    for block in first..first + count {
        let page = image.page(object, BlockNumber(block))?;
        out.write_all(&page[..]).map_err(io_error(path))?;
    }
    out.flush().map_err(io_error(path))
}
