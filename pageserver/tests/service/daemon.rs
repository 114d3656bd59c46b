//! Starting and ending the program: what it leaves, what it refuses, and in which words.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::fixture::Server;

/// Runs the program, which must refuse, and returns its one line.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains("error:")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].to_owned()
}

#[test]
fn a_clean_stop_leaves_no_trace_and_a_killed_server_no_obstacle() {
    let mut server = Server::start_new();
    assert_eq!(server.end(Signal::SIGTERM), Some(0), "{}", server.log());
    for name in ["pageserver.pid", "pageserver.addr"] {
        assert!(!server.repo().join(name).exists(), "{name} is left");
    }
    assert_eq!(fs::read_dir(server.repo().join("run")).unwrap().count(), 0, "a socket is left");

    server.start();
    assert_eq!(server.end(Signal::SIGKILL), None);
    // What it left behind is replaced, as is nonsense.
    assert!(server.repo().join("pageserver.pid").exists());
    fs::write(server.repo().join("pageserver.pid"), "-1").unwrap();
    server.start();
    assert_eq!(server.value("status", "branches"), "1");
    assert_eq!(server.end(Signal::SIGINT), Some(0), "{}", server.log());
}

#[test]
fn a_client_that_waits_does_not_hold_up_the_end() {
    let mut server = Server::start_new();
    let mut idle = server.connect();
    let mut waiting = server.connect();
    let waiter = std::thread::spawn(move || waiting.simple_query("basebackup main FF/0"));
    assert_eq!(server.end(Signal::SIGTERM), Some(0), "{}", server.log());
    assert!(waiter.join().unwrap().is_err());
    assert!(idle.simple_query("status").is_err());
}

#[test]
fn one_server_per_repository() {
    let server = Server::start_new();
    let said = refusal(&mut server.command("run"));
    assert!(said.contains("another page server (process "), "{said}");
    let said = refusal(server.command("init").args(["--pgdata", "/"]));
    assert!(said.contains("another page server"), "{said}");
    assert_eq!(server.value("status", "branches"), "1");
}

#[test]
fn what_it_cannot_serve_it_names() {
    let server = Server::init();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refusal(server.command("run").args(["--listen", &address]));
    assert!(said.contains(&address) && said.contains("in use"), "{said}");

    server.configure(2);
    let said = refusal(&mut server.command("run"));
    assert!(said.contains("format_version 2"), "{said}");

    fs::write(server.repo().join("zenith.toml"), "format_version = 1\npg_bin_dir = \"/none\"\n")
        .unwrap();
    let said = refusal(&mut server.command("run"));
    assert!(said.contains("/none/postgres does not exist"), "{said}");

    fs::remove_file(server.repo().join("zenith.toml")).unwrap();
    let said = refusal(&mut server.command("run"));
    assert!(said.contains("is not a Zenith repository"), "{said}");
}
