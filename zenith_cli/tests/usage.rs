//! What the command says, and with which exit code, when it cannot do what it is asked.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn zenith(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zenith"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("ZENITH_DIR")
        .output()
        .unwrap()
}

/// Runs in an empty folder, expects this exit code and one line of error, and returns the line.
#[track_caller]
fn refused(arguments: &[&str], code: i32) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = zenith(dir.path(), arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed data");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("zenith: error: "), "{arguments:?}: {stderr}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{arguments:?} left something");
    stderr
}

#[test]
fn arguments_that_make_no_sense_give_2() {
    for arguments in [
        &["frobnicate"][..],
        &["start", "--port", "0"],
        &["start", "--port", "65536"],
        &["start", "now"],
        &["-o", "xml", "status"],
        &["branch", "dev", "main@16B3748"],
        &["branch", "dev", "main", "more"],
        &["branch", "-m", "only-one"],
        &["branch", "-d", "a", "b"],
        &["branch", "--expires-in", "2h"],
        &["branch", "--reparent", "dev"],
        &["branch", "--expires-in", "2w", "dev"],
        &["branch", "--retention", "7d"],
        &["branch", "--retention", "7 days", "dev"],
        &["tag", "v1", "main", "more"],
        &["pg", "create"],
        &["pg", "create", "x", "--durability", "never"],
        &["pg", "start", "x", "--at", "main@"],
        &["psql"],
        &["psql", "main@0/x"],
    ] {
        refused(arguments, 2);
    }
}

#[test]
fn a_malformed_lsn_is_explained() {
    let line = refused(&["branch", "dev", "main@16B3748"], 2);
    assert!(line.contains("0/16B3748"), "{line}");
}

#[test]
fn no_repository_gives_1_and_says_how_to_make_one() {
    for arguments in [
        &["status"][..],
        &["start"],
        &["stop"],
        &["branch"],
        &["pg", "list"],
        &["--repo", "/nonexistent", "status"],
        &["psql", "main"],
    ] {
        let line = refused(arguments, 1);
        assert!(line.contains("no repository") && line.contains("zenith init"), "{line}");
    }
}

#[test]
fn init_without_postgres_names_the_package_and_leaves_nothing() {
    let line = refused(&["init", "--pg-bin", "/nonexistent"], 1);
    assert!(line.contains("/nonexistent") && line.contains("postgresql-15"), "{line}");
}

#[test]
fn init_refuses_a_folder_that_has_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".zenith")).unwrap();
    let output = zenith(dir.path(), &["init"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("exists already"), "{stderr}");
}

#[test]
fn help_and_version_are_data() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["--help"][..], &["--version"], &["pg", "--help"], &["branch", "-h"]] {
        let output = zenith(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}
