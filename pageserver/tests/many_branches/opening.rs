//! What is read, and what is not.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pageserver::object::{ObjectPage, ObjectTag};
use pageserver::repository::UnloadOptions;
use pageserver::timeline::PageRequest;
use postgres_formats::slru::SlruKind;
use postgres_formats::{BlockNumber, TimelineId};

use crate::fixture::{Folder, create, name};

const MANY: usize = 2000;

/// How often this thread has opened a file so far, as far as the kernel counts what goes with it.
fn reads_so_far() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

#[test]
fn one_branch_of_many_is_served_without_reading_the_others() {
    let folder = Folder::new_in_memory();
    let like = create(&folder.open(), &name("like"), &name("main")).unwrap();
    let names = folder.multiply(&like, MANY);
    // Whoever reads all of them finds this one.
    fs::write(folder.timeline(TimelineId::generate()), "").unwrap();
    fs::write(folder.reference(&name("zz")), "?").unwrap();

    let before = reads_so_far();
    let repository = folder.open();
    let branch = repository.branch(&names[MANY / 2]).unwrap();
    let timeline = repository.timeline(branch.timeline).unwrap();
    let page = ObjectPage {
        object: ObjectTag::Slru { kind: SlruKind::Clog, segment: 0 },
        block: BlockNumber(0),
    };
    let request = PageRequest { page, lsn: timeline.last_record_lsn() };
    let pages = timeline.get_pages(&[request], Duration::ZERO);
    assert!(pages[0].is_ok());
    create(&repository, &name("more"), &names[7]).unwrap();
    let reads = reads_so_far() - before;
    assert!(reads < 100, "{reads} reads");

    // All of them, when somebody wants to know.
    let all = repository.branches().unwrap();
    assert_eq!(all.len(), MANY + 3);
    assert!(reads_so_far() - before > 2 * MANY as u64);
    assert!(all.iter().any(|branch| branch.name == name("more")));
    assert_eq!(repository.unreadable().len(), 2);
    let before = reads_so_far();
    assert!(repository.branch(&names[3]).is_ok() && repository.branch(&name("nobody")).is_err());
    repository.rename_branch(&names[3], &name("renamed")).unwrap();
    assert!(reads_so_far() - before < 20);
}

/// Whatever is not in use.
const ALL: UnloadOptions = UnloadOptions { idle: Duration::ZERO, loaded_max: 0 };

#[test]
fn what_nobody_uses_leaves_memory_the_longest_unused_first() {
    let folder = Folder::new_in_memory();
    let repository = folder.open();
    let mut names = vec![name("main")];
    for n in 0..6 {
        let next = name(&format!("b{n}"));
        create(&repository, &next, &names[0]).unwrap();
        names.push(next);
    }
    let id = |n: usize| repository.branch(&names[n]).unwrap().timeline;
    let ids: Vec<_> = (0..7).map(id).collect();
    let loaded = || -> Vec<usize> {
        (0..7).filter(|n| repository.loaded_timeline(ids[*n]).is_some()).collect()
    };
    // All stand on `main`.
    for id in &ids {
        repository.timeline(*id).unwrap();
    }
    assert_eq!(repository.loaded_count(), 7);
    let hour = UnloadOptions { idle: Duration::from_secs(3600), loaded_max: 10 };
    assert_eq!(repository.unload_unused(hour, Instant::now()), 0);

    let held = repository.timeline(ids[3]).unwrap();
    let later = Instant::now() + Duration::from_secs(3601);
    assert_eq!(repository.unload_unused(hour, later), 5);
    // What it stands on is in use with it.
    assert_eq!(loaded(), [0, 3]);
    drop(held);
    // Somebody had it at that moment.
    assert_eq!(repository.unload_unused(hour, later + Duration::from_secs(3599)), 0);
    assert_eq!(repository.unload_unused(hour, later + Duration::from_secs(3600)), 1);

    let few = UnloadOptions { idle: Duration::from_secs(36_000), loaded_max: 3 };
    let mut now = later + Duration::from_secs(3600);
    for n in [5, 2, 6, 4] {
        now += Duration::from_secs(1);
        let _held = repository.timeline(ids[n]).unwrap();
        assert_eq!(repository.unload_unused(hour, now), 0);
    }
    assert_eq!(repository.unload_unused(few, now), 2);
    assert_eq!(loaded(), [0, 4, 6]);
    assert_eq!(repository.unload_unused(ALL, now), 3);
    assert_eq!(repository.loaded_count(), 0);
}

#[test]
fn that_nothing_was_received_is_looked_at_once_until_the_timeline_is_loaded() {
    let folder = Folder::new_in_memory();
    let repository = folder.open();
    let id = create(&repository, &name("dev"), &name("main")).unwrap().timeline;
    assert!(repository.has_no_wal(id));
    // As receiving leaves it, which only one that is loaded does.
    fs::write(folder.timeline(id).join("wal/000000010000000000000001"), "").unwrap();
    assert!(repository.has_no_wal(id));
    repository.timeline(id).unwrap();
    assert!(!repository.has_no_wal(id));
    assert_eq!(repository.unload_unused(ALL, Instant::now()), 2);
    assert!(!repository.has_no_wal(id));
}

#[test]
fn whoever_asks_while_a_timeline_leaves_gets_the_one_that_there_is() {
    const ROUNDS: usize = 300;
    let folder = Folder::new_in_memory();
    let repository = folder.open();
    create(&repository, &name("dev"), &name("main")).unwrap();
    let ids = ["main", "dev"].map(|text| repository.branch(&name(text)).unwrap().timeline);
    let done = AtomicBool::new(false);
    let unloaded = thread::scope(|scope| {
        let unloading = scope.spawn(|| {
            let mut unloaded = 0;
            while !done.load(Ordering::Relaxed) {
                unloaded += repository.unload_unused(ALL, Instant::now());
            }
            unloaded
        });
        let asking: Vec<_> = (0..4)
            .map(|n| {
                let (repository, id) = (&repository, ids[n % 2]);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        let one = repository.timeline(id).unwrap();
                        let other = repository.timeline(id).unwrap();
                        assert!(Arc::ptr_eq(&one, &other));
                    }
                })
            })
            .collect();
        let ended: Vec<_> = asking.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|thread| thread.unwrap());
        unloading.join().unwrap()
    });
    assert!(unloaded > 0);
    // The threads that see to layers have one for a moment now and then.
    while repository.loaded_count() > 0 {
        repository.unload_unused(ALL, Instant::now());
    }
}

/// Prints what making a branch takes among few and among many; run it with
/// `cargo test --release -p pageserver --test many_branches -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_making_a_branch_takes() {
    let folder = Folder::new();
    let like = create(&folder.open(), &name("like"), &name("main")).unwrap();
    for (count, of) in [(0, "few"), (10_000, "many")] {
        folder.multiply(&like, count);
        let began = Instant::now();
        let repository = folder.open();
        repository.branch(&name("main")).unwrap();
        let opened = began.elapsed();
        repository.know_all().unwrap();
        let all = began.elapsed();
        let mut times: Vec<Duration> = (0..200)
            .map(|n| {
                let began = Instant::now();
                create(&repository, &name(&format!("{of}{n}")), &name("main")).unwrap();
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!(
            "{} branches: first found after {opened:?}, all known after {all:?}; making one \
             {:?} (median), {:?} (nine of ten)",
            repository.branch_count().unwrap(),
            times[times.len() / 2],
            times[times.len() * 9 / 10],
        );
    }
}
