#![allow(clippy::unwrap_used)]

use super::*;

const BOOT: BootId = BootId([1, 2]);
const NEXT_BOOT: BootId = BootId([3, 4]);

fn make(nblocks: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base/5/16384");
    create(&path, nblocks).unwrap();
    (dir, path)
}

fn open(path: &Path, boot: BootId) -> Map {
    Map::open(path, boot).unwrap().unwrap()
}

#[test]
fn a_new_map_has_every_block_absent() {
    for nblocks in [0, 1, 63, 64, 65, 1000, BLOCKS_PER_SEGMENT] {
        let (_dir, path) = make(nblocks);
        let map = open(&path, BOOT);
        assert_eq!((map.nblocks(), map.limit()), (nblocks, nblocks));
        assert_eq!(map.first_absent_run(0..u32::MAX).len(), nblocks as usize);
        assert!(map.is_present(nblocks));
        assert!(nblocks == 0 || !map.is_present(nblocks - 1));
    }
    assert!(matches!(
        create(Path::new("x"), BLOCKS_PER_SEGMENT + 1),
        Err(PresenceError::TooManyBlocks(_))
    ));
}

#[test]
fn no_map_is_not_an_error_but_a_damaged_one_is() {
    let (dir, path) = make(100);
    assert!(Map::open(&dir.path().join("other"), BOOT).unwrap().is_none());

    let good = fs::read(&path).unwrap();
    let damaged = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        matches!(Map::open(&path, BOOT), Err(PresenceError::Damaged { .. }))
    };
    assert!(damaged(&[]));
    assert!(damaged(&good[..64]));
    assert!(damaged(&good[..good.len() - 1]));
    assert!(damaged(&[&good[..], &[0]].concat()));
    assert!(damaged(&vec![0; good.len()]));
    let mut newer = good.clone();
    newer[at::VERSION] = 2;
    fs::write(&path, newer).unwrap();
    assert!(matches!(Map::open(&path, BOOT), Err(PresenceError::NewerVersion { version: 2, .. })));
    fs::write(&path, good).unwrap();
    open(&path, BOOT);
}

#[test]
fn bits_are_shared_and_runs_are_found() {
    let (_dir, path) = make(200);
    let (map, other) = (open(&path, BOOT), open(&path, BOOT));
    map.mark_present(10..20);
    map.mark_present(199..300);
    assert!(other.is_present(10) && other.is_present(19) && other.is_present(199));
    assert!(!other.is_present(9) && !other.is_present(20));
    assert_eq!(other.first_absent_run(0..200), 0..10);
    assert_eq!(other.first_absent_run(12..200), 20..199);
    assert_eq!(other.first_absent_run(12..30), 20..30);
    assert_eq!(other.first_absent_run(12..15), 15..15);

    other.lower_limit(50);
    other.lower_limit(60);
    assert_eq!(map.limit(), 50);
    assert_eq!(map.first_absent_run(12..200), 20..50);
    assert!(map.is_present(50));
}

/// Bug: a block that became present between two looks gave an empty run in the middle of the range, which readers
/// asked the page server for, or took for the end.
#[test]
fn a_run_is_empty_only_at_the_end() {
    const BLOCKS: u32 = 100_000;
    let (_dir, path) = make(BLOCKS);
    let (map, other) = (open(&path, BOOT), open(&path, BOOT));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..BLOCKS).for_each(|block| other.mark_present(block..block + 1)));
        loop {
            let run = map.first_absent_run(0..BLOCKS);
            assert!(!run.is_empty() || run.start == BLOCKS, "{run:?}");
            if run.is_empty() {
                break;
            }
        }
    });
}

#[test]
fn a_power_loss_takes_back_what_was_not_persisted() {
    let (_dir, path) = make(200);
    let map = open(&path, BOOT);
    map.mark_present(0..10);
    map.lower_limit(150);
    let snapshot = map.undurable().unwrap();
    // While the file is being synced, more happens.
    map.mark_present(10..20);
    map.lower_limit(140);
    map.persist(&snapshot).unwrap();
    assert!(map.undurable().is_some());
    drop(map);

    let after_crash_of_processes = open(&path, BOOT);
    assert_eq!(after_crash_of_processes.first_absent_run(0..200), 20..140);
    drop(after_crash_of_processes);

    let after_power_loss = open(&path, NEXT_BOOT);
    assert_eq!(after_power_loss.first_absent_run(0..200), 10..150);
    assert!(after_power_loss.undurable().is_none());
}

#[test]
fn a_failed_sync_makes_the_next_opening_start_from_the_durable_half() {
    let (_dir, path) = make(10);
    let map = open(&path, BOOT);
    map.mark_present(0..1);
    map.persist(&map.undurable().unwrap()).unwrap();
    map.mark_present(1..2);
    map.distrust_live();
    assert!(map.is_present(1));
    assert_eq!(open(&path, BOOT).first_absent_run(0..10), 1..10);
}

#[test]
fn without_fsync_the_halves_stay_equal() {
    let (_dir, path) = make(100);
    let map = open(&path, BOOT);
    map.mark_present(0..70);
    map.lower_limit(90);
    map.equalize_without_sync();
    assert!(map.undurable().is_none());
    assert_eq!(open(&path, NEXT_BOOT).first_absent_run(0..100), 70..90);
}

#[test]
fn boot_ids_are_uuids() {
    let text = "01234567-89ab-cdef-fedc-ba9876543210\n";
    assert_eq!(BootId::parse(text), Some(BootId([0x0123456789abcdef, 0xfedcba9876543210])));
    for bad in ["", "x", "00000000-0000-0000-0000-000000000000", &text[1..], &format!("0{text}")] {
        assert_eq!(BootId::parse(bad), None);
    }
    assert!(BootId::current().is_ok());
}
