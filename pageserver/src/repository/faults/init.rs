//! Making a repository of a data directory, with crashes and failures: it is there as a whole, or can be
//! made once more, and nothing is left of the first attempt.

use std::fs;
use std::path::Path;

use durable_files::faults::{CrashState, Fault, Recorder};
use pageserver_client::BranchName;
use postgres_formats::{BLCKSZ, Lsn};

use super::{open, options, scratch};
use crate::error_text::with_causes;
use crate::repository::{Repository, RepositoryError};
use crate::timeline::damage::sample::{SEGMENT_BYTES, Sample, data_directory, page};

/// Where the last record of the data directory begins.
const AT: Lsn = Lsn::new(SEGMENT_BYTES as u64 + 40);
const CONTENT: u8 = 7;

fn main_branch() -> BranchName {
    "main".parse().unwrap()
}

fn init(dir: &Path, pgdata: &Path) -> Result<(), RepositoryError> {
    Repository::init_from_pgdata(dir, pgdata, &main_branch()).map(drop)
}

/// That the repository in `dir` has all of the data directory, and no more, and can be used.
fn check(dir: &Path, end: Lsn) {
    let repository = open(dir, options()).unwrap();
    let branches = repository.branches().unwrap();
    assert_eq!((branches.len(), repository.unreadable()), (1, Vec::new()));
    let timeline = repository.timeline(branches[0].timeline).unwrap();
    assert_eq!((timeline.start_lsn(), timeline.last_record_lsn()), (end, end));
    assert_eq!(page(&timeline, end).unwrap()[10..], [CONTENT; BLCKSZ - 10]);
    let mut server = Sample::going_on(end, AT);
    server.write_page(CONTENT + 1, 300);
    server.give(&timeline);
    assert_eq!(page(&timeline, server.end()).unwrap()[50], CONTENT + 1);
    let timelines = fs::read_dir(dir.join("timelines")).unwrap();
    assert_eq!(timelines.count(), 1, "folders of timelines");
    let layers = fs::read_dir(timeline.dir().join("layers")).unwrap();
    assert_eq!(layers.count(), 1, "layers");
}

/// The same after a crash; if it is not there, that comes of one more attempt.
fn check_crash(state: &CrashState, pgdata: &Path, end: Lsn, is_acknowledged: bool) {
    let into = scratch();
    state.tree.build(into.path()).unwrap();
    match init(into.path(), pgdata) {
        Err(RepositoryError::AlreadyExists(_)) => {}
        made => {
            assert!(!is_acknowledged, "it is gone, {}", state.what);
            made.unwrap();
        }
    }
    check(into.path(), end);
}

#[test]
fn a_repository_is_made_as_a_whole_whatever_happens() {
    let pgdata = scratch();
    let end = data_directory(pgdata.path(), AT, CONTENT);
    let dir = scratch();
    let recorder = Recorder::attach(dir.path()).unwrap();
    init(dir.path(), pgdata.path()).unwrap();
    let journal = recorder.journal();
    check_crash(&journal.least_state(), pgdata.path(), end, true);
    for after in 0..journal.len() {
        for state in journal.crash_states(after) {
            check_crash(&state, pgdata.path(), end, false);
        }
    }
}

#[test]
fn a_repository_can_be_made_once_more_after_a_failure() {
    let pgdata = scratch();
    let end = data_directory(pgdata.path(), AT, CONTENT);
    for fault in [Fault::NoSpace, Fault::Io] {
        for number in 0.. {
            let dir = scratch();
            let recorder = Recorder::attach(dir.path()).unwrap();
            recorder.fail_at(number, fault);
            let made = init(dir.path(), pgdata.path());
            recorder.lift();
            let Err(error) = made else {
                assert!(recorder.failed() == 0 && number > 20, "{number}");
                break;
            };
            assert!(with_causes(&error).contains("os error"), "{error}");
            check_crash(&recorder.journal().least_state(), pgdata.path(), end, false);
            // On a full disk the space is wanted at once.
            let left = fs::read_dir(dir.path().join("timelines")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "folders after {error}");
            init(dir.path(), pgdata.path()).unwrap();
            check_crash(&recorder.journal().least_state(), pgdata.path(), end, true);
            check(dir.path(), end);
        }
    }
}
