//! Logging in to a real PostgreSQL server with each kind of password.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use postgres_testing::Cluster;
use postgres_wire::SqlState;
use postgres_wire::client::{ClientError, ConnectParams, Connection};
use support::{free_port, timeouts};

#[test]
fn passwords_of_each_kind() {
    let port = free_port();
    let mut cluster = Cluster::init(&format!("port = {port}\nlisten_addresses = '127.0.0.1'"));
    let hba = cluster.data_dir().join("pg_hba.conf");
    // The first line that fits counts.
    let lines = "host all scrammer 127.0.0.1/32 scram-sha-256\n\
                 host all hasher 127.0.0.1/32 md5\n\
                 host all plain 127.0.0.1/32 password\n\
                 host all nobody 127.0.0.1/32 reject\n";
    let old = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("{lines}{old}")).unwrap();
    cluster.start();
    // The socket's name has the port in it.
    let unix = |more: &str| -> ConnectParams {
        format!("host={} port={port} {more}", cluster.dir().display()).parse().unwrap()
    };
    let mut admin = Connection::connect(&unix("user=postgres"), timeouts()).unwrap();
    for sql in [
        "create role scrammer login password 'sécret ''x'",
        "set password_encryption = md5; create role hasher login password 'old hat'",
        "create role plain login password 'told'",
    ] {
        admin.simple_query(sql).unwrap();
    }

    let login = |user: &str, password: &str| {
        let mut params: ConnectParams =
            format!("host=127.0.0.1 port={port} dbname=postgres user={user}").parse().unwrap();
        params.password = Some(password.to_owned()).filter(|p| !p.is_empty());
        Connection::connect(&params, timeouts())
    };
    for (user, password) in [("scrammer", "sécret 'x"), ("hasher", "old hat"), ("plain", "told")] {
        let mut connection = login(user, password).unwrap();
        let rows = connection.simple_query("select current_user as who, 1 as one").unwrap();
        assert_eq!(rows[0].text("who").unwrap(), user);
        // A wrong one is refused by the server, none at all by ourselves.
        let error = login(user, "wrong").unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_PASSWORD), "{user}: {error}");
        assert!(!error.is_transient());
        let error = login(user, "").unwrap_err();
        assert!(matches!(error, ClientError::Authentication(_)), "{user}: {error}");
    }
    let error = login("nobody", "x").unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION_SPECIFICATION));

    // While we are here: real answers of a real server.
    let mut connection = login("plain", "told").unwrap();
    assert!(connection.parameter("server_version").unwrap().starts_with("15"));
    let rows = connection.simple_query("select null as n; select 2 as n; create temp table t()");
    assert_eq!(rows.unwrap().len(), 2);
    let error = connection.simple_query("select 1; select 1/0").unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::from_code("22012"));
    let mut bytes = Vec::new();
    let sql = "copy (select repeat('x', 1000) from generate_series(1, 3000)) to stdout";
    std::io::copy(&mut connection.copy_out(sql).unwrap(), &mut bytes).unwrap();
    assert_eq!(bytes.len(), 3000 * 1001);
    let failing = "copy (select 1 / (3 - n) from generate_series(1, 5) n) to stdout";
    let mut reader = connection.copy_out(failing).unwrap();
    let error = loop {
        match reader.next_chunk() {
            Ok(chunk) => assert!(chunk.is_some(), "the end came without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), SqlState::from_code("22012"));
    assert_eq!(connection.simple_query("select 1").unwrap().len(), 1);
    // Ended by an administrator while idle.
    let pid = connection.simple_query("select pg_backend_pid() as pid").unwrap();
    let pid = pid[0].text("pid").unwrap().to_owned();
    admin.simple_query(&format!("select pg_terminate_backend({pid}, 20000)")).unwrap();
    let error = connection.simple_query("select 1").unwrap_err();
    assert!(error.is_transient(), "{error}");
}
