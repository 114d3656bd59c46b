//! Plans of many pages together against plans made page by page, the simple way, over histories with everything in
//! them that a plan depends on.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::Duration;

use postgres_formats::wal::rmgr;
use postgres_formats::{ForkNumber, Oid, PageImage, RelTag, page_checksum};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::index::{FoundVersion, Foundation};
use crate::layer::freezer::LayerOptions;
use crate::page::KeptPage;
use crate::timeline::PageRequest;
use crate::timeline::damage::sample::{Sample, words};

const BLOCKS: u32 = 40;
const RELATIONS: [u32; 3] = [20_000, 20_001, 20_002];
/// The first is the original of the others, which come and go.
const DATABASES: [u32; 3] = [5, 6, 7];
const SPACE: u32 = 1663;

fn rel(db: u32, number: u32) -> RelTag {
    RelTag { spc: Oid(SPACE), db: Oid(db), rel: Oid(number), fork: ForkNumber::Main }
}

/// A block becomes a page full of `content`.
fn write(sample: &mut Sample, rel: RelTag, block: u32, content: u8) -> Lsn {
    let mut page = PageImage::zeroed();
    page.fill(content);
    sample.write_block(rel, block, &page)
}

/// A change of the block that stands on what was there before.
fn change(sample: &mut Sample, rel: RelTag, block: u32) -> Lsn {
    let mut body = vec![0, 0, 0, 0];
    body.extend(words(&[rel.spc.0, rel.db.0, rel.rel.0, block]));
    sample.add(rmgr::GENERIC, 0, &body)
}

fn drop_database(sample: &mut Sample, db: u32) -> Lsn {
    sample.add_data(rmgr::DBASE, rmgr::dbase::DROP, &words(&[db, 1, SPACE]))
}

fn copy_database(sample: &mut Sample, db: u32) -> Lsn {
    let data = words(&[db, SPACE, DATABASES[0], SPACE]);
    sample.add_data(rmgr::DBASE, rmgr::dbase::CREATE_FILE_COPY, &data)
}

/// Some records. `with_changes`: some that only redo can apply.
fn some_records(sample: &mut Sample, rng: &mut SmallRng, count: u32, with_changes: bool) {
    for _ in 0..count {
        let rel = rel(*DATABASES.choose(rng).unwrap(), *RELATIONS.choose(rng).unwrap());
        let block = rng.random_range(0..BLOCKS);
        match rng.random_range(0..40) {
            0 | 1 => sample.truncate(rel.locator(), block),
            2 => sample.drop_relation(rel.locator()),
            3 => {
                let db = DATABASES[rng.random_range(1..3)];
                if rng.random() {
                    drop_database(sample, db);
                }
                copy_database(sample, db)
            }
            // Several blocks side by side, and one many times.
            4..8 => (block..BLOCKS.min(block + 9))
                .map(|block| write(sample, rel, block, rng.random()))
                .last()
                .unwrap(),
            8..12 if with_changes => (0..7).map(|_| change(sample, rel, block)).last().unwrap(),
            12..26 if with_changes => change(sample, rel, block),
            _ => write(sample, rel, block, rng.random()),
        };
    }
}

/// What a plan says, as far as it can be compared.
#[derive(PartialEq, Eq, Debug)]
struct Said {
    base: Option<PageImage>,
    versions: Vec<(postgres_formats::TimelineId, ObjectPage, Lsn, Lsn, bool)>,
}

fn said(plan: Plan) -> Said {
    let versions = plan.versions();
    let base = plan.base.read().unwrap();
    Said { base: base.map(|page| PageImage::clone(&page.into_image())), versions }
}

/// The plan of one page, stretch by stretch and page by page.
fn simply_planned(timeline: &Arc<Timeline>, page: ObjectPage, lsn: Lsn) -> Said {
    let (mut timeline, mut page, mut lsn) = (timeline.clone(), page, lsn);
    let mut said = Said { base: None, versions: Vec::new() };
    let image = |page: KeptPage| Some(page.to_image());
    'timelines: loop {
        let (found, older, below) = timeline.ask_open(|open| open.page_history(page, lsn));
        let found = std::iter::once(found)
            .chain(older.iter().map(|stretch| stretch.page_history(page, lsn)));
        for history in found {
            let history = history.unwrap();
            for FoundVersion { version, .. } in history.versions {
                let (start, end) = (version.start(), version.end());
                said.versions.push((timeline.id(), page, start, end, version.will_init()));
            }
            match history.foundation {
                Foundation::Below => continue,
                Foundation::CopyOf(from, at) => {
                    page.object = page.object.in_database(from);
                    lsn = at;
                    continue 'timelines;
                }
                Foundation::Kept(page) => said.base = image(page),
                Foundation::Version | Foundation::Zero => {}
                Foundation::Made(_) => unreachable!("nothing is asked of the cache"),
            }
            break 'timelines;
        }
        match &*below {
            Below::Ancestor(ancestor, at) => {
                lsn = lsn.min(*at);
                let ancestor = ancestor.clone();
                timeline = ancestor;
            }
            Below::Image(layer) => {
                said.base = layer.page(page.object, page.block).unwrap();
                break;
            }
            Below::Nothing => break,
        }
    }
    said.versions.reverse();
    said
}

/// Compares plans of random sets of pages, and the pages that need no redo.
fn check(timeline: &Arc<Timeline>, lsns: &[Lsn], rng: &mut SmallRng) {
    for _ in 0..12 {
        let lsn = *lsns.choose(rng).unwrap();
        let object =
            ObjectTag::Rel(rel(*DATABASES.choose(rng).unwrap(), *RELATIONS.choose(rng).unwrap()));
        let from = rng.random_range(0..BLOCKS);
        let upto = rng.random_range(from..BLOCKS) + 1;
        let step = rng.random_range(1..4);
        let mut blocks: Vec<BlockNumber> = (from..upto).step_by(step).map(BlockNumber).collect();
        blocks.push(*blocks.last().unwrap());
        // What is in the cache makes a plan shorter: here they are to be whole.
        timeline.maker.cache.remove_if(|_| true);
        let plans = timeline.plan_pages(object, lsn, &blocks).unwrap();
        assert_eq!(plans.len(), blocks.len());
        for (plan, block) in plans.into_iter().zip(&blocks) {
            let page = ObjectPage { object, block: *block };
            let expected = simply_planned(timeline, page, lsn);
            assert_eq!(said(plan), expected, "{page:?} at {lsn}");
        }
    }
    let request = |rng: &mut SmallRng| {
        let rel = rel(*DATABASES.choose(rng).unwrap(), *RELATIONS.choose(rng).unwrap());
        let block = BlockNumber(rng.random_range(0..BLOCKS));
        PageRequest::rel(rel, block, *lsns.choose(rng).unwrap())
    };
    let requests: Vec<PageRequest> = (0..150).map(|_| request(rng)).collect();
    let alone = |request: &PageRequest| timeline.get_page(*request, Duration::ZERO);
    // With what the cache has by then, and without.
    for forgotten in [true, false] {
        if forgotten {
            timeline.maker.cache.remove_if(|_| true);
        }
        let together = timeline.get_pages(&requests, Duration::ZERO);
        for (request, page) in requests.iter().zip(together) {
            match (page, alone(request)) {
                (Ok(page), Ok(alone)) => assert!(page[..] == alone[..], "{request:?}"),
                (Err(error), Err(alone)) => assert_eq!(error.to_string(), alone.to_string()),
                (page, alone) => panic!("{request:?}: {page:?}, alone {alone:?}"),
            }
        }
    }
}

fn history(seed: u64) {
    let rng = &mut SmallRng::seed_from_u64(seed);
    let mut sample = Sample::new(1 << 19);
    some_records(&mut sample, rng, 30, false);
    let options = LayerOptions {
        image_piece_bytes: 1 << rng.random_range(15..20),
        cache_bytes: [0, 100_000, 10 << 20][rng.random_range(0..3)],
        in_background: false,
        ..LayerOptions::default()
    };
    let timeline = sample.open_with(options);
    let mut images = Vec::new();
    for round in 0..6 {
        // Images are made of pages that need no redo, for there is none here.
        some_records(&mut sample, rng, 60, round >= 3);
        sample.give(&timeline);
        check(&timeline, &sample.ends.clone(), rng);
        if rng.random_ratio(3, 4) {
            let frozen = timeline.freeze().unwrap();
            if round < 3 {
                images.push(frozen.end);
            }
        }
        check(&timeline, &sample.ends.clone(), rng);
    }
    let lsns = sample.ends.clone();
    if let Some(lsn) = images.choose(rng) {
        assert!(timeline.make_image(*lsn).unwrap());
        check(&timeline, &lsns, rng);
        // As if it had not been gone on with: what is missing is in what is older.
        let pieces = timeline.history.read().layers().1;
        let names: Vec<String> =
            pieces.iter().flat_map(|image| image.pieces()).map(|piece| piece.name()).collect();
        let some: Vec<String> = names.into_iter().filter(|_| rng.random_ratio(1, 3)).collect();
        timeline.history.write().remove(&some);
        check(&timeline, &lsns, rng);
    }
    let deltas = timeline.history.read().layers().0;
    if let [first, second, ..] = deltas.as_slice() {
        let both = [first.clone(), second.clone()];
        let _reshaping = timeline.reshaping.lock();
        assert!(timeline.merge(&both).unwrap());
    }
    check(&timeline, &lsns, rng);
    let at = *lsns.choose(rng).unwrap();
    let branch = sample.open_branch(&timeline, at, 2);
    check(&branch, &lsns.iter().copied().filter(|lsn| *lsn <= at).collect::<Vec<_>>(), rng);
    let prev = branch.manifest().state.prev_record;
    let mut own = Sample::going_on(branch.start_lsn(), prev);
    some_records(&mut own, rng, 40, true);
    own.give(&branch);
    let nested = sample.open_branch(&branch, *own.ends.choose(rng).unwrap(), 3);
    let both: Vec<Lsn> =
        lsns.iter().copied().filter(|lsn| *lsn <= at).chain(own.ends.clone()).collect();
    check(&branch, &both, rng);
    let nested_end = nested.start_lsn();
    check(&nested, &both.iter().copied().filter(|lsn| *lsn <= nested_end).collect::<Vec<_>>(), rng);
}

#[test]
fn many_pages_are_planned_as_each_by_itself() {
    for _ in 0..6 {
        let seed = rand::random();
        println!("seed {seed}");
        history(seed);
    }
}

/// Wherever a page comes from: the record, a delta, an image, a delta that was merged, one page or many.
#[test]
fn pages_carry_the_checksum_that_postgresql_expects() {
    let mut sample = Sample::with_checksums(1 << 19);
    let rel = rel(5, 20_000);
    for block in 0..20 {
        write(&mut sample, rel, block, 7);
    }
    let options = LayerOptions { in_background: false, ..LayerOptions::default() };
    let timeline = sample.open_with(options);
    sample.give(&timeline);
    let requests = |sample: &Sample| -> Vec<PageRequest> {
        let lsn = sample.end();
        (0..20).map(|block| PageRequest::rel(rel, BlockNumber(block), lsn)).collect()
    };
    let check = |sample: &Sample| {
        timeline.maker.cache.remove_if(|_| true);
        for _ in 0..2 {
            let requests = requests(sample);
            let pages = timeline.get_pages(&requests, Duration::ZERO);
            for (page, request) in pages.into_iter().zip(&requests) {
                let alone = timeline.get_page(*request, Duration::ZERO).unwrap();
                assert_eq!(page_checksum::verify(&alone, request.page.block), Ok(()));
                assert!(page.unwrap()[..] == alone[..]);
            }
        }
    };
    check(&sample);
    let first = timeline.freeze().unwrap().end;
    check(&sample);
    for block in 5..10 {
        write(&mut sample, rel, block, 9);
    }
    sample.give(&timeline);
    timeline.freeze().unwrap();
    check(&sample);
    {
        let deltas = timeline.history.read().layers().0;
        let _reshaping = timeline.reshaping.lock();
        assert!(timeline.merge(&deltas).unwrap());
    }
    check(&sample);
    assert!(!timeline.make_image(first).unwrap(), "no delta ends there any more");
    assert!(timeline.make_image(sample.end()).unwrap());
    check(&sample);
}
