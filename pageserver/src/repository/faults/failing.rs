//! Each operation fails in turn: it is said, nothing is lost, and the same once more succeeds.

use std::fs;
use std::path::Path;

use durable_files::faults::{CrashState, Fault, Journal, Recorder};

use super::check::{check, check_pages};
use super::known::{Event, Known};
use super::script::{STEPS, Script, Step};
use super::{open, options, scratch};
use crate::error_text::with_causes;
use crate::layer::freezer::LayerOptions;
use crate::stop::StopKind;

/// What the errors say that come of a fault.
const SAID: [&str; 3] = ["No space left on device", "Input/output error", "could not be synced"];

/// What a crash leaves at the end of the journal that takes all that is not durable.
fn check_crash(journal: &Journal, known: &Known) {
    check_state(&journal.least_state(), known);
}

/// The same, and what the end of the process alone leaves there.
fn check_end(journal: &Journal, known: &Known) {
    let (whole, least) = (journal.whole_state(), journal.least_state());
    check_state(&whole, known);
    if least.fingerprint() != whole.fingerprint() {
        check_state(&least, known);
    }
}

fn check_state(state: &CrashState, known: &Known) {
    let into = scratch();
    state.tree.build(into.path()).unwrap();
    check(into.path(), known, state.after, options());
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
        eprintln!("{fault:?} at {failed:?}, {step:?}: {said}");
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
        // It has not happened, whatever comes.
        script.note(Event::Failed);
        check_end(&recorder.journal(), &script.known);
        script.step(*step).unwrap_or_else(|error| panic!("{step:?}: {error} after {said}"));
        // What has been acknowledged now is as durable as without the fault.
        check_crash(&recorder.journal(), &script.known);
    }
    recorder.lift();
    check_pages(&script.timeline("main").unwrap(), &script.known);
    let repository = script.repository().unwrap();
    repository.remove_unneeded(&repository.changing.lock());
    drop(repository);
    let timelines = fs::read_dir(dir.join("timelines")).unwrap();
    let left: Vec<_> = timelines.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "what is deleted needs no restart to go: {left:?}");
    let first = recorder.first_failed()?;
    script.repository = None;
    // What fails is seen to at once, as was checked above; so now and then is enough.
    if number.is_multiple_of(4) {
        check_crash(&recorder.journal(), &script.known);
    }
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
fn nothing_new_stands_on_what_a_failed_collection_may_have_removed() {
    let is_collect = |step: &&Step| matches!(step, Step::Collect(_));
    let collect = *STEPS.iter().find(is_collect).unwrap();
    for operation in 0.. {
        let dir = scratch();
        let main = Script::prepare(dir.path());
        let recorder = Recorder::attach(dir.path()).unwrap();
        let mut script = Script::new(dir.path(), &recorder, &main);
        for step in STEPS.iter().take_while(|step| !is_collect(step)) {
            script.step(*step).unwrap();
        }
        recorder.fail_at(recorder.count() + operation, Fault::Io);
        let collected = script.step(collect);
        recorder.lift();
        // In the second of the deltas, which the last of them do not need.
        let between = main.ends.iter().position(|end| end.as_u64() > main.start.as_u64() + 7000);
        if script.step(Step::Create("late", "main", between)).is_err() {
            script.note(Event::Failed);
        }
        check_end(&recorder.journal(), &script.known);
        if collected.is_ok() && recorder.failed() == 0 {
            assert!(operation > 4, "{operation}");
            return;
        }
    }
}

#[test]
fn no_wal_is_taken_in_when_the_disk_is_nearly_full() {
    let dir = scratch();
    let main = Script::prepare(dir.path());
    let recorder = Recorder::attach(dir.path()).unwrap();
    let mut script = Script::new(dir.path(), &recorder, &main);
    script.step(Step::Receive("main", 5000, 1000)).unwrap();
    script.step(Step::Sync("main")).unwrap();
    script.repository =
        Some(open(dir.path(), LayerOptions { reserve_bytes: u64::MAX, ..options() }).unwrap());
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
