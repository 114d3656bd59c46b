//! The commands, in the simple and in the extended query protocol, and what is said when they fail.

use postgres::NoTls;

use crate::fixture::{LSN_TIMEOUT_SECONDS, Server};

#[test]
fn branches_come_and_go() {
    let server = Server::start_new();
    let main = server.row("branch_list");
    let timeline = main.text("timeline").unwrap();
    let start = main.text("start_lsn").unwrap();
    assert_eq!(main.text("name").unwrap(), "main");

    let dev = server.row(&format!("branch_create dev main@{start}"));
    assert_eq!(dev.text("ancestor_timeline").unwrap(), timeline);
    assert_eq!(dev.text("ancestor_lsn").unwrap(), start);
    assert_eq!(dev.text("last_record_lsn").unwrap(), start);
    server.row("branch_create 'dev.2' dev");
    let shown = server.row(&format!("timeline_show {}", dev.text("timeline").unwrap()));
    assert_eq!(shown.text("last_record_lsn").unwrap(), start);

    let status = server.row("status");
    let number = |column| status.text(column).unwrap().parse::<usize>().unwrap();
    assert_eq!((number("branches"), number("timelines_loaded")), (3, 2));
    assert_eq!(number("segments_open"), 1, "that of main");
    server.row("branch_rename dev trial");
    assert_eq!(server.value("branch_show dev.2", "ancestor_branch"), "trial");
    assert_eq!(server.value("branch_show trial", "ancestor_branch"), "main");
    assert!(server.try_command("branch_show dev").is_err());
    server.row("branch_delete dev.2");
    server.row("branch_delete trial");
    assert_eq!(server.value("branch_list", "name"), "main");
}

#[test]
fn every_failure_has_its_code_and_names_the_cause() {
    let server = Server::start_new();
    server.row("branch_create dev main");
    server.row("branch_create leaf dev");
    let cases = [
        ("nonsense", "42601", "\"nonsense\""),
        ("status now", "42601", "status"),
        ("branch_create a 'b", "42601", "unterminated"),
        ("branch_create dev main", "42710", "\"dev\""),
        ("branch_create a/b main", "22P02", "\"a/b\""),
        ("branch_create x nowhere", "42704", "\"nowhere\""),
        ("branch_create x main@16B3748", "22P02", "16B3748"),
        ("branch_create x main@0/28", "22023", "before the beginning"),
        ("branch_create x main@FF/0", "57014", "FF/0"),
        ("branch_create x main@noon", "22P02", "\"main@noon\""),
        ("branch_create x main@2001-01-01T00:00:00Z", "22023", "before the beginning"),
        ("timestamp_at main FF/0", "57014", "FF/0"),
        ("branch_delete dev", "2BP01", "\"leaf\""),
        ("branch_delete main", "55000", "\"main\""),
        ("branch_rename dev leaf", "42710", "\"leaf\""),
        ("timeline_show 00112233445566778899aabbccddeeff", "42704", "00112233"),
        ("basebackup main 0/28", "22023", "0/28"),
        ("basebackup main 1", "22P02", "\"1\""),
        ("lsn_at main yesterday", "22P02", "\"yesterday\""),
        ("lsn_at main 2001-01-01T00:00:00Z", "22023", "before the beginning"),
        ("timestamp_at main 0/28", "22023", "0/28"),
        ("pagestream nowhere", "42704", "\"nowhere\""),
        ("callmemaybe main 'colour=red'", "22023", "colour"),
    ];
    for (sql, code, cause) in cases {
        let error = server.try_command(sql).expect_err(sql);
        let text = error.to_string();
        assert_eq!(error.sqlstate().map(|s| s.code().to_owned()).as_deref(), Some(code), "{text}");
        assert!(text.contains(cause), "{sql}: {text}");
    }
    assert_eq!(server.try_command("branch_list").unwrap().len(), 3, "nothing has been changed");
}

#[test]
fn a_timeout_names_both_positions() {
    let server = Server::start_new();
    let end = server.value("timeline_show main", "last_record_lsn");
    let began = std::time::Instant::now();
    let error = server.try_command("basebackup main FF/0").expect_err("too far").to_string();
    assert!(error.contains("FF/0") && error.contains(&end), "{error}");
    assert!(began.elapsed().as_secs() >= LSN_TIMEOUT_SECONDS);
}

#[test]
fn drivers_can_use_the_extended_protocol() {
    let server = Server::start_new();
    for connstr in server.connstrs() {
        let mut client = postgres::Client::connect(&connstr, NoTls).unwrap();
        let row = client.query_one("timeline_show $1", &[&"main"]).unwrap();
        let oldest: &str = row.get("oldest_lsn");
        assert_eq!(row.get::<_, &str>("start_lsn"), oldest);
        let error = client.query("branch_create $1 $2", &[&"x", &"nowhere"]).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42704"));
        // Drivers that open transactions by themselves are content.
        let mut transaction = client.transaction().unwrap();
        assert_eq!(transaction.query("branch_list", &[]).unwrap().len(), 1);
        transaction.commit().unwrap();
    }
}
