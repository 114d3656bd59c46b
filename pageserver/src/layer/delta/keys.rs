//! Under which keys the things of a history stand in a layer.
//!
//! A key is one byte that says what kind of thing it is, then the thing's name in big-endian numbers, so
//! that keys sort by kind, object and block. FORMAT.md has the table.

use postgres_formats::slru::SlruKind;
use postgres_formats::{BlockNumber, ForkNumber, Oid, RelTag};

use crate::object::{DbTag, ObjectPage, ObjectTag};

const DATABASE: u8 = 0x01;
const REL_MAP: u8 = 0x02;
const TABLESPACE: u8 = 0x03;
const TWO_PHASE: u8 = 0x04;
const ORIGIN: u8 = 0x05;
const TRAIL: u8 = 0x06;
const XACT_ENDS: u8 = 0x07;
const SIZE: u8 = 0x10;
const CUT: u8 = 0x11;
const PAGE: u8 = 0x20;

const OF_REL: u8 = 0;
const OF_SLRU: u8 = 1;

/// What a version in a layer is a version of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LayerKey {
    /// What happened to a database's folder.
    Database(DbTag),
    /// A database's `pg_filenode.map`.
    RelMap(DbTag),
    /// A tablespace of the users' own.
    Tablespace(Oid),
    /// A prepared transaction.
    TwoPhase(u32),
    /// The progress of a replication origin.
    Origin(u16),
    /// The checkpoint states, and with them where records begin.
    Trail,
    /// When transactions ended.
    XactEnds,
    /// The size of an object.
    Size(ObjectTag),
    /// Where an object was cut.
    Cut(ObjectTag),
    /// A page.
    Page(ObjectPage),
}

/// All keys of one kind, as first and as bound behind the last.
pub struct KindRange(u8);

impl KindRange {
    pub const DATABASES: KindRange = KindRange(DATABASE);
    pub const TABLESPACES: KindRange = KindRange(TABLESPACE);
    pub const TWO_PHASE: KindRange = KindRange(TWO_PHASE);
    pub const ORIGINS: KindRange = KindRange(ORIGIN);
    pub const SIZES: KindRange = KindRange(SIZE);
}

impl From<KindRange> for layers::KeyRange {
    fn from(KindRange(kind): KindRange) -> layers::KeyRange {
        layers::KeyRange::new([kind], [kind + 1])
    }
}

impl LayerKey {
    /// The key's bytes.
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20);
        match self {
            LayerKey::Database(tag) => put_db(&mut out, DATABASE, tag),
            LayerKey::RelMap(tag) => put_db(&mut out, REL_MAP, tag),
            LayerKey::Tablespace(spc) => {
                out.push(TABLESPACE);
                out.extend(spc.0.to_be_bytes());
            }
            LayerKey::TwoPhase(xid) => {
                out.push(TWO_PHASE);
                out.extend(xid.to_be_bytes());
            }
            LayerKey::Origin(origin) => {
                out.push(ORIGIN);
                out.extend(origin.to_be_bytes());
            }
            LayerKey::Trail => out.push(TRAIL),
            LayerKey::XactEnds => out.push(XACT_ENDS),
            LayerKey::Size(object) => put_object(&mut out, SIZE, object),
            LayerKey::Cut(object) => put_object(&mut out, CUT, object),
            LayerKey::Page(page) => {
                put_object(&mut out, PAGE, page.object);
                out.extend(page.block.0.to_be_bytes());
            }
        }
        out
    }

    /// The key with these bytes; `None` if there is none.
    pub fn decode(bytes: &[u8]) -> Option<LayerKey> {
        let (kind, mut rest) = bytes.split_first()?;
        let rest = &mut rest;
        let key = match *kind {
            DATABASE => LayerKey::Database(take_db(rest)?),
            REL_MAP => LayerKey::RelMap(take_db(rest)?),
            TABLESPACE => LayerKey::Tablespace(Oid(take_u32(rest)?)),
            TWO_PHASE => LayerKey::TwoPhase(take_u32(rest)?),
            ORIGIN => LayerKey::Origin(u16::from_be_bytes(take(rest)?)),
            TRAIL => LayerKey::Trail,
            XACT_ENDS => LayerKey::XactEnds,
            SIZE => LayerKey::Size(take_object(rest)?),
            CUT => LayerKey::Cut(take_object(rest)?),
            PAGE => LayerKey::Page(ObjectPage {
                object: take_object(rest)?,
                block: BlockNumber(take_u32(rest)?),
            }),
            _ => return None,
        };
        rest.is_empty().then_some(key)
    }
}

/// Changes the key of a page into that of another page of the same object.
pub fn set_block(key: &mut [u8], block: BlockNumber) {
    if let Some(last) = key.last_chunk_mut() {
        *last = block.0.to_be_bytes();
    }
}

/// The first key that may be one of a page; all behind it are.
pub fn first_page_key() -> Vec<u8> {
    vec![PAGE]
}

/// All sizes of objects in one database.
pub fn sizes_in(tag: DbTag) -> layers::KeyRange {
    let mut start = vec![SIZE, OF_REL];
    start.extend(tag.spc.0.to_be_bytes());
    start.extend(tag.db.0.to_be_bytes());
    let mut end = start.clone();
    // The next number of as many bytes; the byte before the name keeps it from running over.
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    layers::KeyRange::new(start, end)
}

fn put_db(out: &mut Vec<u8>, kind: u8, tag: DbTag) {
    out.push(kind);
    out.extend(tag.spc.0.to_be_bytes());
    out.extend(tag.db.0.to_be_bytes());
}

fn put_object(out: &mut Vec<u8>, kind: u8, object: ObjectTag) {
    out.push(kind);
    match object {
        ObjectTag::Rel(rel) => {
            out.push(OF_REL);
            for number in [rel.spc, rel.db, rel.rel] {
                out.extend(number.0.to_be_bytes());
            }
            out.push(rel.fork as u8);
        }
        ObjectTag::Slru { kind, segment } => {
            out.extend([OF_SLRU, kind as u8]);
            out.extend(segment.to_be_bytes());
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_be_bytes)
}

fn take_db(rest: &mut &[u8]) -> Option<DbTag> {
    Some(DbTag { spc: Oid(take_u32(rest)?), db: Oid(take_u32(rest)?) })
}

fn take_object(rest: &mut &[u8]) -> Option<ObjectTag> {
    match take(rest)? {
        [OF_REL] => {
            let (spc, db) = (Oid(take_u32(rest)?), Oid(take_u32(rest)?));
            let rel = Oid(take_u32(rest)?);
            let [fork] = take(rest)?;
            Some(ObjectTag::Rel(RelTag { spc, db, rel, fork: ForkNumber::from_u8(fork)? }))
        }
        [OF_SLRU] => {
            let [kind] = take(rest)?;
            Some(ObjectTag::Slru { kind: SlruKind::from_u8(kind)?, segment: take_u32(rest)? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object() -> impl Strategy<Value = ObjectTag> {
        let number = || prop_oneof![any::<u32>(), 0_u32..3, Just(u32::MAX)].prop_map(Oid);
        prop_oneof![
            (number(), number(), number(), 0_u8..4).prop_map(|(spc, db, rel, fork)| {
                let fork = ForkNumber::from_u8(fork).unwrap_or(ForkNumber::Main);
                ObjectTag::Rel(RelTag { spc, db, rel, fork })
            }),
            any::<u32>().prop_map(|segment| ObjectTag::Slru { kind: SlruKind::Clog, segment }),
        ]
    }

    proptest! {
        #[test]
        fn keys_come_back(object in object(), block: u32, spc: u32, db: u32, xid: u32, origin: u16) {
            let tag = DbTag { spc: Oid(spc), db: Oid(db) };
            for key in [
                LayerKey::Database(tag),
                LayerKey::RelMap(tag),
                LayerKey::Tablespace(Oid(spc)),
                LayerKey::TwoPhase(xid),
                LayerKey::Origin(origin),
                LayerKey::Trail,
                LayerKey::XactEnds,
                LayerKey::Size(object),
                LayerKey::Cut(object),
                LayerKey::Page(ObjectPage { object, block: BlockNumber(block) }),
            ] {
                prop_assert_eq!(LayerKey::decode(&key.encode()), Some(key));
            }
        }

        #[test]
        fn keys_sort_as_what_they_name(a in object(), b in object(), x: u32, y: u32) {
            let page = |object, block| LayerKey::Page(ObjectPage { object, block: BlockNumber(block) });
            let order = page(a, x).encode().cmp(&page(b, y).encode());
            if a == b {
                prop_assert_eq!(order, x.cmp(&y));
            } else {
                prop_assert_eq!(order, LayerKey::Size(a).encode().cmp(&LayerKey::Size(b).encode()));
            }
        }

        #[test]
        fn sizes_of_a_database_are_a_range(object in object(), spc in 0_u32..3, db in 0_u32..3) {
            let tag = DbTag { spc: Oid(spc), db: Oid(db) };
            let is_in = sizes_in(tag).contains(&LayerKey::Size(object).encode());
            let of = match object {
                ObjectTag::Rel(rel) => Some(DbTag { spc: rel.spc, db: rel.db }),
                ObjectTag::Slru { .. } => None,
            };
            prop_assert_eq!(is_in, of == Some(tag));
        }

        #[test]
        fn other_bytes_are_no_keys_or_the_same(bytes: Vec<u8>) {
            if let Some(key) = LayerKey::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }
}
