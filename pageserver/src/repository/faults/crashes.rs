//! A crash after each operation: every state that it may leave.

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use durable_files::faults::Recorder;

use super::check::{check, check_going_on};
use super::script::{STEPS, Script, Step};
use super::{options, removing_wal, scratch};

/// The states after every `of`-th operation, from the one with the number `from` on.
fn enumerate(from: usize, of: usize) {
    let dir = scratch();
    let main = Script::prepare(dir.path());
    let recorder = Recorder::attach(dir.path()).unwrap();
    let mut script = Script::new(dir.path(), &recorder, &main);
    let wal = dir.path().join("timelines").join(main.manifest().id.to_string()).join("wal");
    for step in STEPS {
        if matches!(step, Step::Restart) {
            let mut segments: Vec<_> =
                fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().path()).collect();
            segments.retain(|path| !path.ends_with("flushed"));
            let last = fs::read(segments.iter().max().unwrap()).unwrap();
            assert!(last.ends_with(&[0; 1000]), "it is ended while commits wait");
        }
        script.step(*step).unwrap_or_else(|error| panic!("{step:?}: {error}"));
    }
    let segments = fs::read_dir(wal).unwrap().count() - 1;
    assert_eq!(segments, 1, "but for the mark the last segment alone is there");
    let known = script.known;
    let journal = recorder.journal();
    let (mut seen, mut checked, mut failed) = (HashSet::new(), 0, Vec::new());
    for after in (from..=journal.len()).step_by(of) {
        for state in journal.crash_states(after) {
            if !seen.insert((state.fingerprint(), known.events_by(after))) {
                continue;
            }
            checked += 1;
            let into = scratch();
            state.tree.build(into.path()).unwrap();
            // It may be configured anew each time that it starts.
            let options = if checked % 2 == 0 { options() } else { removing_wal() };
            // What there is after that hardly depends on a single operation.
            let check =
                if state.differs_in_one && checked % 4 != 0 { check_going_on } else { check };
            let good =
                catch_unwind(AssertUnwindSafe(|| check(into.path(), &known, after, options)));
            if good.is_err() {
                let last = journal.describe(after);
                eprintln!("^ crash after {after} operations, with {}\n{last}", state.what);
                failed.push((after, state.what));
            }
        }
    }
    assert!(checked > journal.len() / of, "{checked} states");
    eprintln!("{} operations, {checked} states", journal.len());
    let first = failed.first();
    assert!(failed.is_empty(), "{} of {checked} states, the first: {first:?}", failed.len());
}

#[test]
fn every_crash_leaves_what_was_acknowledged_even() {
    enumerate(0, 2);
}

#[test]
fn every_crash_leaves_what_was_acknowledged_odd() {
    enumerate(1, 2);
}
