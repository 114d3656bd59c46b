//! The index against a naive model, and the cases that are easy to get wrong by name.

use std::collections::BTreeMap;

use postgres_formats::{BlockNumber, ForkNumber, Oid, RelTag};
use proptest::prelude::*;

use super::*;

const DB: DbTag = DbTag { spc: Oid(1663), db: Oid(5) };
const COPY: DbTag = DbTag { spc: Oid(1663), db: Oid(6) };

fn rel(tag: DbTag, n: u32) -> ObjectTag {
    ObjectTag::Rel(RelTag { spc: tag.spc, db: tag.db, rel: Oid(n), fork: ForkNumber::Main })
}

fn page(object: ObjectTag, block: u32) -> ObjectPage {
    ObjectPage { object, block: BlockNumber(block) }
}

fn version(object: ObjectTag, block: u32, end: u64, will_init: bool) -> IndexOp {
    let version = Version::new(Lsn::new(end - 8), Lsn::new(end), will_init, false);
    IndexOp::Version { page: page(object, block), version }
}

fn size(object: ObjectTag, lsn: u64, size: Option<u32>, cut: bool) -> IndexOp {
    IndexOp::Size { object, lsn: Lsn::new(lsn), size, cut }
}

fn ends(history: &PageHistory) -> Vec<u64> {
    history.versions.iter().map(|found| found.version.end().as_u64()).collect()
}

fn index(ops: impl IntoIterator<Item = IndexOp>) -> WalIndex {
    let mut index = WalIndex::default();
    ops.into_iter().for_each(|op| index.apply(op));
    index
}

#[test]
fn a_version_keeps_its_flags_apart_from_its_place() {
    let v = Version::new(Lsn::new(0x1230), Lsn::new(0x1250), true, true);
    assert_eq!((v.start(), v.end()), (Lsn::new(0x1230), Lsn::new(0x1250)));
    assert!(v.will_init() && v.is_native());
    assert_eq!(std::mem::size_of::<Version>(), 16);
}

#[test]
fn versions_up_to_an_initialisation() {
    let r = rel(DB, 1);
    let ops = [(80, false), (160, true), (240, false)].map(|(e, init)| version(r, 0, e, init));
    let index = index(ops);
    let at = |lsn| index.page_history(page(r, 0), Lsn::new(lsn));
    assert_eq!((ends(&at(79)), at(79).foundation), (vec![], Foundation::Below));
    assert_eq!((ends(&at(80)), at(80).foundation), (vec![80], Foundation::Below));
    assert_eq!((ends(&at(300)), at(300).foundation), (vec![240, 160], Foundation::Version));
}

#[test]
fn a_truncated_block_does_not_come_back() {
    let r = rel(DB, 1);
    let index = index([
        version(r, 3, 80, true),
        size(r, 160, Some(2), true),
        size(r, 240, Some(4), false),
        version(r, 3, 240, false),
    ]);
    let history = index.page_history(page(r, 3), Lsn::new(240));
    assert_eq!((ends(&history), history.foundation), (vec![240], Foundation::Zero));
    // Block 1 was not cut off, and the moment before the cut still sees block 3.
    assert_eq!(index.page_history(page(r, 1), Lsn::new(240)).foundation, Foundation::Below);
    assert_eq!(ends(&index.page_history(page(r, 3), Lsn::new(159))), [80]);
}

#[test]
fn a_copied_database_begins_as_its_original() {
    let copied = IndexOp::Database { tag: COPY, lsn: Lsn::new(160), event: DbEvent::CopyOf(DB) };
    let dropped = IndexOp::Database { tag: COPY, lsn: Lsn::new(400), event: DbEvent::Dropped };
    let own = rel(COPY, 1);
    let index = index([
        version(own, 0, 80, true),
        copied,
        version(own, 0, 240, false),
        size(own, 240, Some(1), false),
        dropped,
    ]);
    let copy = Foundation::CopyOf(DB, Lsn::new(160));
    let history = index.page_history(page(own, 0), Lsn::new(240));
    assert_eq!((ends(&history), history.foundation), (vec![240], copy.clone()));
    // What a database of that name held before is not seen through the copy.
    let history = index.page_history(page(own, 0), Lsn::new(200));
    assert_eq!((ends(&history), history.foundation), (vec![], copy));
    assert_eq!(index.size(own, Lsn::new(200)), Some(Known::CopyOf(DB, Lsn::new(160))));
    assert_eq!(index.size(own, Lsn::new(250)), Some(Known::Is(Some(1))));
    assert_eq!(index.size(own, Lsn::new(400)), Some(Known::Is(None)));
    assert_eq!(index.size(rel(DB, 1), Lsn::new(400)), None);
}

#[test]
fn tablespaces_come_and_go() {
    let change = |spc, lsn, location: Option<&'static str>| IndexOp::Tablespace {
        spc: Oid(spc),
        lsn: Lsn::new(lsn),
        location: location.map(|path| Bytes::from_static(path.as_bytes())),
    };
    let index = index([change(7, 80, Some("/a")), change(9, 160, None), change(7, 240, None)]);
    let at = |lsn| {
        let found = index.tablespaces(Lsn::new(lsn)).into_iter();
        found.map(|(spc, location)| (spc.0, location.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(at(79), []);
    assert_eq!(at(159), [(7, true)]);
    assert_eq!(at(160), [(7, true), (9, false)]);
    assert_eq!(at(240), [(7, false), (9, false)]);
}

/// What happens to one relation in the model.
#[derive(Clone, Debug)]
enum Step {
    Write { block: u32, will_init: bool },
    Truncate(u32),
    Drop,
    Create,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u32..6, any::<bool>()).prop_map(|(block, will_init)| Step::Write { block, will_init }),
        1 => (0u32..6).prop_map(Step::Truncate),
        1 => Just(Step::Drop),
        1 => Just(Step::Create),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    /// The model keeps, after every step, the whole list of records each block is made of.
    #[test]
    fn equals_a_model_that_keeps_everything(steps in steps()) {
        let r = rel(DB, 1);
        let mut ops = vec![size(r, 8, Some(0), true)];
        let mut blocks: Option<BTreeMap<u32, Vec<u64>>> = Some(BTreeMap::new());
        let mut length: Option<u32> = Some(0);
        let mut moments = vec![(8, length, blocks.clone())];
        for (n, step) in steps.into_iter().enumerate() {
            let lsn = (n as u64 + 2) * 8;
            match step {
                Step::Write { block, will_init } => {
                    if length.is_none_or(|length| length <= block) {
                        length = Some(block + 1);
                        ops.push(size(r, lsn, length, false));
                    }
                    let list = blocks.get_or_insert_default().entry(block).or_default();
                    if will_init {
                        list.clear();
                    }
                    list.push(lsn);
                    ops.push(version(r, block, lsn, will_init));
                }
                Step::Truncate(to) => {
                    if length.is_some_and(|length| length > to) {
                        length = Some(to);
                        blocks.get_or_insert_default().retain(|block, _| *block < to);
                        ops.push(size(r, lsn, length, true));
                    }
                }
                Step::Drop => {
                    if length.is_some() {
                        (length, blocks) = (None, None);
                        ops.push(size(r, lsn, None, true));
                    }
                }
                Step::Create => {
                    if length.is_none() {
                        (length, blocks) = (Some(0), Some(BTreeMap::new()));
                        ops.push(size(r, lsn, length, true));
                    }
                }
            }
            moments.push((lsn, length, blocks.clone()));
        }
        let index = index(ops);
        for (lsn, length, blocks) in moments {
            let lsn = Lsn::new(lsn);
            prop_assert_eq!(index.size(r, lsn), Some(Known::Is(length)));
            for block in 0..length.unwrap_or(0) {
                let expected = blocks.as_ref().and_then(|b| b.get(&block)).cloned();
                let history = index.page_history(page(r, block), lsn);
                let mut found = ends(&history);
                found.reverse();
                prop_assert_eq!(found, expected.unwrap_or_default(), "block {} at {}", block, lsn);
                prop_assert!(history.foundation != Foundation::Below);
            }
        }
    }
}
