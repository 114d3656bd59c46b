//! `ImageLayer`: every page of a database cluster at one LSN, in one immutable file.
//!
//! Bytes, integers little-endian:
//!
//! | part | content |
//! |---|---|
//! | header, 64 bytes | magic `ZENITHIM`, format version u32, zero u32, LSN u64, offset of the table u64, length of the table u64, CRC-32C of the table u32, CRC-32C of the header's first 44 bytes u32, zeros |
//! | pages | one slot per page: the 8192 bytes, CRC-32C of them u32 |
//! | table | the objects in order: tag (17 bytes), size in pages u32, index of its first slot u64; then the small files: kind u8, three u32 of name, length u32, bytes |
//!
//! An object's pages lie in consecutive slots. The file gets its name only when it is complete.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use durable_files::File;
use postgres_formats::replication_origins::{self, ReplicationOrigins};
use postgres_formats::slru::SlruKind;
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelTag};

use crate::object::{DbTag, ObjectTag};

const MAGIC: &[u8; 8] = b"ZENITHIM";
/// 2 added tablespaces to the small files; 3 commit timestamps to the objects, and replication
/// origins to the small files.
const FORMAT_VERSION: u32 = 3;
const HEADER_SIZE: usize = 64;
const HEADER_CHECKED: usize = 44;
const SLOT_SIZE: u64 = BLCKSZ as u64 + 4;
/// More than the table of ten million relations; a longer one is damage, not data.
const TABLE_BYTES_MAX: u64 = 1 << 32;

/// Why an image layer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The operating system's answer.
    #[error("reading layer {path}")]
    Io {
        /// The layer.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The bytes are not those that were written.
    #[error("layer {path} is damaged: {what}")]
    Corrupt {
        /// The layer.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// Written by a later release.
    #[error("layer {path} has format {found}, this release reads up to {FORMAT_VERSION}")]
    NewerFormat {
        /// The layer.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
}

/// A small file that is kept whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SmallFile {
    /// A database's folder exists; the content is empty.
    Database(DbTag),
    /// `pg_filenode.map` of a database.
    RelMap(DbTag),
    /// State of a prepared transaction, by its xid, without the file's checksum.
    TwoPhase(u32),
    /// A tablespace of the users' own exists; the content is the folder that its server keeps it
    /// in, empty for one inside the data directory.
    Tablespace(Oid),
    /// `pg_logical/replorigin_checkpoint`, checked when the layer is opened.
    ReplicationOrigins,
}

/// Where an object's pages lie.
#[derive(Clone, Copy, Debug)]
struct Extent {
    nblocks: u32,
    first_slot: u64,
}

/// An open image layer.
pub struct ImageLayer {
    path: PathBuf,
    file: File,
    lsn: Lsn,
    objects: BTreeMap<ObjectTag, Extent>,
    small_files: BTreeMap<SmallFile, Bytes>,
    replication_origins: ReplicationOrigins,
}

impl ImageLayer {
    /// Opens the layer at `path` and reads its table.
    ///
    /// # Errors
    /// `Corrupt` where a checksum or a bound does not hold, `NewerFormat`, or `Io`.
    pub fn open(path: &Path) -> Result<ImageLayer, LayerError> {
        let io = |source| LayerError::Io { path: path.to_owned(), source };
        let corrupt = |what: &str| LayerError::Corrupt { path: path.to_owned(), what: what.into() };
        let file = File::open(path).map_err(io)?;
        let mut header = [0; HEADER_SIZE];
        file.read_exact_at(&mut header, 0).map_err(io)?;
        let mut fields = &header[..];
        if fields.copy_to_bytes(8)[..] != MAGIC[..] {
            return Err(corrupt("it does not begin as an image layer does"));
        }
        let found = fields.get_u32_le();
        if found > FORMAT_VERSION {
            return Err(LayerError::NewerFormat { path: path.to_owned(), found });
        }
        fields.advance(4);
        let lsn = Lsn::new(fields.get_u64_le());
        let table_at = fields.get_u64_le();
        let table_len = fields.get_u64_le();
        let table_crc = fields.get_u32_le();
        if fields.get_u32_le() != crc32c::crc32c(&header[..HEADER_CHECKED]) {
            return Err(corrupt("checksum of the header"));
        }
        let len = file.length().map_err(io)?;
        if table_len > TABLE_BYTES_MAX || table_at.checked_add(table_len) != Some(len) {
            return Err(corrupt("the table does not end where the file ends"));
        }
        let mut table = vec![0; table_len as usize];
        file.read_exact_at(&mut table, table_at).map_err(io)?;
        if crc32c::crc32c(&table) != table_crc {
            return Err(corrupt("checksum of the table"));
        }
        let slots = (table_at - HEADER_SIZE as u64) / SLOT_SIZE;
        let (objects, small_files) =
            decode_table(table.into(), slots).ok_or_else(|| corrupt("a bound in the table"))?;
        let replication_origins = match small_files.get(&SmallFile::ReplicationOrigins) {
            Some(bytes) => replication_origins::decode(bytes)
                .map_err(|error| corrupt(&format!("replication origins: {error}")))?,
            None => ReplicationOrigins::new(),
        };
        let path = path.to_owned();
        Ok(ImageLayer { path, file, lsn, objects, small_files, replication_origins })
    }

    /// The LSN at which the pages were so.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The object's size in pages, `None` if there is no such object.
    pub fn size(&self, object: ObjectTag) -> Option<u32> {
        self.objects.get(&object).map(|extent| extent.nblocks)
    }

    /// All objects with their sizes in pages.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectTag, u32)> + '_ {
        self.objects.iter().map(|(object, extent)| (*object, extent.nblocks))
    }

    /// All small files.
    pub fn small_files(&self) -> impl Iterator<Item = (SmallFile, &Bytes)> + '_ {
        self.small_files.iter().map(|(name, bytes)| (*name, bytes))
    }

    /// A small file's content.
    pub fn small_file(&self, name: SmallFile) -> Option<&Bytes> {
        self.small_files.get(&name)
    }

    /// How far the logs of replication origins had been applied.
    pub fn replication_origins(&self) -> &ReplicationOrigins {
        &self.replication_origins
    }

    /// Reads a page; `None` if the object is not there or ends before it.
    ///
    /// # Errors
    /// `Corrupt` if the page's checksum does not hold, or `Io`.
    pub fn page(
        &self,
        object: ObjectTag,
        block: BlockNumber,
    ) -> Result<Option<PageImage>, LayerError> {
        let Some(extent) = self.objects.get(&object).filter(|extent| block.0 < extent.nblocks)
        else {
            return Ok(None);
        };
        let slot = extent.first_slot + u64::from(block.0);
        let mut page = PageImage::zeroed();
        let mut bytes = [0; SLOT_SIZE as usize];
        self.file
            .read_exact_at(&mut bytes, HEADER_SIZE as u64 + slot * SLOT_SIZE)
            .map_err(|source| LayerError::Io { path: self.path.clone(), source })?;
        let (content, crc) = bytes.split_at(BLCKSZ);
        if crc32c::crc32c(content).to_le_bytes()[..] != *crc {
            return Err(LayerError::Corrupt {
                path: self.path.clone(),
                what: format!("checksum of block {block} of {object}"),
            });
        }
        page.copy_from_slice(content);
        Ok(Some(page))
    }
}

/// Writes an image layer, object after object, in any order.
pub struct ImageLayerWriter {
    path: PathBuf,
    beside: PathBuf,
    out: BufWriter<File>,
    lsn: Lsn,
    slots: u64,
    objects: BTreeMap<ObjectTag, Extent>,
    small_files: BTreeMap<SmallFile, Bytes>,
}

impl ImageLayerWriter {
    /// Begins a layer that will be named `path` when finished.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn create(path: &Path, lsn: Lsn) -> io::Result<ImageLayerWriter> {
        let beside = path.with_extension("new");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&beside)?);
        out.write_all(&[0; HEADER_SIZE])?;
        Ok(ImageLayerWriter {
            path: path.to_owned(),
            beside,
            out,
            lsn,
            slots: 0,
            objects: BTreeMap::new(),
            small_files: BTreeMap::new(),
        })
    }

    /// Begins an object; the pages that follow are its own, from block 0 on.
    pub fn begin_object(&mut self, object: ObjectTag) {
        self.objects.insert(object, Extent { nblocks: 0, first_slot: self.slots });
    }

    /// Adds the next page of `object`, which must be the one begun last.
    ///
    /// # Errors
    /// Whatever the file system gives.
    pub fn add_page(&mut self, object: ObjectTag, page: &[u8; BLCKSZ]) -> io::Result<()> {
        let extent = self
            .objects
            .get_mut(&object)
            .filter(|extent| extent.first_slot + u64::from(extent.nblocks) == self.slots);
        let extent = extent.ok_or_else(|| io::Error::other("page of an object not begun"))?;
        self.out.write_all(page)?;
        self.out.write_all(&crc32c::crc32c(page).to_le_bytes())?;
        extent.nblocks += 1;
        self.slots += 1;
        Ok(())
    }

    /// Adds a small file.
    pub fn add_small_file(&mut self, name: SmallFile, bytes: Bytes) {
        self.small_files.insert(name, bytes);
    }

    /// Completes the layer, makes it durable and gives it its name.
    ///
    /// # Errors
    /// Whatever the file system gives; the name is then not taken.
    pub fn finish(mut self) -> io::Result<()> {
        let table = encode_table(&self.objects, &self.small_files);
        let table_at = HEADER_SIZE as u64 + self.slots * SLOT_SIZE;
        self.out.write_all(&table)?;
        let mut header = Vec::with_capacity(HEADER_SIZE);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&self.lsn.as_u64().to_le_bytes());
        header.extend_from_slice(&table_at.to_le_bytes());
        header.extend_from_slice(&(table.len() as u64).to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(&table).to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        durable_files::rename(&self.beside, &self.path)
    }
}

fn encode_table(
    objects: &BTreeMap<ObjectTag, Extent>,
    small_files: &BTreeMap<SmallFile, Bytes>,
) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(objects.len() as u32).to_le_bytes());
    for (object, extent) in objects {
        let (kind, a, b, c) = match *object {
            ObjectTag::Rel(rel) => (rel.fork as u8, rel.spc.0, rel.db.0, rel.rel.0),
            ObjectTag::Slru { kind, segment } => (SLRU_KINDS_FROM + kind as u8, segment, 0, 0),
        };
        out.push(kind);
        for n in [a, b, c, extent.nblocks] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(&extent.first_slot.to_le_bytes());
    }
    out.extend_from_slice(&(small_files.len() as u32).to_le_bytes());
    for (name, bytes) in small_files {
        let (kind, a, b) = match *name {
            SmallFile::Database(tag) => (0, tag.spc.0, tag.db.0),
            SmallFile::RelMap(tag) => (1, tag.spc.0, tag.db.0),
            SmallFile::TwoPhase(xid) => (2, xid, 0),
            SmallFile::Tablespace(spc) => (3, spc.0, 0),
            SmallFile::ReplicationOrigins => (4, 0, 0),
        };
        out.push(kind);
        for n in [a, b, bytes.len() as u32] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(bytes);
    }
    out
}

/// Kinds of object below this number are the forks of relations.
const SLRU_KINDS_FROM: u8 = 16;

type Table = (BTreeMap<ObjectTag, Extent>, BTreeMap<SmallFile, Bytes>);

fn decode_table(mut table: Bytes, slots: u64) -> Option<Table> {
    let mut objects = BTreeMap::new();
    for _ in 0..table.try_get_u32_le().ok()? {
        let kind = table.try_get_u8().ok()?;
        let mut next = || table.try_get_u32_le().ok();
        let (a, b, c, nblocks) = (next()?, next()?, next()?, next()?);
        let first_slot = table.try_get_u64_le().ok()?;
        if first_slot.checked_add(u64::from(nblocks))? > slots {
            return None;
        }
        let object = match kind.checked_sub(SLRU_KINDS_FROM) {
            None => ObjectTag::Rel(RelTag {
                spc: Oid(a),
                db: Oid(b),
                rel: Oid(c),
                fork: ForkNumber::from_u8(kind)?,
            }),
            Some(number) => ObjectTag::Slru { kind: SlruKind::from_u8(number)?, segment: a },
        };
        objects.insert(object, Extent { nblocks, first_slot });
    }
    let mut small_files = BTreeMap::new();
    for _ in 0..table.try_get_u32_le().ok()? {
        let kind = table.try_get_u8().ok()?;
        let mut next = || table.try_get_u32_le().ok();
        let (a, b, len) = (next()?, next()?, next()?);
        let len = usize::try_from(len).ok().filter(|len| *len <= table.remaining())?;
        let name = match kind {
            0 => SmallFile::Database(DbTag { spc: Oid(a), db: Oid(b) }),
            1 => SmallFile::RelMap(DbTag { spc: Oid(a), db: Oid(b) }),
            2 => SmallFile::TwoPhase(a),
            3 => SmallFile::Tablespace(Oid(a)),
            4 => SmallFile::ReplicationOrigins,
            _ => return None,
        };
        small_files.insert(name, table.split_to(len));
    }
    (!table.has_remaining()).then_some((objects, small_files))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rel(n: u32) -> ObjectTag {
        ObjectTag::Rel(RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(n), fork: ForkNumber::Main })
    }

    fn write_sample(path: &Path) {
        let mut writer = ImageLayerWriter::create(path, Lsn::new(0x1234)).unwrap();
        writer.begin_object(rel(2));
        writer.add_page(rel(2), &[2; BLCKSZ]).unwrap();
        writer.add_page(rel(2), &[3; BLCKSZ]).unwrap();
        writer.begin_object(rel(1));
        let slru = ObjectTag::Slru { kind: SlruKind::Clog, segment: 7 };
        writer.begin_object(slru);
        writer.add_page(slru, &[4; BLCKSZ]).unwrap();
        assert!(writer.add_page(rel(2), &[0; BLCKSZ]).is_err());
        let map = SmallFile::RelMap(DbTag { spc: Oid(1663), db: Oid(5) });
        writer.add_small_file(map, Bytes::from_static(b"map"));
        writer.add_small_file(SmallFile::TwoPhase(9), Bytes::from_static(b"prepared"));
        writer.add_small_file(SmallFile::Tablespace(Oid(7)), Bytes::from_static(b"/there"));
        let origins = replication_origins::encode(&[(3, Lsn::new(4))].into());
        writer.add_small_file(SmallFile::ReplicationOrigins, origins.into());
        assert!(!path.exists());
        writer.finish().unwrap();
    }

    #[test]
    fn reads_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        write_sample(&path);
        let layer = ImageLayer::open(&path).unwrap();
        assert_eq!(layer.lsn(), Lsn::new(0x1234));
        assert_eq!(layer.size(rel(1)), Some(0));
        assert_eq!(layer.size(rel(3)), None);
        assert_eq!(layer.page(rel(2), BlockNumber(1)).unwrap().unwrap()[..], [3; BLCKSZ]);
        assert!(layer.page(rel(2), BlockNumber(2)).unwrap().is_none());
        assert_eq!(layer.small_file(SmallFile::TwoPhase(9)).unwrap()[..], *b"prepared");
        assert_eq!(layer.small_file(SmallFile::Tablespace(Oid(7))).unwrap()[..], *b"/there");
        assert_eq!(*layer.replication_origins(), [(3, Lsn::new(4))].into());
        assert_eq!(layer.objects().count(), 3);
    }

    #[test]
    fn older_formats_are_read_and_newer_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        write_sample(&path);
        let mut bytes = std::fs::read(&path).unwrap();
        let mut opened_with = |version: u32| {
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..HEADER_CHECKED]);
            bytes[HEADER_CHECKED..HEADER_CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&path, &bytes).unwrap();
            ImageLayer::open(&path)
        };
        for version in 1..=FORMAT_VERSION {
            opened_with(version).unwrap();
        }
        let newer = opened_with(FORMAT_VERSION + 1);
        assert!(matches!(newer, Err(LayerError::NewerFormat { .. })));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer");
        write_sample(&path);
        let good = std::fs::read(&path).unwrap();
        let whole = |path: &Path| -> Result<(), LayerError> {
            let layer = ImageLayer::open(path)?;
            for (object, nblocks) in layer.objects() {
                for block in 0..nblocks {
                    layer.page(object, BlockNumber(block))?;
                }
            }
            Ok(())
        };
        whole(&path).unwrap();
        let unused = (HEADER_CHECKED + 4)..HEADER_SIZE;
        for at in (0..good.len()).filter(|at| at % 97 == 0 || *at < 64 || good.len() - at < 200) {
            if unused.contains(&at) {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(whole(&path).is_err(), "a flipped bit in byte {at} went unnoticed");
        }
        for len in [0, 10, 64, good.len() / 2, good.len() - 1] {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(whole(&path).is_err());
        }
    }
}
