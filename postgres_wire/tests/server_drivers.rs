//! Clients that we did not write: psql and the `postgres` crate.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::process::{Command, Output};

use postgres::{Client, NoTls};
use support::TestServer;

fn psql(server: &TestServer, arguments: &[&str]) -> Output {
    let program = postgres_testing::bin_dir().join("psql");
    Command::new(program)
        .args(["-X", "-h", "127.0.0.1", "-U", "alice", "-At", "-p"])
        .arg(server.address.port().to_string())
        .args(arguments)
        .arg("db")
        .output()
        .unwrap()
}

#[test]
fn psql_runs_commands_and_sees_errors() {
    let server = TestServer::start();
    let output = psql(&server, &["-c", "rows 2; echo a 'b;c'; done"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "0||t\n1||f\na\nb;c\nDONE\n", "{}", String::from_utf8_lossy(&output.stderr));

    let output = psql(&server, &["-v", "VERBOSITY=verbose", "-c", "done; fail; done"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    for part in ["42704: no such branch", "DETAIL:  There are three.", "HINT:  Look again."] {
        assert!(errors.contains(part), "{errors}");
    }
    // After an error the connection goes on.
    let output = psql(&server, &["-c", "fail", "-c", "user", "-c", ""]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "alice\n");
}

#[test]
fn psql_connects_through_the_unix_socket() {
    let server = TestServer::start();
    let output = Command::new(postgres_testing::bin_dir().join("psql"))
        .args(["-X", "-U", "bob", "-At", "-c", "user", "-h"])
        .arg(server.folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "bob\n", "{errors}");
    assert_eq!(errors, "");
}

#[test]
fn psql_is_told_why_it_is_refused() {
    let server = TestServer::start();
    let output = psql(&server, &["-U", "mallory", "-c", "done"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("mallory is not welcome"), "{errors}");
}

fn client(server: &TestServer) -> Client {
    let address = server.address;
    let params = format!("host={} port={} user=alice", address.ip(), address.port());
    Client::connect(&params, NoTls).unwrap()
}

#[test]
fn driver_simple_query() {
    let server = TestServer::start();
    let mut client = client(&server);
    let messages = client.simple_query("rows 3; done").unwrap();
    let rows: Vec<_> = messages
        .iter()
        .filter_map(|m| match m {
            postgres::SimpleQueryMessage::Row(row) => row.get("n").map(str::to_owned),
            _ => None,
        })
        .collect();
    assert_eq!(rows, ["0", "1", "2"]);
    let error = client.simple_query("fail").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42704");
    client.batch_execute("done").unwrap();
}

#[test]
fn driver_extended_query() {
    let server = TestServer::start();
    let mut client = client(&server);
    // The driver asks for binary results, so the values have to be of the types announced.
    let rows = client.query("rows $1", &[&"2"]).unwrap();
    let values: Vec<(i64, Option<String>, bool)> =
        rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    assert_eq!(values, [(0, None, true), (1, None, false)]);

    let statement = client.prepare("echo $1 $2").unwrap();
    for hard in ["", "it's", "a b; fail", "$1 $2", "\\", "é\n"] {
        let rows = client.query(&statement, &[&hard, &"x"]).unwrap();
        assert_eq!(rows[0].get::<_, String>(0), hard);
        assert_eq!(rows[1].get::<_, String>(0), "x");
    }
    assert_eq!(client.execute("done", &[]).unwrap(), 0);
    assert_eq!(client.execute("", &[]).unwrap(), 0);

    // Errors while preparing, while running, and of the handler itself leave the connection alive.
    for (sql, code) in [
        ("unknown $1", "42601"),
        ("fail", "42704"),
        ("liar", "XX000"),
        ("reflect", "0A000"),
        ("done; done", "42601"),
    ] {
        let error = client.execute(sql, &[]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), code, "{sql}: {error}");
    }
    assert_eq!(client.query("echo still here", &[]).unwrap().len(), 2);
}

#[test]
fn driver_copy_out() {
    let server = TestServer::start();
    let mut client = client(&server);
    for size in [0, 1, 65_536, 1_000_000] {
        let mut bytes = Vec::new();
        let mut reader = client.copy_out(&format!("copyout {size}")).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        drop(reader);
        assert_eq!(bytes.len(), size);
        assert!(bytes.iter().enumerate().all(|(at, &b)| b == (at % 256) as u8));
    }
    for (sql, message) in [("copyhalf", "not finished"), ("copyfail", "found rot")] {
        let mut bytes = Vec::new();
        let error = client.copy_out(sql).unwrap().read_to_end(&mut bytes).unwrap_err();
        assert!(format!("{error:?}").contains(message), "{error:?}");
    }
    client.batch_execute("done").unwrap();
}
