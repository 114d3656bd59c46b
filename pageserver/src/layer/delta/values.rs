//! What stands in a layer for a version of a thing: how values are written, and read again with checks.
//!
//! Each function's table says what the entry's kind and value are; FORMAT.md has them together.

use bytes::Bytes;
use layers::varint;
use postgres_formats::wal::{DecodedRecord, WalRecord, rmgr};
use postgres_formats::{Lsn, Oid, PageImage, page_checksum};

use super::keys::LayerKey;
use crate::index::{DbEvent, Version};
use crate::object::{DbTag, ObjectPage, ObjectTag};
use crate::page::KeptPage;

/// The thing is there, and the value is its content.
pub const IS: u8 = 1;
/// The thing is gone.
pub const GONE: u8 = 0;
const COPY: u8 = 2;
/// The value is a page.
pub const PAGE_IMAGE: u8 = 0x10;
const PAGE_RECORD: u8 = 0x20;
const WILL_INIT: u8 = 1;
const NATIVE: u8 = 2;

/// A version of a page as it is kept in a layer.
#[derive(Clone, Debug)]
pub enum KeptVersion {
    /// The page.
    Image(KeptPage),
    /// The version, and the record that makes it, without the images of other pages.
    Record(Version, WalRecord),
}

/// The entry for the version of `page` that `record` makes.
///
/// | kind | value |
/// |---|---|
/// | 0x10 | the 8192 bytes of the page |
/// | 0x20, + 1 if older versions do not matter, + 2 if our own code applies it | varint: bytes from the record's start to its end; the record without page images |
pub fn page(
    page: ObjectPage,
    version: Version,
    record: &WalRecord,
    decoded: &DecodedRecord,
) -> (u8, Vec<u8>) {
    if version.will_init()
        && !version.is_native()
        && let Some(image) = restored_image(decoded, page, record)
    {
        return (PAGE_IMAGE, image.to_vec());
    }
    let flags = if version.will_init() { WILL_INIT } else { 0 }
        | if version.is_native() { NATIVE } else { 0 };
    let mut value = Vec::new();
    varint::put(&mut value, record.end.distance_from(record.start).unwrap_or(0));
    // An image of this page that cannot be restored here is PostgreSQL's to restore, or to refuse.
    let has_own = decoded.blocks.iter().any(|block| {
        ObjectTag::Rel(block.rel) == page.object
            && block.block == page.block
            && block.image.as_ref().is_some_and(|image| image.apply)
    });
    if has_own || decoded.blocks.iter().all(|block| block.image.is_none()) {
        value.extend_from_slice(&record.bytes);
    } else {
        value.extend(decoded.without_images());
    }
    (PAGE_RECORD | flags, value)
}

/// Whether an image in a record of the resource manager is the page as the record leaves it.
///
/// Redo of GiST goes on with pages that it has restored: the left one of a split gets the record's own
/// LSN, which no image can have (`gistRedoClearFollowRight`, `access/gist/gistxlog.c`). That of hash
/// indexes does so, too (`hash_xlog_split_allocate_page` and others, `access/hash/hash_xlog.c`), and of
/// extensions nobody knows.
fn image_is_all(manager: u8) -> bool {
    use rmgr::{BRIN, BTREE, GENERIC, GIN, HEAP, HEAP2, SEQ, SPGIST, XLOG};
    matches!(manager, XLOG | HEAP2 | HEAP | BTREE | GIN | SEQ | SPGIST | BRIN | GENERIC)
}

/// The page image in the record that takes the place of the page, if it can be had without redo.
pub fn restored_image(
    decoded: &DecodedRecord,
    page: ObjectPage,
    record: &WalRecord,
) -> Option<PageImage> {
    let ObjectTag::Rel(rel) = page.object else { return None };
    if !image_is_all(decoded.header.rmid) {
        return None;
    }
    let block = decoded.blocks.iter().find(|b| b.rel == rel && b.block == page.block)?;
    let image = block.image.as_ref().filter(|image| image.apply)?;
    // One that cannot be restored here is left to PostgreSQL's redo, which will say why.
    image.restore(record.end).ok()
}

/// Whether a version of a page of that kind needs none before it.
pub fn needs_nothing_older(kind: u8) -> bool {
    kind == PAGE_IMAGE || kind & WILL_INIT != 0
}

/// The page in an image's entry.
pub fn read_image(kind: u8, value: Bytes) -> Option<KeptPage> {
    KeptPage::new(value).filter(|_| kind == PAGE_IMAGE)
}

/// Gives a page in the entry of `key` the checksum that PostgreSQL expects. Images in WAL have that of an
/// earlier moment, or none.
pub fn set_checksum(key: &[u8], kind: u8, value: &mut [u8]) {
    if kind == PAGE_IMAGE
        && let Ok(page) = value.try_into()
        && let Some(LayerKey::Page(name)) = LayerKey::decode(key)
        && let ObjectTag::Rel(_) = name.object
    {
        page_checksum::set_checksum(page, name.block);
    }
}

/// The version that `page` wrote.
pub fn read_page(end: Lsn, kind: u8, value: Bytes) -> Option<KeptVersion> {
    if kind == PAGE_IMAGE {
        return read_image(kind, value).map(KeptVersion::Image);
    }
    if kind & !(WILL_INIT | NATIVE) != PAGE_RECORD {
        return None;
    }
    let (length, bytes) = varint::take(&value)?;
    let start = Lsn::new(end.as_u64().checked_sub(length)?);
    if aligned(start) != start {
        return None;
    }
    let bytes = value.slice(value.len() - bytes.len()..);
    let version = Version::new(start, end, kind & WILL_INIT != 0, kind & NATIVE != 0);
    Some(KeptVersion::Record(version, WalRecord { start, end, bytes }))
}

/// The entry for what happened to a database.
///
/// | kind | value |
/// |---|---|
/// | 0 | dropped |
/// | 1 | made empty |
/// | 2 | made as a copy: tablespace u32, database u32 of the original |
pub fn database(event: DbEvent) -> (u8, Vec<u8>) {
    match event {
        DbEvent::Dropped => (GONE, Vec::new()),
        DbEvent::Created => (IS, Vec::new()),
        DbEvent::CopyOf(from) => {
            (COPY, [from.spc.0.to_le_bytes(), from.db.0.to_le_bytes()].concat())
        }
    }
}

/// The event that `database` wrote.
pub fn read_database(kind: u8, value: &[u8]) -> Option<DbEvent> {
    match (kind, value) {
        (GONE, []) => Some(DbEvent::Dropped),
        (IS, []) => Some(DbEvent::Created),
        (COPY, value) => {
            let (spc, db) = value.split_first_chunk::<4>()?;
            let db: [u8; 4] = db.try_into().ok()?;
            let tag = DbTag { spc: Oid(u32::from_le_bytes(*spc)), db: Oid(u32::from_le_bytes(db)) };
            Some(DbEvent::CopyOf(tag))
        }
        _ => None,
    }
}

/// The entry for something that has a content (kind 1, the content) or is gone (kind 0).
pub fn content(content: Option<&[u8]>) -> (u8, Vec<u8>) {
    content.map_or((GONE, Vec::new()), |content| (IS, content.to_vec()))
}

/// The content that `content` wrote.
pub fn read_content(kind: u8, value: &Bytes) -> Option<Option<Bytes>> {
    match kind {
        // Small, and kept for long: not as a part of a block.
        IS => Some(Some(Bytes::copy_from_slice(value))),
        GONE if value.is_empty() => Some(None),
        _ => None,
    }
}

/// The entry for a size in pages (kind 1, u32) or none (kind 0).
pub fn size(size: Option<u32>) -> (u8, Vec<u8>) {
    size.map_or((GONE, Vec::new()), |size| (IS, size.to_le_bytes().to_vec()))
}

/// The size that `size` wrote.
pub fn read_size(kind: u8, value: &[u8]) -> Option<Option<u32>> {
    match kind {
        IS => Some(Some(u32::from_le_bytes(value.try_into().ok()?))),
        GONE if value.is_empty() => Some(None),
        _ => None,
    }
}

/// The entry for an LSN of another cluster (kind 1, u64) or none (kind 0).
pub fn lsn(lsn: Option<Lsn>) -> (u8, Vec<u8>) {
    lsn.map_or((GONE, Vec::new()), |lsn| (IS, lsn.as_u64().to_le_bytes().to_vec()))
}

/// The LSN that `lsn` wrote.
pub fn read_lsn(kind: u8, value: &[u8]) -> Option<Option<Lsn>> {
    match kind {
        IS => Some(Some(Lsn::new(u64::from_le_bytes(value.try_into().ok()?)))),
        GONE if value.is_empty() => Some(None),
        _ => None,
    }
}

/// Ends of transactions, each with the latest time so far: a piece of a history.
///
/// Kind 1. Value: for each, varint: bytes of WAL since the one before (of the first, its LSN); zigzag
/// varint: microseconds since the one before (of the first, since 2000-01-01 UTC).
pub fn xact_ends(ends: &[(Lsn, i64)]) -> (u8, Vec<u8>) {
    let mut value = Vec::new();
    let (mut lsn, mut time) = (0, 0_i64);
    for (end, latest) in ends {
        varint::put(&mut value, end.as_u64().wrapping_sub(lsn));
        let passed = latest.wrapping_sub(time);
        varint::put(&mut value, (passed << 1 ^ passed >> 63) as u64);
        (lsn, time) = (end.as_u64(), *latest);
    }
    (IS, value)
}

/// The ends that `xact_ends` wrote.
pub fn read_xact_ends(kind: u8, value: &[u8]) -> Option<Vec<(Lsn, i64)>> {
    if kind != IS {
        return None;
    }
    let mut ends = Vec::new();
    let (mut rest, mut lsn, mut time) = (value, 0_u64, 0_i64);
    while !rest.is_empty() {
        let (passed, after) = varint::take(rest)?;
        lsn = lsn.checked_add(passed)?;
        let (zigzag, after) = varint::take(after)?;
        time = time.wrapping_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        ends.push((Lsn::new(lsn), time));
        rest = after;
    }
    Some(ends)
}

/// Records begin at multiples of 8.
fn aligned(lsn: Lsn) -> Lsn {
    Lsn::new(lsn.as_u64() & !7)
}
