//! Each operation fails in turn: it is said, nothing is lost, and the same once more succeeds.

use std::path::Path;

use durable_files::faults::{Fault, Journal, Recorder};

use super::check::{check, check_pages};
use super::known::{Command, Event, Known};
use super::script::{STEPS, Script, Step};
use super::{open_with, scratch};
use crate::error_text::with_causes;
use crate::repository::RepositoryError;
use crate::stop::StopKind;

/// What the errors say that come of a fault.
const SAID: [&str; 3] = ["No space left on device", "Input/output error", "could not be synced"];

/// What a crash leaves at the end of the journal that takes all that is not durable.
fn check_crash(journal: &Journal, known: &Known) {
    let into = scratch();
    journal.least_state().tree.build(into.path()).unwrap();
    check(into.path(), known, journal.len());
}

/// The history with a fault from one operation on until it is noticed. Returns which operation failed.
fn run(dir: &Path, number: usize, fault: Fault) -> Option<usize> {
    let main = Script::prepare(dir);
    let recorder = Recorder::attach(dir).unwrap();
    let mut script = Script::new(dir, &recorder, &main);
    recorder.fail_at(number, fault);
    for step in STEPS {
        let Err(error) = script.step(*step) else { continue };
        let failed = recorder.first_failed();
        let said = with_causes(&*error);
        assert!(failed.is_some() && SAID.iter().any(|text| said.contains(text)), "{said}");
        // While it lasts, what there is is served.
        if let Some(repository) = script.repository.clone() {
            for branch in repository.branches().unwrap() {
                if let Some(timeline) = repository.loaded_timeline(branch.timeline) {
                    check_pages(&timeline, &script.known);
                }
            }
        }
        recorder.lift();
        check_crash(&recorder.journal(), &script.known);
        if let Err(error) = script.step(*step) {
            // The branch was gone already, only not all of its files.
            let gone = matches!(error.downcast_ref(), Some(RepositoryError::NoSuchBranch { .. }));
            let Step::Delete(name) = step else { panic!("{step:?}: {error} after {said}") };
            assert!(gone, "{error}");
            script.note(Event::Done(Command::Delete((*name).to_owned())));
        }
        // What has been acknowledged now is as durable as without the fault.
        check_crash(&recorder.journal(), &script.known);
    }
    recorder.lift();
    for name in ["main", "two", "three"] {
        check_pages(&script.timeline(name).unwrap(), &script.known);
    }
    let first = recorder.first_failed()?;
    script.repository = None;
    check_crash(&recorder.journal(), &script.known);
    Some(first)
}

fn every(fault: Fault) {
    let (mut number, mut runs) = (0, 0);
    loop {
        let dir = scratch();
        let Some(failed) = run(dir.path(), number, fault) else { break };
        (number, runs) = (failed + 1, runs + 1);
    }
    assert!(runs > 40, "{runs}");
}

#[test]
fn a_full_disk_is_survived_wherever_it_is_noticed() {
    every(Fault::NoSpace);
}

#[test]
fn a_failing_device_is_survived_wherever_it_is_noticed() {
    every(Fault::Io);
}

#[test]
fn no_wal_is_taken_in_when_the_disk_is_nearly_full() {
    let dir = scratch();
    let main = Script::prepare(dir.path());
    let recorder = Recorder::attach(dir.path()).unwrap();
    let mut script = Script::new(dir.path(), &recorder, &main);
    script.step(Step::Receive("main", 5000, 1000)).unwrap();
    script.step(Step::Sync("main")).unwrap();
    script.repository = Some(open_with(dir.path(), u64::MAX).unwrap());
    let timeline = script.timeline("main").unwrap();
    let (last, before) = (timeline.last_record_lsn(), recorder.position());
    let from = timeline.restart_receiving().unwrap();
    let bytes = script.known.lines[&timeline.id()].wal_from(from).to_vec();
    let error = timeline.receive_wal(from, &bytes).unwrap_err();
    assert!(with_causes(&error).contains("No space left on device"), "{error}");
    assert_eq!(timeline.stop().unwrap().kind, StopKind::Disk);
    assert_eq!(timeline.last_record_lsn(), last);
    check_pages(&timeline, &script.known);
    // Other things are still done.
    script.step(Step::Create("one", "main", Some(1))).unwrap();
    assert!(recorder.position() > before);
    script.repository = None;
    script.step(Step::Receive("main", 11_000, 1000)).unwrap();
    check_pages(&script.timeline("main").unwrap(), &script.known);
}
