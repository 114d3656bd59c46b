//! Tags: names for points, which keep what they name.

use std::fs;

use nix::sys::signal::Signal;
use postgres_testing::give_to_account;

use crate::fixture::{Server, wait_for};

fn refused(server: &Server, sql: &str, code: &str) -> String {
    let error = server.try_command(sql).expect_err(sql);
    let text = error.to_string();
    assert_eq!(error.sqlstate().map(|s| s.code().to_owned()).as_deref(), Some(code), "{text}");
    text
}

#[test]
fn a_tag_stands_for_its_point_and_keeps_its_branch() {
    let mut server = Server::start_new();
    let start = server.value("branch_list", "start_lsn");
    server.row(&format!("branch_create dev main@{start}"));
    let tag = server.row("tag_create v1 dev");
    assert_eq!(tag.text("branch").unwrap(), "dev");
    assert_eq!(tag.text("lsn").unwrap(), start);

    // Names are those of branches or of tags.
    assert!(refused(&server, "branch_create v1 main", "42710").contains("a tag \"v1\""));
    assert!(refused(&server, "branch_rename dev v1", "42710").contains("a tag \"v1\""));
    assert!(refused(&server, "tag_create dev main", "42710").contains("a branch \"dev\""));
    refused(&server, "tag_create v1 main", "42710");
    refused(&server, "tag_create x nowhere", "42704");
    refused(&server, "tag_create x main@0/28", "22023");
    refused(&server, "branch_create x v1@0/28", "22023");
    refused(&server, "timeline_show v1", "42704");
    assert!(refused(&server, "tag_delete v2", "42704").contains("\"v1\""));

    // A point like others, also after a restart and under another name of the branch.
    server.row("branch_rename dev trial");
    server.end(Signal::SIGKILL);
    server.start();
    let tag = server.row("tag_list");
    assert_eq!((tag.text("name").unwrap(), tag.text("branch").unwrap()), ("v1", "trial"));
    let leaf = server.row("branch_create leaf v1");
    assert_eq!(leaf.text("start_lsn").unwrap(), start);
    assert_eq!(server.value("tag_create v2 v1", "lsn"), start);
    server.row("branch_delete leaf");

    let text = refused(&server, "branch_delete trial", "2BP01");
    assert!(text.contains("\"v1\", \"v2\""), "{text}");
    server.row("tag_delete v1");
    server.row("tag_delete v2");
    server.row("branch_delete trial");
    assert!(server.try_command("tag_list").unwrap().is_empty());
}

#[test]
fn a_damaged_tag_is_named_lets_no_branch_go_and_comes_back() {
    let mut server = Server::start_new();
    server.row("branch_create dev main");
    server.row("tag_create v1 main");
    let path = server.repo().join("refs/tags/v1");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[60] ^= 1;
    for bad in [&bad[..], &[], b"format_version = 9\nx = 1\n"] {
        server.end(Signal::SIGTERM);
        fs::write(&path, bad).unwrap();
        give_to_account(&path);
        server.start();
        let names = |text: &str| text.contains("refs/tags/v1");
        assert!(names(&server.value("status", "problems")));
        let row = server.row("tag_list");
        assert_eq!(row.text("state").unwrap(), "damaged");
        assert!(names(row.text("cause").unwrap()));
        // Neither is it a branch, nor can there be one.
        assert_eq!(server.try_command("branch_list").unwrap().len(), 2);
        assert!(names(&refused(&server, "branch_create x v1", "XX001")));
        assert!(names(&refused(&server, "branch_create v1 main", "XX001")));
        assert!(names(&refused(&server, "tag_create v1 main", "XX001")));
        // It may be on any of them.
        assert!(refused(&server, "branch_delete dev", "2BP01").contains("tag \"v1\""));

        fs::write(&path, &good).unwrap();
        give_to_account(&path);
        wait_for("using it again", || server.try_command("branch_create x v1").ok());
        server.row("branch_delete x");
    }
    fs::write(&path, &bad).unwrap();
    server.end(Signal::SIGTERM);
    server.start();
    server.row("tag_delete v1");
    server.row("branch_delete dev");
    assert!(!path.exists());
}
