#![allow(clippy::unwrap_used)]

use super::*;
use crate::account::Account;
use crate::config::{CONFIG_FILE, Config};

pub(super) fn repository(dir: &Path) -> Repository {
    let text = Config::initial_text(Path::new("/pg"), "main");
    fs::write(dir.join(CONFIG_FILE), text).unwrap();
    for folder in ["computes", "run"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    Account::for_new_repository().unwrap().own_tree(dir).unwrap();
    Repository::open(dir).unwrap()
}

pub(super) fn compute(repository: &Repository, name: &str, mode: Mode, timeline: u8) -> Compute {
    let layout = Layout::new(repository, name);
    fs::create_dir(layout.dir()).unwrap();
    let compute = Compute {
        repository: repository.clone(),
        name: name.to_owned(),
        layout: layout.clone(),
        branch: "main".to_owned(),
        timeline: TimelineId::from_bytes([timeline; 16]),
        base_lsn: Lsn::new(0x16B3748),
        mode,
        durability: Durability::PageServer,
        port: 15_000,
        instance: "1".parse().unwrap(),
        generation: None,
        replaced: None,
        read_lease: None,
        boot_id: settle::current_boot_id().unwrap(),
    };
    compute.write(&layout).unwrap();
    compute
}

#[test]
fn computes_are_found_again_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    assert!(repository.computes().unwrap().is_empty());
    let written = compute(&repository, "b", Mode::ReadWrite, 7);
    compute(&repository, "a", Mode::Detached, 9);
    compute(&repository, ".making-c", Mode::ReadWrite, 8);
    let names: Vec<_> =
        repository.computes().unwrap().iter().map(|c| c.name().to_owned()).collect();
    assert_eq!(names, ["a", "b"]);
    let read = repository.compute("b").unwrap();
    assert_eq!(read.timeline(), written.timeline());
    assert_eq!(read.base_lsn(), written.base_lsn());
    assert_eq!((read.mode(), read.durability()), (Mode::ReadWrite, Durability::PageServer));
    assert_eq!(read.status(), ComputeStatus { state: ComputeState::Stopped, pid: None });
    assert!(read.continues(written.timeline()));
    let detached = repository.compute("a").unwrap();
    assert!(!detached.continues(detached.timeline()));
}

#[test]
fn absent_and_damaged_computes_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    let error = repository.compute("x").unwrap_err();
    assert!(matches!(error, Error::NotFound { thing: Thing::Compute, .. }), "{error}");
    assert!(matches!(repository.compute("../x"), Err(Error::InvalidArgument(_))));
    let path = compute(&repository, "x", Mode::ReadWrite, 1).layout.compute_file();
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole[..40]).unwrap();
    let error = repository.compute("x").unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    fs::write(&path, whole.replace("format_version = 1", "format_version = 2")).unwrap();
    let error = repository.compute("x").unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
}

#[test]
fn a_compute_of_an_earlier_run_of_the_machine_needs_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    let mut made = compute(&repository, "x", Mode::ReadWrite, 1);
    made.refuse_if_unsettled().unwrap();
    made.boot_id = "another".to_owned();
    let error = made.refuse_if_unsettled().unwrap_err();
    assert!(error.to_string().contains("zenith pg destroy x"), "{error}");
    fs::write(made.layout.dir().join("settled.2"), "").unwrap();
    assert!(made.refuse_if_unsettled().is_err(), "the mark of a predecessor");
    fs::write(made.layout.dir().join("settled.1"), "").unwrap();
    made.refuse_if_unsettled().unwrap();
    made.mode = Mode::Detached;
    assert!(made.refuse_if_unsettled().is_err(), "a detached compute has no mark");
}

#[test]
fn connection_strings() {
    let dir = tempfile::tempdir().unwrap();
    let made = compute(&repository(dir.path()), "x", Mode::ReadWrite, 1);
    assert_eq!(made.connstr("a b/c"), "postgresql://postgres@127.0.0.1:15000/a%20b%2Fc");
    assert_eq!(
        made.socket_connstr(Path::new("/it's")),
        "host='/it\\'s' port=15000 user=postgres dbname=postgres"
    );
}
