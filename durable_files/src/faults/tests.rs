//! What the recorder says of the functions of this crate, and of some that do it wrong.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Fault, Recorder};
use crate::{File, remove_file, rename_only, sync_dir, write_file};

/// What a file may hold after a crash in the middle of `act`; `None`: there is none.
fn after_crashes(act: impl FnOnce(&Path)) -> BTreeSet<Option<Vec<u8>>> {
    let dir = tempfile::tempdir().unwrap();
    write_file(&dir.path().join("it"), b"old").unwrap();
    let recorder = Recorder::attach(dir.path()).unwrap();
    act(dir.path());
    let journal = recorder.journal();
    let mut found = BTreeSet::new();
    for after in 0..=journal.len() {
        for state in journal.crash_states(after) {
            let into = tempfile::tempdir().unwrap();
            state.tree.build(into.path()).unwrap();
            found.insert(fs::read(into.path().join("it")).ok());
        }
    }
    found
}

fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

#[test]
fn what_is_durable_is_told_from_what_is_not() {
    let whole = after_crashes(|dir| write_file(&dir.join("it"), b"new").unwrap());
    assert_eq!(whole, BTreeSet::from([some(b"old"), some(b"new")]));
    let removed = after_crashes(|dir| remove_file(&dir.join("it")).unwrap());
    assert_eq!(removed, BTreeSet::from([some(b"old"), None]));

    // Without a sync before it gets its name: the name may come first.
    let unsynced = after_crashes(|dir| {
        File::create(&dir.join("beside")).unwrap().write_all_at(b"new", 0).unwrap();
        rename_only(&dir.join("beside"), &dir.join("it")).unwrap();
        sync_dir(dir).unwrap();
    });
    assert_eq!(unsynced, BTreeSet::from([some(b"old"), some(b""), some(b"\0\0\0"), some(b"new")]));

    // In place, over sectors: any of them may be missing.
    let in_place = after_crashes(|dir| {
        let file = File::open_to_write(&dir.join("it")).unwrap();
        file.write_all_at(&[1; 1024], 0).unwrap();
        file.sync_all().unwrap();
        file.set_len(1).unwrap();
    });
    let late = [&b"old"[..], &[0; 509], &[1; 512]].concat();
    let expected = [some(b"old"), some(&[1; 512]), some(&late), some(&[1; 1024]), some(&[1])];
    assert_eq!(in_place, BTreeSet::from(expected));
}

#[test]
fn what_a_failed_sync_leaves_is_never_durable() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::attach(dir.path()).unwrap();
    let file = File::create(&dir.path().join("it")).unwrap();
    sync_dir(dir.path()).unwrap();
    file.write_all_at(b"one", 0).unwrap();
    recorder.fail_at(recorder.count(), Fault::Io);
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
    file.write_all_at(b"two", 3).unwrap();
    file.sync_all().unwrap();
    let into = tempfile::tempdir().unwrap();
    recorder.journal().least_state().tree.build(into.path()).unwrap();
    assert_eq!(fs::read(into.path().join("it")).unwrap(), b"\0\0\0two");
}

#[test]
fn a_full_disk_takes_half_and_lets_go_of_things() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it");
    let recorder = Recorder::attach(dir.path()).unwrap();
    let file = File::create(&path).unwrap();
    recorder.fail_at(recorder.count(), Fault::NoSpace);
    assert_eq!(file.write_all_at(b"12345678", 0).unwrap_err().raw_os_error(), Some(28));
    file.write_all_at(b"ab", 0).unwrap();
    file.set_len(3).unwrap();
    assert!(write_file(&dir.path().join("other"), b"").is_err());
    assert_eq!(fs::read(&path).unwrap(), b"ab3");
    recorder.fail_at(recorder.count(), Fault::Dead);
    assert!(remove_file(&path).is_err());
    recorder.lift();
    assert_eq!(recorder.failed(), 3);
    // What was seen is what is there.
    let journal = recorder.journal();
    let into = tempfile::tempdir().unwrap();
    journal.crash_states(journal.len())[0].tree.build(into.path()).unwrap();
    assert_eq!(fs::read(into.path().join("it")).unwrap(), b"ab3");
}
