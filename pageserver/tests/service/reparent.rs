//! A branch that others stand on is deleted, and they keep its history.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use postgres_testing::give_to_account;

use crate::fixture::{Server, wait_for};

fn refused(server: &Server, sql: &str, code: &str) -> String {
    let error = server.try_command(sql).expect_err(sql);
    let text = error.to_string();
    assert_eq!(error.sqlstate().map(|s| s.code().to_owned()).as_deref(), Some(code), "{text}");
    text
}

fn kept(server: &Server) -> usize {
    server.value("status", "kept_timelines").parse().unwrap()
}

fn problems(server: &Server) -> String {
    server.row("status").text("problems").unwrap_or_default().to_owned()
}

/// `main` ← `a` ← `b` ← `leaf`; the folders of the timelines of `a` and `b`.
fn start() -> (Server, [PathBuf; 2]) {
    let server = Server::start_new();
    for (name, parent) in [("a", "main"), ("b", "a"), ("leaf", "b")] {
        server.row(&format!("branch_create {name} {parent}"));
    }
    let dir = |name| server.repo().join("timelines").join(server.timeline(name).to_string());
    let dirs = [dir("a"), dir("b")];
    (server, dirs)
}

fn names(server: &Server) -> Vec<String> {
    let rows = server.try_command("branch_list").unwrap();
    rows.iter().map(|row| row.text("name").unwrap().to_owned()).collect()
}

#[test]
fn history_stays_for_as_long_as_something_stands_on_it() {
    let (mut server, [a, b]) = start();
    assert!(refused(&server, "branch_delete a", "2BP01").contains("\"b\""));
    refused(&server, "branch_delete main reparent", "55000");
    server.row("branch_protect a");
    refused(&server, "branch_delete a reparent", "55000");
    server.row("branch_unprotect a");
    server.row("tag_create v1 a");
    assert!(refused(&server, "branch_delete a reparent", "2BP01").contains("\"v1\""));
    server.row("tag_delete v1");

    server.row("branch_delete b reparent");
    // What stands on a kept one stands on what is below it.
    assert!(refused(&server, "branch_delete a", "2BP01").contains("\"leaf\""));
    server.row("branch_delete a reparent");
    for round in 0..2 {
        assert_eq!(names(&server), ["leaf", "main"], "{round}");
        assert_eq!(kept(&server), 2);
        assert!(server.value("status", "kept_bytes").parse::<u64>().unwrap() > 0);
        assert_eq!(problems(&server), "");
        server.row("timeline_show leaf");
        refused(&server, "timeline_show a", "42704");
        server.end(Signal::SIGKILL);
        server.start();
    }
    // The names are free, and the history can be branched from.
    server.row("branch_create a leaf");
    server.row("branch_delete leaf reparent");
    assert_eq!((names(&server).len(), kept(&server)), (2, 3));
    server.row("timeline_show a");
    server.row("branch_delete a");
    assert_eq!((kept(&server), a.exists(), b.exists()), (0, false, false), "all is gone with it");
    assert_eq!((names(&server), problems(&server)), (vec!["main".to_owned()], String::new()));
}

#[test]
fn a_crash_between_two_steps_leaves_the_branch_or_none() {
    let (mut server, [a, _]) = start();
    let refs = server.repo().join("refs");
    let name = fs::read(refs.join("branches/a")).unwrap();
    server.row("branch_delete a reparent");
    let fact = refs.join("kept").join(a.file_name().unwrap());
    let saved = fs::read(&fact).unwrap();
    let put = |path: &PathBuf, bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        give_to_account(path);
    };

    // The fact was written, the name not removed yet: the branch counts.
    server.end(Signal::SIGKILL);
    put(&refs.join("branches/a"), &name);
    server.start();
    assert_eq!((names(&server).len(), kept(&server), fact.exists()), (4, 0, false));
    server.row("branch_delete a reparent");

    // A fact that is damaged or gone is a name that was lost: told, and nothing is removed.
    for damaged in [Some(&saved[..saved.len() / 2]), None] {
        server.end(Signal::SIGTERM);
        match damaged {
            Some(bytes) => put(&fact, bytes),
            None => fs::remove_file(&fact).unwrap(),
        }
        server.start();
        assert!(problems(&server).contains("refs/"), "{}", problems(&server));
        server.row("timeline_show leaf");
        server.row("branch_delete leaf");
        assert!(a.exists());
        put(&fact, &saved);
        wait_for("using it again", || problems(&server).is_empty().then_some(()));
        server.row("branch_create leaf b");
    }

    // Its removal was begun, and nobody names it: it is finished.
    server.row("branch_delete leaf");
    server.end(Signal::SIGKILL);
    let unnamed = a.with_extension("unnamed");
    fs::rename(&a, &unnamed).unwrap();
    let [b_ref, b] = ["branches/b", "b-away"].map(|name| refs.join(name));
    let id = fs::read_to_string(&b_ref).unwrap();
    fs::rename(&b_ref, &b).unwrap();
    let id = id.lines().find_map(|line| line.strip_prefix("timeline = ")).unwrap();
    fs::remove_dir_all(server.repo().join("timelines").join(id.trim_matches('"'))).unwrap();
    server.start();
    assert_eq!((names(&server), problems(&server)), (vec!["main".to_owned()], String::new()));
    assert_eq!((fact.exists(), unnamed.exists()), (false, false));
}
