//! What is read, and what is not.

use std::fs;
use std::time::{Duration, Instant};

use pageserver::object::{ObjectPage, ObjectTag};
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
