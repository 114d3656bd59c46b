//! Who keeps history from being removed, and that nobody gets what is gone.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use pageserver_client::{At, BranchName, Point};
use postgres_formats::{BLCKSZ, Lsn, TimelineId};

use super::{Branch, LeaseRequest, Repository, RepositoryError, Retention};
use crate::layer::freezer::LayerOptions;
use crate::timeline::damage::sample::{Sample, page, pages_of_images};
use crate::timeline::error::TimelineError;
use crate::timeline::{Needed, Timeline};

/// So many pages are written, and so many make a layer with an image behind it.
const PAGES: u8 = 80;
const PAGES_OF_LAYER: usize = 8;
const LAST: Retention = Retention { window_bytes: Some(1), window_seconds: None };
const ALL: Retention = Retention { window_bytes: None, window_seconds: None };

fn open(dir: &Path) -> Arc<Repository> {
    let options = LayerOptions {
        stretch_bytes: u64::MAX,
        cache_bytes: 1 << 20,
        retention: LAST,
        ..LayerOptions::default()
    };
    let log = slog::Logger::root(slog::Discard, slog::o!());
    Repository::open(dir, "main", pages_of_images(), options, &log).unwrap()
}

/// What a server has written on a timeline.
struct Line {
    sample: Sample,
    first: u8,
}

impl Line {
    /// Takes in and puts into layers what `count` pages after what is there make.
    fn write(sample: Sample, timeline: &Arc<Timeline>, first: u8, count: u8) -> Line {
        let mut line = Line { sample, first };
        for content in first..first + count {
            line.sample.write_page(content, 200);
        }
        let ends = line.sample.ends.clone();
        for ends in ends.chunks(PAGES_OF_LAYER) {
            let (from, to) = (timeline.restart_receiving().unwrap(), *ends.last().unwrap());
            let bytes = &line.sample.wal_from(from)[..to.distance_from(from).unwrap() as usize];
            timeline.receive_wal(from, bytes).unwrap();
            timeline.sync_wal().unwrap();
            timeline.freeze().unwrap();
            timeline.make_image(to).unwrap();
        }
        line
    }

    fn at(&self, n: usize) -> Lsn {
        self.sample.ends[n]
    }

    /// That page number `n` can be read.
    fn check(&self, timeline: &Arc<Timeline>, n: usize) {
        let found = page(timeline, self.at(n)).unwrap_or_else(|| panic!("no page {n}"));
        let mut expected = vec![self.first + n as u8; 200];
        expected.resize(BLCKSZ, 0);
        // It begins with LSN and checksum.
        assert!(found[10..] == expected[10..], "page {n}: {}", found[10]);
    }

    /// That of all pages just these can be read, and the others are refused with where history begins.
    fn check_only(&self, timeline: &Arc<Timeline>, there: &[usize]) {
        for n in 0..self.sample.ends.len() {
            match timeline.check_lsn(self.at(n)) {
                Ok(()) => {
                    self.check(timeline, n);
                    assert!(there.contains(&n), "{n} is there");
                }
                Err(TimelineError::BeforeBeginning { oldest, .. }) => {
                    assert!(!there.contains(&n), "{n} is gone");
                    assert_eq!(oldest, timeline.oldest_lsn());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A repository whose branch `main` has all its pages in layers.
struct Store {
    repository: Arc<Repository>,
    dir: tempfile::TempDir,
    main: Line,
    id: TimelineId,
}

impl Store {
    fn new() -> Store {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let sample = Sample::new(3000);
        let id = sample.manifest().id;
        let timeline = dir.path().join("timelines").join(id.to_string());
        for folder in ["wal", "layers"] {
            fs::create_dir_all(timeline.join(folder)).unwrap();
        }
        fs::create_dir_all(dir.path().join("refs/branches")).unwrap();
        fs::write(dir.path().join("refs/branches/main"), id.to_string()).unwrap();
        for file in ["pg_control", "layers/image"] {
            fs::copy(sample.dir.path().join(file), timeline.join(file)).unwrap();
        }
        sample.manifest().write(&timeline).unwrap();
        let repository = open(dir.path());
        repository.all_computes_known().unwrap();
        let main = Line::write(sample, &repository.timeline(id).unwrap(), 1, PAGES);
        Store { repository, dir, main, id }
    }

    fn reopen(&mut self) {
        self.repository.shut_down();
        self.repository = open(self.dir.path());
    }

    fn timeline(&self) -> Arc<Timeline> {
        self.repository.timeline(self.id).unwrap()
    }

    fn point(&self, n: usize) -> Point {
        Point { branch: name("main"), at: At::Lsn(self.main.at(n)) }
    }

    fn branch(&self, called: &str, n: usize) -> Branch {
        self.repository.create_branch(&name(called), &self.point(n), Duration::ZERO).unwrap()
    }

    fn request(&self, called: &str, n: usize) -> LeaseRequest {
        LeaseRequest {
            holder: called.parse().unwrap(),
            name: name(called),
            timeline: self.id,
            lsn: self.main.at(n),
            since: false,
            lasts: None,
        }
    }

    fn lease(&self, called: &str, n: usize) {
        self.repository.lease(&self.request(called, n), Duration::ZERO).unwrap();
    }

    /// Collects, having compared with what was announced.
    fn collect(&self, id: TimelineId) -> u64 {
        let outlook = self.repository.outlook(id).unwrap();
        let collected = self.repository.collect(id).unwrap();
        assert_eq!(collected, outlook.collected);
        collected.bytes()
    }

    fn held(&self) -> Vec<String> {
        let outlook = self.repository.outlook(self.id).unwrap();
        let held = outlook.held.iter().filter(|(_, bytes)| *bytes > 0);
        held.map(|(hold, _)| hold.holder.to_string()).collect()
    }
}

fn name(text: &str) -> BranchName {
    text.parse().unwrap()
}

fn is_below_horizon(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::Timeline(TimelineError::BeforeBeginning { .. }))
}

#[test]
fn what_somebody_needs_stays_as_long_as_they_do() {
    let mut store = Store::new();
    let last = usize::from(PAGES) - 1;
    store.branch("dev", 10);
    store.repository.create_tag(&name("v1"), &store.point(20), Duration::ZERO).unwrap();
    store.lease("pg", 30);
    let reader = LeaseRequest {
        lasts: Some(Duration::from_secs(3600)),
        since: true,
        ..store.request("verify", 77)
    };
    store.repository.lease(&reader, Duration::ZERO).unwrap();
    // Not of main: that of a timeline that stands on it before.
    let dev = store.repository.branch(&name("dev")).unwrap().timeline;
    let mut stream = store.repository.readings().begin(dev);
    stream.reads(store.main.at(5));
    let expected =
        ["branch dev", "tag v1", "compute pg", "reader verify", "a connection that reads there"];
    let mut held = store.held();
    held.retain(|holder| !expected.contains(&&**holder));
    assert_eq!(held, ["retention of branch dev"], "from {expected:?}");
    assert!(store.collect(store.id) > 0);
    store.main.check_only(&store.timeline(), &[5, 10, 20, 30, 77, 78, last]);
    drop(stream);
    store.reopen();
    store.main.check_only(&store.timeline(), &[5, 10, 20, 30, 77, 78, last]);
    assert!(store.collect(store.id) > 0, "a connection ends with the page server");
    store.main.check_only(&store.timeline(), &[10, 20, 30, 77, 78, last]);

    // A compute that moves has both places until it is there.
    store.lease("pg", 78);
    assert_eq!(store.collect(store.id), 0);
    let pg = "pg".parse().unwrap();
    store.repository.narrow_lease(&pg, store.main.at(78)).unwrap();
    assert!(store.collect(store.id) > 0);
    store.main.check_only(&store.timeline(), &[10, 20, 77, 78, last]);
    let gone = store.repository.lease(&store.request("other", 30), Duration::ZERO).unwrap_err();
    assert!(is_below_horizon(&gone), "{gone}");
    store.repository.drop_lease(&pg).unwrap();
    store.repository.drop_lease(&reader.holder).unwrap();
    store.repository.delete_tag(&name("v1")).unwrap();
    store.repository.delete_branch(&name("dev")).unwrap();
    assert!(store.collect(store.id) > 0);
    // A window of one byte begins within the last record.
    store.main.check_only(&store.timeline(), &[last - 1, last]);
    store.reopen();
    store.main.check_only(&store.timeline(), &[last - 1, last]);
    assert!(store.held().is_empty());
}

#[test]
fn a_branch_is_kept_as_far_back_as_it_says() {
    let mut store = Store::new();
    let last = usize::from(PAGES) - 1;
    let back = |from: usize, to: usize| {
        let bytes = store.main.at(to).distance_from(store.main.at(from)).unwrap();
        Some(Retention { window_bytes: Some(bytes), window_seconds: None })
    };
    let (of_dev, of_main) = (back(32, 41), back(70, last));
    store.branch("dev", 41);
    let repository = store.repository.clone();
    repository.retain_branch(&name("dev"), Some(ALL)).unwrap();
    repository.retain_branch(&name("main"), of_main).unwrap();
    // All that is older than the branch, but for what is between it and what is kept of main.
    assert!(store.collect(store.id) > 0);
    let mut there: Vec<usize> = (0..=41).chain(70..=last).collect();
    store.main.check_only(&store.timeline(), &there);
    assert_eq!(store.held(), ["retention of branch dev", "branch dev"]);
    drop(repository);
    store.reopen();
    store.main.check_only(&store.timeline(), &there);
    let dev = store.repository.branch(&name("dev")).unwrap();
    assert_eq!(dev.retention, Some(ALL));
    let of_branch = store.repository.timeline(dev.timeline).unwrap();
    assert!(of_branch.oldest_lsn() < store.main.at(0));
    store.main.check(&of_branch, 3);
    store.repository.retain_branch(&name("dev"), of_dev).unwrap();
    assert!(store.collect(store.id) > 0);
    there.retain(|n| *n >= 32);
    store.main.check_only(&store.timeline(), &there);
    assert_eq!(of_branch.oldest_lsn(), store.main.at(32));

    // By time: all of it is younger, or older, for it happened in no time.
    let by_time = |seconds| Some(Retention { window_bytes: None, window_seconds: Some(seconds) });
    for branch in ["main", "dev"] {
        store.repository.retain_branch(&name(branch), by_time(u64::MAX)).unwrap();
    }
    assert_eq!(store.collect(store.id), 0);
    for branch in ["main", "dev"] {
        store.repository.retain_branch(&name(branch), by_time(0)).unwrap();
    }
    assert!(store.collect(store.id) > 0);
    store.main.check_only(&store.timeline(), &[41, last]);
}

#[test]
fn of_a_branch_that_is_gone_only_what_others_need_is_kept() {
    let mut store = Store::new();
    let last = usize::from(PAGES) - 1;
    let dev = store.branch("dev", last);
    let timeline = store.repository.timeline(dev.timeline).unwrap();
    let prev = timeline.manifest().state.prev_record;
    let own = Line::write(Sample::going_on(dev.start, prev), &timeline, 100, 40);
    let at = |n: usize| Point { branch: name("dev"), at: At::Lsn(own.at(n)) };
    let leaf = store.repository.create_branch(&name("leaf"), &at(17), Duration::ZERO).unwrap();
    let reader = LeaseRequest {
        timeline: dev.timeline,
        lsn: own.at(30),
        lasts: Some(Duration::from_secs(3600)),
        ..store.request("verify", 0)
    };
    store.repository.lease(&reader, Duration::ZERO).unwrap();
    drop(timeline);
    store.repository.delete_branch_reparenting(&name("dev")).unwrap();
    assert!(store.collect(dev.timeline) > 0);
    for reopened in [false, true] {
        if reopened {
            store.reopen();
        }
        let timeline = store.repository.timeline(dev.timeline).unwrap();
        own.check_only(&timeline, &[17, 30]);
        own.check(&store.repository.timeline(leaf.timeline).unwrap(), 17);
    }
    store.repository.drop_lease(&reader.holder).unwrap();
    assert!(store.collect(dev.timeline) > 0);
    store.repository.delete_branch(&name("leaf")).unwrap();
    assert!(!store.dir.path().join("timelines").join(dev.timeline.to_string()).exists());
}

#[test]
fn a_sweep_loads_only_what_something_goes_of() {
    let mut store = Store::new();
    store.lease("pg", 30);
    let window = |bytes, seconds| Some(Retention { window_bytes: bytes, window_seconds: seconds });
    let retain = |store: &Store, retention| {
        store.repository.retain_branch(&name("main"), retention).unwrap();
    };
    let sweep = |store: &Store| store.repository.sweep(&mut |_| true).unwrap();
    for all in [window(None, None), window(None, Some(3600)), window(Some(1 << 40), None)] {
        retain(&store, all);
        store.reopen();
        let found = sweep(&store);
        assert_eq!((found.layers, store.repository.loaded_count()), (0, 0), "{all:?}");
    }
    retain(&store, window(Some(1), None));
    let stopped = store.repository.sweep(&mut |_| false).unwrap();
    assert_eq!((stopped.layers, store.repository.loaded_count()), (0, 0));
    let found = sweep(&store);
    assert!(found.layers > 0 && found.bytes > 0 && store.repository.loaded_count() == 1);
    let last = usize::from(PAGES) - 1;
    store.main.check_only(&store.timeline(), &[30, last - 1, last]);
    // Who holds the rest can be told without loading it, too.
    assert_eq!((found.left_bytes, &found.problem), (0, &None));
    let [(id, holder, bytes)] = &found.held[..] else { panic!("{found:?}") };
    assert_eq!(
        (*id, holder.to_string(), *bytes),
        (store.id, "compute pg".into(), found.held_bytes)
    );
    let loaded = sweep(&store);
    store.reopen();
    let unloaded = sweep(&store);
    assert_eq!(store.repository.loaded_count(), 0);
    for again in [&loaded, &unloaded] {
        assert_eq!((again.layers, &again.held, again.held_bytes), (0, &found.held, *bytes));
    }
    // What is in files that are older than the window is older.
    store.repository.drop_lease(&"pg".parse().unwrap()).unwrap();
    retain(&store, window(None, Some(0)));
    assert!(sweep(&store).layers > 0);
    store.main.check_only(&store.timeline(), &[last]);
    assert_eq!(sweep(&store).held_bytes, 0);
}

#[test]
fn nothing_is_removed_while_it_is_not_known_who_needs_it() {
    let mut store = Store::new();
    store.lease("pg", 30);
    let leases = store.dir.path().join("leases");
    // As an earlier release has left it: there may be computes that nobody knows of.
    fs::remove_file(leases.join("all.known")).unwrap();
    store.reopen();
    let error = store.repository.collect(store.id).unwrap_err();
    assert!(matches!(error, RepositoryError::ComputesUnknown), "{error}");
    assert!(store.repository.outlook(store.id).is_err());
    assert!(store.repository.sweep(&mut |_| true).is_err());
    store.repository.all_computes_known().unwrap();
    let good = fs::read(leases.join("pg")).unwrap();
    fs::write(leases.join("pg"), &good[..good.len() - 1]).unwrap();
    store.reopen();
    let error = store.repository.collect(store.id).unwrap_err();
    assert!(error.to_string().contains("lease pg may need it"), "{error}");
    fs::write(leases.join("pg"), &good).unwrap();
    store.reopen();
    assert!(store.collect(store.id) > 0);
    store.main.check(&store.timeline(), 30);

    // Nor while it is not known how much is to be kept.
    let branch = store.dir.path().join("refs/branches/main");
    let text = fs::read(&branch).unwrap();
    fs::remove_file(&branch).unwrap();
    store.reopen();
    let error = store.repository.collect(store.id).unwrap_err();
    assert!(matches!(error, RepositoryError::MayHold { .. }), "{error}");
    assert_eq!(store.repository.sweep(&mut |_| true).unwrap().layers, 0);
    fs::write(&branch, text).unwrap();
    store.reopen();

    // What is put back after it has been removed is not there again.
    let tag = store.dir.path().join("refs/tags/v1");
    store.repository.create_tag(&name("v1"), &store.point(30), Duration::ZERO).unwrap();
    let text = fs::read(&tag).unwrap();
    store.repository.delete_tag(&name("v1")).unwrap();
    store.repository.drop_lease(&"pg".parse().unwrap()).unwrap();
    assert!(store.collect(store.id) > 0);
    fs::write(&tag, text).unwrap();
    store.collect(store.id);
    let last = usize::from(PAGES) - 1;
    store.main.check_only(&store.timeline(), &[last - 1, last]);
}

/// Whoever has found a place in history, and then has to wait for the one who is just removing it, is refused.
#[test]
fn nobody_gets_a_place_in_history_that_is_just_being_removed() {
    let store = Store::new();
    let timeline = store.timeline();
    for n in (3..usize::from(PAGES) - PAGES_OF_LAYER).step_by(PAGES_OF_LAYER) {
        let begun = Barrier::new(4);
        let (repository, point) = (&store.repository, store.point(n));
        let (called, other) = (name(&format!("x{n}")), name(&format!("t{n}")));
        let branch = || repository.create_branch(&called, &point, Duration::ZERO).map(drop);
        let tag = || repository.create_tag(&other, &point, Duration::ZERO).map(drop);
        let request = store.request(&called, n);
        let lease = || repository.lease(&request, Duration::ZERO).map(drop);
        let makers: [&(dyn Fn() -> Result<(), RepositoryError> + Sync); 3] =
            [&branch, &tag, &lease];
        std::thread::scope(|scope| {
            let changing = repository.changing.lock();
            let makers = makers.map(|make| {
                let begun = &begun;
                scope.spawn(move || {
                    begun.wait();
                    make()
                })
            });
            begun.wait();
            // If they do not get as far as to wait meanwhile, they are refused for what they see.
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            let since = Needed::since(store.main.at(n + PAGES_OF_LAYER));
            let removal = timeline.collect(&[since]).unwrap().unwrap();
            assert!(!removal.finish().layers.is_empty());
            drop(changing);
            for maker in makers {
                let error = maker.join().unwrap().unwrap_err();
                assert!(is_below_horizon(&error), "{error}");
            }
        });
    }
}

#[test]
fn a_detachment_waits_for_readers_and_is_refused_for_computes() {
    let store = Store::new();
    let dev = store.branch("dev", 40);
    let of_dev = |called: &str, lasts| LeaseRequest {
        timeline: dev.timeline,
        lasts,
        ..store.request(called, 10)
    };
    let compute = of_dev("pg", None);
    store.repository.lease(&compute, Duration::ZERO).unwrap();
    let refused = store.repository.detach(&name("dev"));
    assert!(matches!(refused, Err(RepositoryError::CannotDetach { .. })));
    assert!(!store.repository.branch(&name("dev")).unwrap().detaching);
    store.repository.drop_lease(&compute.holder).unwrap();

    let reader = of_dev("verify", Some(Duration::from_secs(3600)));
    store.repository.lease(&reader, Duration::ZERO).unwrap();
    let put_off = store.repository.detach(&name("dev"));
    assert!(matches!(put_off, Err(RepositoryError::StillRead { .. })));
    assert!(store.repository.branch(&name("dev")).unwrap().detaching);
    store.main.check(&store.repository.timeline(dev.timeline).unwrap(), 10);
    store.repository.drop_lease(&reader.holder).unwrap();
    assert_eq!(store.repository.detach(&name("dev")).unwrap().ancestor, None);
    store.main.check(&store.repository.timeline(dev.timeline).unwrap(), 40);
}
