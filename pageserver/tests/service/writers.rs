//! One compute writes a timeline: another one takes over where history ends, and from then on nothing
//! is taken from the one before, nor from a copy of the present one that is not up to date.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use pageserver_client::{ClientTimeouts, ErrorCode, Generation, PageClient, PageClientError};
use postgres_formats::{BlockNumber, ForkNumber, Lsn, Oid, RelTag};
use postgres_testing::{Cluster, text};

use crate::fixture::{Server, wait_for};

/// `pg_class` of the database `postgres`.
const PG_CLASS: RelTag =
    RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(1259), fork: ForkNumber::Main };

/// A compute as the control plane makes it: with the role, and with its name in the configuration.
struct Writer {
    cluster: Cluster,
    instance: &'static str,
    generation: String,
    since: Lsn,
}

impl Writer {
    fn claim(server: &Server, instance: &'static str, after: u64, settings: &str) -> Writer {
        let row = server.row(&format!("writer_claim main {instance} pg-{instance} {after}"));
        let generation = row.text("generation").unwrap().to_owned();
        let since: Lsn = row.text("since_lsn").unwrap().parse().unwrap();
        let timeline = server.timeline("main");
        let own = format!("zenith.writer = '{timeline} {instance} {generation}'\n{settings}");
        let cluster = server.compute("main", Some(since), &own);
        Writer { cluster, instance, generation, since }
    }

    fn callmemaybe(&self, at: &Cluster) -> String {
        format!(
            "callmemaybe main 'host={} user=postgres' {} {}",
            text(at.dir()),
            self.instance,
            self.generation
        )
    }

    fn follow(&self, server: &Server) {
        server.row(&self.callmemaybe(&self.cluster));
    }
}

fn pages(server: &Server, generation: u64) -> PageClient {
    let [unix, _] = server.connstrs();
    let timeouts = ClientTimeouts::default();
    let timeline = server.timeline("main");
    PageClient::connect_as(&unix, timeline, Some(Generation(generation)), timeouts).unwrap()
}

fn refusal(client: &mut PageClient, lsn: Lsn) -> String {
    match client.get_page(PG_CLASS, BlockNumber(0), lsn) {
        Err(PageClientError::Refused { code: ErrorCode::Fenced, message }) => message,
        other => panic!("{other:?}"),
    }
}

fn sqlstate(server: &Server, command: &str) -> (String, String) {
    let error = server.try_command(command).unwrap_err();
    (error.sqlstate().unwrap().code().to_owned(), error.to_string())
}

fn wait_fenced(server: &Server) -> String {
    wait_for("the refusal", || {
        let row = server.row("writer_show main");
        (row.text("state").unwrap() == "fenced").then(|| row.text("message").unwrap().to_owned())
    })
}

fn wait_gone(cluster: &Cluster) {
    wait_for("the compute's end", || {
        (!cluster.data_dir().join("postmaster.pid").exists()).then_some(())
    });
}

#[test]
fn another_compute_takes_over_and_the_old_one_is_refused() {
    let mut server = Server::start_new();
    let mut old = Writer::claim(&server, "a", 0, "");
    old.cluster.start();
    old.follow(&server);
    old.cluster.sql("create table t (n int); insert into t values (1)");
    server.catch_up("main", &old.cluster);
    let mut open_stream = pages(&server, 1);
    open_stream.get_page(PG_CLASS, BlockNumber(0), old.since).unwrap();

    // Not while it is alive, not after somebody else, and asking again changes nothing.
    let (code, message) = sqlstate(&server, "writer_claim main b pg-b 1");
    assert_eq!(code, "55006");
    assert!(message.contains("\"pg-a\" still runs"), "{message}");
    assert_eq!(sqlstate(&server, "writer_claim main b pg-b 0").0, "55000");
    let again = server.row("writer_claim main a pg-a 0");
    assert_eq!(again.text("generation").unwrap(), "1");
    assert_eq!(again.text("since_lsn").unwrap(), old.since.to_string());
    // Nor when the page server has just come back and has not connected yet.
    assert_eq!(server.end(Signal::SIGKILL), None);
    server.start();
    assert_eq!(sqlstate(&server, "writer_claim main b pg-b 1").0, "55006");

    // WAL of a record that is not complete is given up: the new one may go on differently.
    old.cluster.signal(Signal::SIGQUIT);
    wait_gone(&old.cluster);
    let mut new = Writer::claim(&server, "b", 1, "");
    assert_eq!(new.generation, "2");
    assert_eq!(new.since.to_string(), server.value("timeline_show main", "last_record_lsn"));
    new.cluster.start();
    assert_eq!(new.cluster.sql("select sum(n) from t"), "1");

    // The old one comes back, on its own or at the address of the new one.
    let mut open_stream = {
        // The page server has been killed meanwhile.
        drop(open_stream);
        pages(&server, 1)
    };
    let message = refusal(&mut open_stream, old.since);
    let since = new.since.to_string();
    for part in ["\"pg-b\"", "generation 2", &since, "pg destroy"] {
        assert!(message.contains(part), "{message}");
    }
    pages(&server, 2).get_page(PG_CLASS, BlockNumber(0), old.since).unwrap();
    old.cluster.start();
    old.cluster.sql("insert into t values (100)");
    assert_eq!(sqlstate(&server, &old.callmemaybe(&old.cluster)).0, "ZF001");
    let nameless = format!("callmemaybe main 'host={} user=postgres'", text(old.cluster.dir()));
    assert_eq!(sqlstate(&server, &nameless).0, "55000");
    server.row(&new.callmemaybe(&old.cluster));
    let message = wait_fenced(&server);
    assert!(message.contains("instance a of generation 1"), "{message}");
    let streams = "select count(*) from pg_stat_replication where state <> 'startup'";
    assert_eq!(old.cluster.sql(streams), "0");

    new.follow(&server);
    new.cluster.sql("insert into t values (2)");
    server.catch_up("main", &new.cluster);
    assert_eq!(server.value("writer_show main", "state"), "streaming");
    let mut copy = server.compute("main", None, "");
    copy.start();
    assert_eq!(copy.sql("select string_agg(n::text, ',' order by n) from t"), "1,2");
    // One that is removed while another has the role takes nothing from that.
    assert_eq!(server.value("writer_release main a", "generation"), "2");
    assert_eq!(server.value("writer_show main", "state"), "streaming");
    let released = server.row("writer_release main b");
    assert_eq!(released.text("held").unwrap(), "false");
    assert!(server.try_command("compute_list").unwrap().is_empty());
}

#[test]
fn a_directory_put_back_as_it_was_is_refused() {
    let server = Server::start_new();
    let standby = "synchronous_standby_names = 'zenith_pageserver'\nsynchronous_commit = local\n\
                   autovacuum = off";
    let mut main = Writer::claim(&server, "a", 0, standby);
    main.cluster.start();
    main.follow(&server);
    main.cluster.sql("create table t (n int); insert into t values (1)");
    main.cluster.stop();
    let copy = main.cluster.copy_data_dir("copy");
    main.cluster.start();
    main.follow(&server);
    main.cluster.sql("insert into t select generate_series(1, 1000)");
    let received = server.catch_up("main", &main.cluster);
    main.cluster.stop();
    let received: Lsn = {
        let all = server.value("writer_show main", "last_record_lsn").parse().unwrap();
        assert!(all > received);
        all
    };
    let data = main.cluster.data_dir();
    fs::rename(&data, data.with_file_name("good")).unwrap();
    fs::rename(&copy, &data).unwrap();

    // It ends before what was received.
    main.cluster.start();
    main.follow(&server);
    let message = wait_fenced(&server);
    assert!(message.contains("ends at") && message.contains(&received.to_string()), "{message}");
    // It goes on, past that.
    main.cluster.sql("insert into t select generate_series(1, 5000)");
    let message = wait_for("the other refusal", || {
        let message = server.value("writer_show main", "message");
        message.contains("differs").then_some(message)
    });
    assert!(message.contains("first at 0/"), "{message}");
    // Nothing has ever been acknowledged to it.
    let flushed = "select count(*) from pg_stat_replication where flush_lsn is not null";
    assert_eq!(main.cluster.sql(flushed), "0");
    std::thread::scope(|scope| {
        let waits = "set synchronous_commit = on; insert into t values (7)";
        let commit = scope.spawn(|| main.cluster.sql(waits));
        let waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep'";
        let pid = wait_for("the commit's wait", || {
            Some(main.cluster.sql(waiting)).filter(|pid| !pid.is_empty())
        });
        // As long as a few attempts to follow take.
        std::thread::sleep(Duration::from_secs(1));
        assert!(!commit.is_finished());
        main.cluster.sql(&format!("select pg_cancel_backend({pid})"));
    });
    assert_eq!(server.value("writer_show main", "last_record_lsn"), received.to_string());

    // The right one comes back.
    main.cluster.stop();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(data.with_file_name("good"), &data).unwrap();
    main.cluster.start();
    assert_eq!(main.cluster.sql("select count(*) from t"), "1001");
    server.catch_up("main", &main.cluster);
    assert_eq!(server.value("writer_show main", "state"), "streaming");
}

#[test]
fn who_writes_is_remembered_and_damage_is_told() {
    let mut server = Server::start_new();
    let timeline = server.timeline("main");
    server.row("writer_claim main a pg-a 0");
    assert_eq!(server.end(Signal::SIGKILL), None);
    server.start();
    let row = server.row("writer_list");
    assert_eq!(row.text("instance").unwrap(), "a");
    assert_eq!(row.text("name").unwrap(), "pg-a");
    assert_eq!(row.text("held").unwrap(), "true");
    assert_eq!(server.end(Signal::SIGTERM), Some(0));

    let path = server.repo().join("timelines").join(timeline.to_string()).join("writer.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("generation = 1", "generation = 2")).unwrap();
    server.start();
    let (code, message) = sqlstate(&server, "writer_show main");
    assert_eq!(code, "XX001");
    assert!(message.contains("writer.toml is damaged"), "{message}");
    assert!(server.value("writer_list", "message").contains("damaged"));
    assert_eq!(sqlstate(&server, "writer_claim main b pg-b 1").0, "XX001");
    assert_eq!(sqlstate(&server, "callmemaybe main 'host=/none user=x'").0, "XX001");
    let end: Lsn = server.value("timeline_show main", "last_record_lsn").parse().unwrap();
    pages(&server, 1).get_page(PG_CLASS, BlockNumber(0), end).unwrap();
    fs::write(&path, good).unwrap();
    assert_eq!(server.value("writer_show main", "generation"), "1");
}
