//! How long branches are kept: protection, expiry.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use postgres_formats::Timestamp;

use crate::fixture::{Server, wait_for};

fn refused(server: &Server, sql: &str, code: &str) -> String {
    let error = server.try_command(sql).expect_err(sql);
    let text = error.to_string();
    assert_eq!(error.sqlstate().map(|s| s.code().to_owned()).as_deref(), Some(code), "{text}");
    text
}

/// A server that deletes what has expired at once.
fn start() -> Server {
    let mut server = Server::init();
    let path = server.repo().join("zenith.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + "[branches]\nexpiry_grace_seconds = 0\n").unwrap();
    server.start();
    server
}

fn in_seconds(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_unix_micros(i64::try_from(now).unwrap() + seconds * 1_000_000).to_string()
}

fn of(server: &Server, branch: &str, column: &str) -> Option<String> {
    let rows = server.try_command("branch_list").unwrap();
    let row = rows.into_iter().find(|row| row.text("name").unwrap() == branch)?;
    Some(row.text(column).unwrap_or_default().to_owned())
}

#[test]
fn a_protected_branch_stays_until_it_is_not_so() {
    let mut server = start();
    server.row("branch_create dev main");
    // As the first release wrote it.
    let path = server.repo().join("refs/branches/dev");
    server.end(Signal::SIGTERM);
    let id = fs::read_to_string(&path).unwrap();
    let id = id.lines().find_map(|line| line.strip_prefix("timeline = ")).unwrap().to_owned();
    fs::write(&path, id.trim_matches('"')).unwrap();
    server.start();
    assert_eq!(of(&server, "dev", "protected").unwrap(), "false");

    assert_eq!(server.value("branch_protect dev", "protected"), "true");
    server.end(Signal::SIGKILL);
    server.start();
    assert!(refused(&server, "branch_delete dev", "55000").contains("--unprotect dev"));
    server.row(&format!("branch_expire dev {}", in_seconds(-1)));
    wait_for("an attempt to delete it", || {
        of(&server, "dev", "kept_because").filter(|text| text.contains("protected"))
    });
    server.row("branch_rename dev other");
    assert_eq!(of(&server, "other", "protected").unwrap(), "true");
    server.row("branch_unprotect other");
    wait_for("the branch to go", || of(&server, "other", "name").is_none().then_some(()));
    refused(&server, "branch_protect other", "42704");
}

#[test]
fn a_branch_that_has_expired_goes_when_nothing_needs_it() {
    let mut server = start();
    refused(&server, &format!("branch_expire main {}", in_seconds(60)), "55000");
    let late = in_seconds(3600);
    server.row(&format!("branch_create late main {late}"));
    server.row("branch_create dev main");
    server.row("branch_create leaf dev");
    server.row("tag_create v1 leaf");
    let pages = server.pages("leaf");
    for branch in ["dev", "leaf"] {
        server.row(&format!("branch_expire {branch} {}", in_seconds(-1)));
    }
    let waits_for = |server: &Server, branch: &str, what: &str| {
        wait_for(&format!("{branch} kept for {what}"), || {
            of(server, branch, "kept_because").filter(|text| text.contains(what))
        })
    };
    waits_for(&server, "dev", "\"leaf\"");
    waits_for(&server, "leaf", "\"v1\"");
    server.row("tag_delete v1");
    waits_for(&server, "leaf", "being read");
    // Known again after a crash; and what is read by nobody any more goes, then what it stood on.
    server.row("tag_create v2 leaf");
    server.end(Signal::SIGKILL);
    drop(pages);
    server.start();
    waits_for(&server, "leaf", "\"v2\"");
    server.row("branch_expire leaf");
    assert_eq!(of(&server, "leaf", "expires").unwrap(), "");
    server.row("tag_delete v2");
    waits_for(&server, "dev", "\"leaf\"");
    server.row(&format!("branch_expire leaf {}", in_seconds(-1)));
    wait_for("both to go", || of(&server, "dev", "name").is_none().then_some(()));
    assert_eq!(of(&server, "leaf", "name"), None);
    let left: Timestamp = of(&server, "late", "expires").unwrap().parse().unwrap();
    assert!(left >= late.parse().unwrap());
}
