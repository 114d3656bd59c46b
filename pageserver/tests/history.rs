//! The oracle for the storage core: a stock server writes a history, is stopped cleanly several
//! times and its files are kept each time; a timeline that was given nothing but the first of these
//! data directories and the WAL must give every page of every relation as it was each time.

#![allow(clippy::unwrap_used)]

mod stock;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pageserver::layer::import::DataDirectory;
use pageserver::object::{DbTag, ObjectPage, ObjectTag};
use pageserver::repository::Repository;
use pageserver::timeline::{Collected, LayerFile, Needed, PageRequest, Timeline};
use postgres_formats::relpath::{TABLESPACE_VERSION_DIRECTORY, parse_relation_path};
use postgres_formats::slru::SlruKind;
use postgres_formats::{
    BlockNumber, ForkNumber, Lsn, Oid, PageImage, RelFileLocator, RelTag, free_space_map,
};
use postgres_testing::{Cluster, scratch_dir};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use stock::{Opened, TIMEOUT, merge_deltas, open, receive};
use walredo_pool::MaskKind;

/// The work between two stops.
const PHASES: [&str; 3] = [
    include_str!("history/first.sql"),
    include_str!("history/second.sql"),
    include_str!("history/third.sql"),
];

/// A cleanly stopped data directory that was kept.
struct Kept {
    path: PathBuf,
    end: Lsn,
}

struct History {
    cluster: Cluster,
    kept: Vec<Kept>,
    rmgrs: BTreeMap<RelFileLocator, u8>,
}

fn run_sql_file(cluster: &Cluster, sql: &str) {
    let path = cluster.dir().join("phase.sql");
    fs::write(&path, sql).unwrap();
    let (socket, file) = (postgres_testing::text(cluster.dir()), postgres_testing::text(&path));
    let args = ["-h", socket, "-U", "postgres", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", file];
    cluster.run("psql", &[&args[..], &["-o", "/dev/null", "postgres"]].concat());
}

fn keep(cluster: &Cluster, number: usize) -> Kept {
    let path = cluster.copy_data_dir(&format!("kept{number}"));
    let end = DataDirectory::open(&cluster.data_dir()).unwrap().end;
    Kept { path, end }
}

fn write_history(settings: &str) -> History {
    let mut cluster = Cluster::init(&format!(
        "max_prepared_transactions = 10\nallow_in_place_tablespaces = on\nwal_keep_size = '10GB'\nautovacuum = off\n\
         shared_buffers = '2MB'\n{settings}"
    ));
    // Numbers of relation files that the server gives again, having passed 2^32, to others.
    cluster.start();
    run_sql_file(&cluster, include_str!("history/before.sql"));
    cluster.stop();
    let data = cluster.data_dir();
    cluster.run("pg_resetwal", &["-o", "4294967270", "-D", postgres_testing::text(&data)]);
    let mut kept = vec![keep(&cluster, 0)];
    let mut rmgrs = BTreeMap::new();
    for (number, phase) in PHASES.iter().enumerate() {
        cluster.start();
        run_sql_file(&cluster, phase);
        resource_managers(&cluster, &mut rmgrs);
        cluster.stop();
        kept.push(keep(&cluster, number + 1));
    }
    let reused = relation_files(&kept[1].path);
    let user =
        |(rel, _): &(&RelTag, &Vec<u8>)| rel.rel >= Oid(16384) && rel.fork == ForkNumber::Main;
    let files = relation_files(&kept[0].path);
    let reused = files.iter().filter(user).filter(|(rel, _)| reused.contains_key(rel));
    assert!(reused.count() >= 3, "no number was used again");
    History { cluster, kept, rmgrs }
}

/// PostgreSQL's numbers of the resource managers (`access/rmgrlist.h`).
const RM_HEAP: u8 = 10;
const RM_SEQ: u8 = 15;
const RM_SPGIST: u8 = 16;

/// Which resource manager's mask the pages of each relation need, asked of the running server.
fn resource_managers(cluster: &Cluster, found: &mut BTreeMap<RelFileLocator, u8>) {
    let managers = ["heap", "btree", "hash", "gin", "gist", "S", "spgist", "brin"];
    let query = "select case when reltablespace = 0 then dattablespace else reltablespace end,
            case when relisshared then 0 else d.oid end,
            pg_relation_filenode(c.oid), coalesce(amname, relkind::text)
        from pg_class c join pg_database d on datname = current_database()
             left join pg_am a on a.oid = relam
        where pg_relation_filenode(c.oid) is not null";
    for database in cluster.sql("select datname from pg_database where datallowconn").lines() {
        for row in cluster.sql_in(database, query).lines() {
            let fields: Vec<&str> = row.split('|').collect();
            let oid = |n: usize| Oid(fields[n].parse().unwrap());
            let locator = RelFileLocator { spc: oid(0), db: oid(1), rel: oid(2) };
            let at = managers.iter().position(|name| *name == fields[3]).unwrap();
            found.insert(locator, RM_HEAP + at as u8);
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: io::Result<DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(folder).unwrap().map(name).collect()
}

/// The tablespaces in a data directory, in which all of them are.
fn tablespaces(pgdata: &Path) -> BTreeMap<Oid, String> {
    let tablespace = |name: String| {
        let folder = format!("pg_tblspc/{name}/{TABLESPACE_VERSION_DIRECTORY}");
        assert!(pgdata.join(&folder).is_dir());
        (Oid(name.parse().unwrap()), folder)
    };
    names(&pgdata.join("pg_tblspc")).into_iter().map(tablespace).collect()
}

/// The folders of databases in a data directory.
fn database_folders(pgdata: &Path) -> BTreeMap<DbTag, String> {
    let mut tablespaces = tablespaces(pgdata);
    tablespaces.insert(Oid::DEFAULT_TABLESPACE, "base".to_owned());
    let mut folders = BTreeMap::new();
    for (spc, folder) in tablespaces {
        for name in names(&pgdata.join(&folder)) {
            let tag = DbTag { spc, db: Oid(name.parse().unwrap()) };
            folders.insert(tag, format!("{folder}/{name}"));
        }
    }
    folders
}

/// The files of every relation in a data directory, segments joined.
fn relation_files(pgdata: &Path) -> BTreeMap<RelTag, Vec<u8>> {
    let mut folders = vec!["global".to_owned()];
    folders.extend(database_folders(pgdata).into_values());
    let mut files = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(pgdata.join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Ok(file) = parse_relation_path(&format!("{folder}/{name}")) {
                assert_eq!(file.segment, 0, "the test's relations are small");
                files.insert(file.tag, fs::read(pgdata.join(&folder).join(&name)).unwrap());
            }
        }
    }
    files
}

/// Relations whose main fork is not logged: what their init fork belongs to.
fn unlogged(files: &BTreeMap<RelTag, Vec<u8>>) -> BTreeSet<RelFileLocator> {
    let init = |rel: &&RelTag| rel.fork == ForkNumber::Init;
    files.keys().filter(init).map(|rel| rel.locator()).collect()
}

fn compare(
    opened: &Opened,
    timeline: &Arc<Timeline>,
    kept: &Kept,
    rmgrs: &BTreeMap<RelFileLocator, u8>,
) {
    let pool = opened.maker.start_pool(&timeline.cluster().control_file_bytes).unwrap();
    let files = relation_files(&kept.path);
    let unlogged = unlogged(&files);
    let skip = |rel: &RelTag| {
        // Nothing of the free space map is logged, nor of unlogged relations but their init fork. What
        // images have of maps is looked at by `check_new_maps`.
        rel.fork == ForkNumber::Fsm
            || (rel.fork != ForkNumber::Init && unlogged.contains(&rel.locator()))
    };
    let ours: BTreeMap<RelTag, u32> = timeline
        .list_rels(kept.end)
        .unwrap()
        .into_iter()
        .filter(|(rel, _)| !skip(rel))
        .map(|(rel, size)| (rel, size.0))
        .collect();
    let theirs: BTreeMap<RelTag, u32> = files
        .iter()
        .filter(|(rel, _)| !skip(rel))
        .map(|(rel, bytes)| (*rel, (bytes.len() / 8192) as u32))
        .collect();
    let only = |a: &BTreeMap<RelTag, u32>, b: &BTreeMap<RelTag, u32>| -> Vec<(RelTag, u32)> {
        a.iter().filter(|(rel, size)| b.get(rel) != Some(size)).map(|(r, s)| (*r, *s)).collect()
    };
    // A visibility map is made without a record when it is first looked at; no bit is set then,
    // which means the same as no map.
    let unused_map = |(rel, _): &(RelTag, u32)| {
        let no_bit = |page: &[u8]| page[24..].iter().all(|byte| *byte == 0);
        rel.fork == ForkNumber::Vm && files[rel].chunks(8192).all(no_bit)
    };
    let (only_ours, mut only_theirs) = (only(&ours, &theirs), only(&theirs, &ours));
    only_theirs.retain(|entry| !unused_map(entry));
    assert!(
        only_ours.is_empty() && only_theirs.is_empty(),
        "relations and their sizes at {}: ours {only_ours:?}, the server's {only_theirs:?}",
        kept.end
    );

    let mut differences = Vec::new();
    let mut compared = 0;
    for (rel, bytes) in files.iter().filter(|(rel, _)| ours.contains_key(rel)) {
        let block = |n: usize| BlockNumber(n as u32);
        let requests: Vec<PageRequest> =
            (0..bytes.len() / 8192).map(|n| PageRequest::rel(*rel, block(n), kept.end)).collect();
        let pages = timeline.get_pages(&requests, TIMEOUT);
        for (n, (page, expected)) in pages.into_iter().zip(bytes.chunks(8192)).enumerate() {
            let page = page.unwrap().into_image();
            let expected = PageImage::from_slice(expected).unwrap();
            compared += 1;
            if *page == expected {
                continue;
            }
            let mask = match rmgrs.get(&rel.locator()) {
                Some(rmid) if rel.fork == ForkNumber::Main => MaskKind::ResourceManager(*rmid),
                // A table of a transaction that is only prepared.
                None if rel.fork == ForkNumber::Main => MaskKind::ResourceManager(RM_HEAP),
                // A visibility map is nothing but its bits.
                _ => MaskKind::PageHeader,
            };
            // CREATE DATABASE with strategy WAL_LOG logs pages of the visibility map as if they
            // had a hole behind their header, so that every standby has an empty map, too. A bit
            // that is missing costs time; one too many would give wrong answers.
            let made_by_log = rel.db > Oid(5) && rel.fork == ForkNumber::Vm;
            if made_by_log && (24..8192).all(|at| page[at] & !expected[at] == 0) {
                continue;
            }
            // Block 0 of an SP-GiST index caches where there is room, which is not logged. Of a
            // sequence the WAL has the value 32 steps ahead, so that not each step is logged.
            let unlogged_cache = n == 0
                && rel.fork == ForkNumber::Main
                && matches!(rmgrs.get(&rel.locator()), Some(&RM_SPGIST | &RM_SEQ));
            if unlogged_cache && page.lsn() == expected.lsn() {
                continue;
            }
            let ours = pool.mask_page(mask, &page, block(n)).unwrap();
            let theirs = pool.mask_page(mask, &expected, block(n)).unwrap();
            if ours != theirs {
                let at: Vec<usize> = (0..8192).filter(|at| ours[*at] != theirs[*at]).collect();
                differences.push(format!(
                    "{rel} block {n} mask {mask:?}: ours {} theirs {}; {} bytes from {} on: {:?} {:?}",
                    page.lsn(),
                    expected.lsn(),
                    at.len(),
                    at[0],
                    at.iter().take(8).map(|at| ours[*at]).collect::<Vec<_>>(),
                    at.iter().take(8).map(|at| theirs[*at]).collect::<Vec<_>>(),
                ));
            }
        }
    }
    assert!(differences.is_empty(), "at {}:\n{}", kept.end, differences.join("\n"));
    assert!(compared > 2000, "only {compared} pages were compared");
    println!("{compared} pages compared at {}", kept.end);

    for kind in SlruKind::ALL {
        let mut ours = BTreeMap::new();
        for (segment, pages) in timeline.slru_segments(kind, kept.end).unwrap() {
            let object = ObjectTag::Slru { kind, segment };
            let request = |n| PageRequest {
                page: ObjectPage { object, block: BlockNumber(n) },
                lsn: kept.end,
            };
            let requests: Vec<_> = (0..pages).map(request).collect();
            let pages = timeline.get_pages(&requests, TIMEOUT);
            let bytes: Vec<u8> = pages.into_iter().flat_map(|p| p.unwrap().to_vec()).collect();
            ours.insert(segment, bytes);
        }
        let mut theirs = BTreeMap::new();
        for entry in fs::read_dir(kept.path.join(kind.dir())).unwrap() {
            let entry = entry.unwrap();
            let segment = u32::from_str_radix(entry.file_name().to_str().unwrap(), 16).unwrap();
            theirs.insert(segment, fs::read(entry.path()).unwrap());
        }
        let sizes = |m: &BTreeMap<u32, Vec<u8>>| -> Vec<_> {
            m.iter().map(|(s, b)| (*s, b.len())).collect()
        };
        assert_eq!(sizes(&ours), sizes(&theirs), "{kind} at {}", kept.end);
        assert!(ours == theirs, "{kind} differs at {}", kept.end);
    }

    let state = timeline.state_at(kept.end).unwrap();
    let data = DataDirectory::open(&kept.path).unwrap();
    assert_eq!(state.base, kept.end);
    assert_eq!(state.state, data.state, "checkpoint state at {}", kept.end);

    let mut databases = database_folders(&kept.path);
    for (tag, folder) in &databases {
        let map = fs::read(kept.path.join(format!("{folder}/pg_filenode.map"))).ok();
        let ours = timeline.rel_map(*tag, kept.end).unwrap().map(|map| map.to_vec());
        assert_eq!(ours, map, "{tag:?} at {}", kept.end);
    }
    // A folder that is made for the first relation of a database in a tablespace has no record.
    let ours = timeline.databases(kept.end).unwrap();
    databases
        .retain(|tag, _| ours.contains(tag) || timeline.rel_map(*tag, kept.end).unwrap().is_some());
    assert_eq!(ours, databases.into_keys().collect());
    let ours = timeline.tablespaces(kept.end).unwrap().into_keys();
    assert!(ours.eq(tablespaces(&kept.path).into_keys()), "tablespaces at {}", kept.end);
    let map = fs::read(kept.path.join("global/pg_filenode.map")).unwrap();
    let shared = DbTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid::INVALID };
    assert_eq!(timeline.rel_map(shared, kept.end).unwrap().unwrap()[..], map[..]);

    let mut prepared = BTreeMap::new();
    for entry in fs::read_dir(kept.path.join("pg_twophase")).unwrap() {
        let entry = entry.unwrap();
        let xid = u32::from_str_radix(entry.file_name().to_str().unwrap(), 16).unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        prepared.insert(xid, bytes[..bytes.len() - 4].to_vec());
    }
    let ours: BTreeMap<u32, Vec<u8>> = timeline
        .two_phase(kept.end)
        .unwrap()
        .into_iter()
        .map(|(xid, b)| (xid, b.to_vec()))
        .collect();
    assert_eq!(ours, prepared, "prepared transactions at {}", kept.end);
}

/// Pages looked at for one LSN by `answers`.
const PAGES_OF_ANSWERS: usize = 150;

/// Free space maps looked at for one LSN by `answers`.
const MAPS_OF_ANSWERS: usize = 40;

/// What the timeline answers as of `lsn`, with pages chosen by `seed`.
/// Which of the answers an older history may have another of: the LSN of a time.
const TIMES: usize = 8;

fn answers(timeline: &Arc<Timeline>, lsn: Lsn, seed: u64) -> Vec<String> {
    let mut objects = timeline.list_objects(lsn).unwrap();
    check_maps(timeline, lsn, &objects, seed);
    // Every image makes them anew.
    objects.retain(|object, _| !is_map(*object));
    let databases = timeline.databases(lsn).unwrap();
    let shared = DbTag { spc: Oid::GLOBAL_TABLESPACE, db: Oid::INVALID };
    let map = |tag: DbTag| timeline.rel_map(tag, lsn).unwrap();
    let time = timeline.timestamp_at(lsn).unwrap();
    let mut answers = vec![
        format!("{objects:?}"),
        format!("{databases:?}"),
        format!("{:?}", databases.iter().copied().chain([shared]).map(map).collect::<Vec<_>>()),
        format!("{:?}", timeline.tablespaces(lsn).unwrap()),
        format!("{:?}", timeline.two_phase(lsn).unwrap()),
        format!("{:?}", timeline.replication_origins(lsn).unwrap()),
        format!("{:?}", timeline.state_at(lsn).unwrap()),
        format!("{time}"),
        format!("{:?}", timeline.lsn_at(time).ok()),
    ];
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let pages: Vec<ObjectPage> = objects
        .iter()
        .flat_map(|(object, size)| (0..*size).map(|n| (*object, BlockNumber(n))))
        .map(|(object, block)| ObjectPage { object, block })
        .collect();
    let chosen: Vec<PageRequest> = pages
        .choose_multiple(&mut rng, PAGES_OF_ANSWERS)
        .map(|page| PageRequest { page: *page, lsn })
        .collect();
    for (page, request) in timeline.get_pages(&chosen, TIMEOUT).into_iter().zip(&chosen) {
        let PageRequest { page: ObjectPage { object, block }, .. } = request;
        let checksum = crc32c::crc32c(&page.unwrap()[..]);
        answers.push(format!("block {block} of {object} at {lsn}: {checksum:08x}"));
        // Sizes are also asked for one by one.
        assert_eq!(timeline.object_size(*object, lsn).unwrap(), objects.get(object).copied());
    }
    answers
}

fn is_map(object: ObjectTag) -> bool {
    matches!(object, ObjectTag::Rel(rel) if rel.fork == ForkNumber::Fsm)
}

/// Whatever free space maps there are: each belongs to a relation, all pages of it can be had, and none
/// names a page behind the relation's end.
fn check_maps(timeline: &Arc<Timeline>, lsn: Lsn, objects: &BTreeMap<ObjectTag, u32>, seed: u64) {
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let maps: Vec<_> = objects.iter().filter(|(object, _)| is_map(**object)).collect();
    for (object, size) in maps.choose_multiple(&mut rng, MAPS_OF_ANSWERS) {
        let ObjectTag::Rel(rel) = **object else { unreachable!("it is a map") };
        let table = ObjectTag::Rel(rel.locator().fork(ForkNumber::Main));
        let pages = objects.get(&table).unwrap_or_else(|| panic!("{rel} without its table"));
        assert_eq!(timeline.object_size(**object, lsn).unwrap(), Some(**size));
        // One behind the end, too: a compute may have been made when the map was longer.
        let requests: Vec<PageRequest> =
            (0..=**size).map(|block| PageRequest::rel(rel, BlockNumber(block), lsn)).collect();
        for (page, request) in timeline.get_pages(&requests, TIMEOUT).into_iter().zip(requests) {
            let (page, block) = (page.unwrap(), request.page.block);
            assert!(
                !free_space_map::names_behind(*pages, block, &page),
                "block {block} of {rel} at {lsn} names pages behind {pages}"
            );
        }
    }
}

/// In the image at `lsn` the maps say what the tables' pages say.
fn check_new_maps(timeline: &Arc<Timeline>, lsn: Lsn) {
    let objects = timeline.list_objects(lsn).unwrap();
    let mut with_room = 0;
    for (object, pages) in &objects {
        let ObjectTag::Rel(rel) = *object else { continue };
        let init = ObjectTag::Rel(rel.locator().fork(ForkNumber::Init));
        if rel.fork != ForkNumber::Main || *pages == 0 || objects.contains_key(&init) {
            continue;
        }
        let get = |rel, block| {
            let request = PageRequest::rel(rel, BlockNumber(block), lsn);
            timeline.get_page(request, TIMEOUT).unwrap()
        };
        let map = rel.locator().fork(ForkNumber::Fsm);
        let first = free_space_map::heap_page_room(&get(rel, 0)).filter(|room| *room < 8168);
        if first.is_none() {
            continue;
        }
        assert_eq!(
            objects.get(&ObjectTag::Rel(map)),
            Some(&free_space_map::pages_for(*pages)),
            "{map}"
        );
        for block in 0..*pages {
            let room = free_space_map::heap_page_room(&get(rel, block)).unwrap();
            let (place, slot) = free_space_map::locate(BlockNumber(block));
            let found = free_space_map::slots(&get(map, place.0))[slot as usize];
            assert_eq!(found, free_space_map::category(room), "block {block} of {rel} at {lsn}");
            with_room += u32::from(found > 0);
        }
    }
    assert!(with_room > 0, "no room at {lsn}");
}

fn every_page_at_every_stop(settings: &str) {
    let history = write_history(settings);
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let dir = scratch_dir("zenith-history-");
    let main = "main".parse().unwrap();
    let id = Repository::init_from_pgdata(dir.path(), &history.kept[0].path, &main).unwrap();
    let opened = open(dir, 64 << 20);
    let timeline = opened.repository.timeline(id).unwrap();
    receive(&timeline, &history.cluster, history.kept.last().unwrap().end, &mut rng);
    let rmgrs = &history.rmgrs;
    for kept in &history.kept {
        compare(&opened, &timeline, kept, rmgrs);
    }

    // What is answered before, at and behind images must be the same without them, and before and
    // after layers are merged.
    timeline.freeze().unwrap();
    let ends: Vec<Lsn> = timeline.layer_files().iter().map(|layer| layer.end).collect();
    let images: Vec<Lsn> = ends.choose_multiple(&mut rng, 3).copied().collect();
    let near = |lsn: &Lsn| [-8, 0, 8].map(|by| Lsn::new(lsn.as_u64().wrapping_add_signed(by)));
    let mut lsns: Vec<Lsn> = history.kept.iter().map(|kept| kept.end).collect();
    lsns.extend(images.iter().flat_map(near));
    lsns.retain(|lsn| *lsn <= timeline.last_record_lsn() && *lsn >= timeline.start_lsn());
    let without: Vec<_> = lsns.iter().map(|lsn| answers(&timeline, *lsn, seed)).collect();
    for lsn in &images {
        println!("image at {lsn}: {}", timeline.make_image(*lsn).unwrap());
    }
    // That with which the timeline began has the maps that the server had.
    for lsn in images.iter().filter(|lsn| **lsn > timeline.start_lsn()).take(1) {
        check_new_maps(&timeline, *lsn);
    }
    merge_deltas(&timeline, &mut rng);

    // The same from branches made at each stop, and after everything was opened anew, with a
    // cache that holds next to nothing.
    for (number, kept) in history.kept.iter().enumerate() {
        let point = format!("main@{}", kept.end).parse().unwrap();
        let name = format!("stop{number}").parse().unwrap();
        opened.repository.create_branch(&name, &point, TIMEOUT).unwrap();
    }
    let broken_off = *ends.choose(&mut rng).unwrap();
    let breaking_off = begin_image(&timeline, broken_off);
    let Opened { repository, maker, dir } = opened;
    repository.shut_down();
    println!("image at {broken_off} broken off: {:?}", breaking_off.join().unwrap());
    drop((timeline, repository, maker));
    let opened = open(dir, 1 << 20);
    {
        let timeline = opened.repository.timeline(id).unwrap();
        // The image that was broken off is just gone on with, and layers may be merged.
        let image = format!("image__{:016X}", broken_off.as_u64());
        let is_of_it = |layer: &LayerFile| layer.name.starts_with(&image);
        let pieces: Vec<_> = timeline.layer_files().into_iter().filter(is_of_it).collect();
        let listed = || timeline.layer_files().into_iter().map(|layer| layer.name).collect();
        let files = || names(&timeline.dir().join("layers")).into_iter().collect();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (listed, files): (BTreeSet<String>, BTreeSet<String>) = (listed(), files());
            if listed == files {
                break;
            }
            assert!(Instant::now() < deadline, "files that do not count: {files:?}, {listed:?}");
            std::thread::yield_now();
        }
        let check = || {
            for (lsn, without) in lsns.iter().zip(&without) {
                let with = answers(&timeline, *lsn, seed);
                assert_eq!(&with, without, "layers as written and then changed, at {lsn}");
            }
        };
        check();
        // What is there of it is not made again.
        if !images.contains(&broken_off) && timeline.make_image(broken_off).unwrap() {
            println!("the image was made whole here");
        }
        let now = timeline.layer_files();
        assert!(pieces.iter().all(|piece| now.contains(piece)), "{pieces:?} {now:?}");
        check();
    }
    for (number, kept) in history.kept.iter().enumerate() {
        let branch = opened.repository.branch(&format!("stop{number}").parse().unwrap()).unwrap();
        let timeline = opened.repository.timeline(branch.timeline).unwrap();
        compare(&opened, &timeline, kept, rmgrs);
    }

    // The branches' points, a range and what is behind the last image stay as they are when the rest is removed.
    let timeline = opened.repository.timeline(id).unwrap();
    let horizon = timeline.layer_files().last().map(|layer| layer.end).unwrap();
    let points: BTreeSet<Lsn> = history.kept.iter().map(|kept| kept.end).collect();
    let third = lsns.len() / 3;
    let range = Needed { from: lsns[third], to: lsns[third + 2] };
    let since = Needed::since(timeline.record_end_before(horizon).unwrap());
    let needed = points.iter().copied().map(Needed::point).chain([range, since]);
    let needed: Vec<Needed> = needed.collect();
    let listed = timeline.unneeded(&needed);
    let removed = collect(&timeline, &needed);
    println!("removed: {removed:?}");
    assert_eq!(listed, removed);
    let horizon = removed.horizon;
    assert!(timeline.oldest_lsn() == horizon || removed.layers.is_empty());
    let check = |timeline: &Arc<Timeline>| {
        let files = names(&timeline.dir().join("layers"));
        assert!(removed.layers.iter().all(|layer| !files.contains(&layer.name)), "{files:?}");
        for (lsn, before) in lsns.iter().zip(&without) {
            let is_needed = points.contains(lsn) || (range.from <= *lsn && *lsn <= range.to);
            if *lsn < horizon && !is_needed && !removed.layers.is_empty() {
                let error = timeline.list_objects(*lsn).unwrap_err();
                assert!(error.to_string().contains(&horizon.to_string()), "{error}");
                continue;
            }
            let mut now = answers(timeline, *lsn, seed);
            now[TIMES].clone_from(&before[TIMES]);
            assert_eq!(&now, before, "after layers were removed, at {lsn}");
        }
    };
    check(&timeline);
    let Opened { repository, maker, dir } = opened;
    repository.shut_down();
    drop((timeline, repository, maker));
    let opened = open(dir, 1 << 20);
    check(&opened.repository.timeline(id).unwrap());
    let branch = opened.repository.branch(&"stop1".parse().unwrap()).unwrap();
    let timeline = opened.repository.timeline(branch.timeline).unwrap();
    compare(&opened, &timeline, &history.kept[1], rmgrs);
    drop(timeline);
    detach_one(opened, &history, &mut rng);
}

/// A branch that goes on as the original did gives the same answers from its beginning on when it is
/// detached, and also after everything was opened anew.
fn detach_one(opened: Opened, history: &History, rng: &mut impl Rng) {
    let number = rng.random_range(0..history.kept.len());
    println!("detached at stop {number}");
    let (from, last) = (&history.kept[number], history.kept.last().unwrap());
    let name = format!("stop{number}").parse().unwrap();
    let branch = opened.repository.branch(&name).unwrap();
    let timeline = opened.repository.timeline(branch.timeline).unwrap();
    if from.end < last.end {
        receive(&timeline, &history.cluster, last.end, rng);
    }
    let later = history.kept.iter().map(|kept| kept.end).filter(|end| *end >= from.end);
    let lsns: Vec<Lsn> = later.collect();
    let seed = rng.random();
    let before: Vec<_> = lsns.iter().map(|lsn| answers(&timeline, *lsn, seed)).collect();
    let check = |timeline: &Arc<Timeline>| {
        for (lsn, before) in lsns.iter().zip(&before) {
            let mut now = answers(timeline, *lsn, seed);
            now[TIMES].clone_from(&before[TIMES]);
            assert_eq!(&now, before, "detached, at {lsn}");
        }
        let error = timeline.list_objects(Lsn::new(branch.start.as_u64() - 8)).unwrap_err();
        assert!(error.to_string().contains(&branch.start.to_string()), "{error}");
    };
    let detached = opened.repository.detach(&name).unwrap();
    assert_eq!((detached.ancestor, detached.detaching), (None, false));
    check(&timeline);
    let Opened { repository, maker, dir } = opened;
    repository.shut_down();
    drop((timeline, repository, maker));
    let opened = open(dir, 1 << 20);
    let branch = opened.repository.branch(&name).unwrap();
    assert_eq!(branch.ancestor, None);
    let timeline = opened.repository.timeline(branch.timeline).unwrap();
    check(&timeline);
    compare(&opened, &timeline, from, &history.rmgrs);
    compare(&opened, &timeline, last, &history.rmgrs);
}

/// Begins to make an image, and waits until a piece of it is there. It ends when the timeline is shut down.
fn begin_image(timeline: &Arc<Timeline>, lsn: Lsn) -> std::thread::JoinHandle<String> {
    let of_thread = timeline.clone();
    let making = std::thread::spawn(move || format!("{:?}", of_thread.make_image(lsn)));
    let is_there = || timeline.layer_files().iter().any(|it| it.is_image && it.end == lsn);
    while !making.is_finished() && !is_there() {
        std::thread::yield_now();
    }
    making
}

/// Somebody else may be about the layers for a moment.
fn collect(timeline: &Timeline, needed: &[Needed]) -> Collected {
    loop {
        if let Some(removal) = timeline.collect(needed).unwrap() {
            return removal.finish();
        }
        std::thread::yield_now();
    }
}

#[test]
fn with_full_page_images() {
    every_page_at_every_stop("");
}

#[test]
fn without_full_page_images() {
    every_page_at_every_stop("full_page_writes = off\nwal_compression = off");
}
