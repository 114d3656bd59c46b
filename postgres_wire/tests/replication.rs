//! The replication client against a real PostgreSQL server.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postgres_formats::lsn::{Lsn, WalSegmentSize};
use postgres_testing::Cluster;
use postgres_wire::StopSignal;
use postgres_wire::client::{ConnectParams, Connection};
use postgres_wire::replication::{
    ReplicationClient, ReplicationError, ReplicationMessage, ReplicationStream, SlotState,
};
use support::{PATIENCE, timeouts};

const SEGMENT: WalSegmentSize = WalSegmentSize::DEFAULT;
/// Short: the rest of the time is what the test waits for.
const TICK: Duration = Duration::from_millis(50);

struct Source {
    cluster: Cluster,
}

impl Source {
    fn start(settings: &str) -> Source {
        let mut cluster = Cluster::init(&format!(
            "wal_level = replica\nmax_wal_senders = 5\nshared_buffers = '8MB'\n{settings}"
        ));
        cluster.start();
        Source { cluster }
    }

    fn params(&self) -> ConnectParams {
        let folder = self.cluster.dir().display();
        format!("host={folder} user=postgres application_name=zenith_test").parse().unwrap()
    }

    fn client(&self) -> ReplicationClient {
        ReplicationClient::connect(&self.params(), timeouts(), None).unwrap()
    }

    fn value(&self, sql: &str) -> String {
        let params = ConnectParams { dbname: Some("postgres".to_owned()), ..self.params() };
        let mut connection = Connection::connect(&params, timeouts()).unwrap();
        let rows = connection.simple_query(sql).unwrap();
        let value = rows.first().and_then(|row| row.get(0)).unwrap_or_default();
        String::from_utf8(value.to_vec()).unwrap()
    }

    fn flushed(&self) -> Lsn {
        self.value("select pg_current_wal_flush_lsn()").parse().unwrap()
    }

    /// Polls until the query gives the wanted answer.
    fn await_value(&self, sql: &str, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.value(sql);
            if value == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{sql}: {value}, not {wanted}");
        }
    }

    /// The bytes of pg_wal from `from` to `to`.
    fn wal(&self, from: Lsn, to: Lsn) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = from;
        while at < to {
            let segment = at.segment(SEGMENT);
            let name = segment.file_name(1, SEGMENT);
            let path = self.cluster.data_dir().join("pg_wal").join(name);
            let file = std::fs::read(path).unwrap();
            let begin = at.segment_offset(SEGMENT) as usize;
            let end = (begin as u64 + to.distance_from(at).unwrap()).min(SEGMENT.bytes()) as usize;
            bytes.extend_from_slice(&file[begin..end]);
            at = at.checked_add((end - begin) as u64).unwrap();
        }
        bytes
    }
}

/// Receives up to `to`.
fn receive(stream: &mut ReplicationStream, to: Lsn) -> Vec<u8> {
    let mut received = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while stream.position() < to {
        assert!(Instant::now() < deadline, "only up to {}, not {to}", stream.position());
        if let Some(ReplicationMessage::XLogData { start, end, bytes, .. }) =
            stream.next(TICK).unwrap()
        {
            assert_eq!(start.checked_add(bytes.len() as u64), Some(stream.position()));
            assert!(end >= stream.position());
            received.extend_from_slice(&bytes);
            // What came along with it.
            while let Some(message) = stream.next_buffered().unwrap() {
                if let ReplicationMessage::XLogData { bytes, .. } = message {
                    received.extend_from_slice(&bytes);
                }
            }
        }
    }
    received
}

/// The error that ends the stream.
fn until_error(stream: &mut ReplicationStream) -> ReplicationError {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match stream.next(TICK) {
            Ok(_) => assert!(Instant::now() < deadline, "the stream does not end"),
            Err(error) => return error,
        }
    }
}

#[test]
fn wal_arrives_as_it_is_on_the_servers_disk() {
    let source = Source::start("");
    let mut client = source.client();
    let system = client.identify_system().unwrap();
    let from_control: String = source.value("select system_identifier from pg_control_system()");
    assert_eq!(system.system_id.to_string(), from_control);
    assert_eq!(system.tli, 1);
    assert_eq!(client.wal_segment_size().unwrap(), SEGMENT);
    assert!(client.parameter("server_version").unwrap().starts_with("15"));
    assert!(client.show("no_such_setting").is_err());

    assert_eq!(client.read_slot("zenith").unwrap(), None);
    assert!(client.create_physical_slot("zenith", true, true).unwrap());
    assert!(!client.create_physical_slot("zenith", true, true).unwrap());
    assert!(client.create_physical_slot("zenith", true, false).is_err());
    assert!(client.create_physical_slot("Bad Name", false, true).is_err());
    let Some(SlotState { restart_lsn: Some(reserved), restart_tli: Some(1) }) =
        client.read_slot("zenith").unwrap()
    else {
        panic!("the slot reserves WAL")
    };

    // Start in the middle of a segment, of a page and of a record, and cross into another segment.
    source.value("create table t as select n, repeat('x', 500) x from generate_series(1, 1000) n");
    let start = source.flushed().checked_add(13).unwrap();
    assert_ne!(start.segment_offset(SEGMENT), 0);
    source.value("insert into t select n, repeat('y', 500) from generate_series(1, 40000) n");
    let end = source.flushed();
    assert_ne!(start.segment(SEGMENT), end.segment(SEGMENT));
    let mut stream = client.start_physical(Some("zenith"), start, 1).unwrap();
    assert_eq!(stream.position(), start);
    let received = receive(&mut stream, end);
    let reached = stream.position();
    assert!(received == source.wal(start, reached), "the WAL differs");

    // A second receiver on the same slot is told so.
    let error = source.client().start_physical(Some("zenith"), start, 1).unwrap_err();
    assert!(matches!(error, ReplicationError::SlotInUse { .. }), "{error}");
    assert!(error.is_transient());

    // What we report moves the slot and shows in the view.
    stream.send_status(reached, reached, Lsn::INVALID, false).unwrap();
    let slot = "select restart_lsn from pg_replication_slots where slot_name = 'zenith'";
    source.await_value(slot, &reached.to_string());
    assert!(reached > reserved);
    let view = "select write_lsn || ' ' || flush_lsn || ' ' || state \
                from pg_stat_replication where application_name = 'zenith_test'";
    source.await_value(view, &format!("{reached} {reached} streaming"));

    // Ended by agreement, the connection takes commands again; and the stream goes on where it was.
    let ended = stream.finish().unwrap();
    assert_eq!(ended.next_timeline, None);
    let mut client = ended.client.unwrap();
    assert_eq!(client.identify_system().unwrap().system_id, system.system_id);
    source.value("insert into t values (0, 'after')");
    let end = source.flushed();
    let mut stream = client.start_physical(Some("zenith"), reached, 1).unwrap();
    let received = receive(&mut stream, end);
    assert!(received == source.wal(reached, stream.position()));
    drop(stream);
    source.client().drop_slot("zenith", true).unwrap();
    let error = source.client().drop_slot("zenith", false).unwrap_err();
    assert!(matches!(error, ReplicationError::NoSlot { .. }), "{error}");
}

#[test]
fn what_cannot_be_streamed_is_told_apart() {
    let source = Source::start("wal_keep_size = 0");
    let position = source.flushed();
    let error = source.client().start_physical(Some("none"), position, 1).unwrap_err();
    assert!(matches!(error, ReplicationError::NoSlot { .. }), "{error}");
    let error = source.client().start_physical(None, position, 7).unwrap_err();
    assert!(matches!(error, ReplicationError::Client(_)), "{error}");
    assert!(!error.is_transient());
    let far = position.checked_add(1 << 40).unwrap();
    let error = until_error(&mut source.client().start_physical(None, far, 1).unwrap());
    assert!(error.to_string().contains("ahead of the WAL flush position"), "{error}");

    // WAL from before the last checkpoints is gone; the server says so once it streams.
    let old = Lsn::new(SEGMENT.bytes() + 40);
    for _ in 0..3 {
        source.value("select pg_switch_wal()");
        source.value("checkpoint");
    }
    let error = match source.client().start_physical(None, old, 1) {
        Ok(mut stream) => until_error(&mut stream),
        Err(error) => error,
    };
    assert!(matches!(error, ReplicationError::WalGone { start, .. } if start == old), "{error}");
    assert!(!error.is_transient());
}

#[test]
fn keepalives_are_answered_and_synchronous_commits_wait_for_us() {
    // The server gives up on a client that does not answer for a second.
    let source =
        Source::start("wal_sender_timeout = '1s'\nsynchronous_standby_names = 'zenith_test'");
    let start = {
        // Nothing can be committed yet.
        source.value("set synchronous_commit = local; select pg_current_wal_flush_lsn()")
    };
    let start: Lsn = start.parse().unwrap();
    let mut stream = source.client().start_physical(None, start, 1).unwrap();
    stream.send_status(start, start, start, false).unwrap();
    let mut asked = 0;
    let began = Instant::now();
    // We say nothing by ourselves; the answers are given for us.
    while asked < 5 {
        if let Some(ReplicationMessage::KeepAlive { reply_requested: true, end, .. }) =
            stream.next(TICK).unwrap()
        {
            assert!(end >= start);
            asked += 1;
        }
        assert!(began.elapsed() < PATIENCE);
    }
    assert!(began.elapsed() > Duration::from_secs(1));

    std::thread::scope(|scope| {
        let commit = scope.spawn(|| source.value("create table waits(); select 'done'"));
        let mut last = start;
        while !commit.is_finished() {
            assert!(began.elapsed() < 2 * PATIENCE);
            if let Some(ReplicationMessage::XLogData { .. }) = stream.next(TICK).unwrap() {
                last = stream.position();
                stream.send_status(last, last, last, false).unwrap();
            }
        }
        assert_eq!(commit.join().unwrap(), "done");
        assert!(last > start);
    });
}

#[test]
fn a_server_that_stops_or_dies_is_noticed() {
    let mut source = Source::start("");
    let start = source.flushed();
    let mut stream = source.client().start_physical(None, start, 1).unwrap();
    // A WAL sender that has not begun yet is ended like any other backend.
    source.await_value("select state from pg_stat_replication", "streaming");
    let shutdown = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| source.cluster.stop());
        // An orderly stop waits until we have all of the WAL, the shutdown checkpoint included.
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            assert!(Instant::now() < deadline);
            match stream.next(TICK) {
                Ok(_) => {
                    let all = stream.position();
                    stream.send_status(all, all, all, false).unwrap();
                }
                Err(error) => break error,
            }
        };
        stopping.join().unwrap();
        error
    });
    // Whatever of ours was still on its way to it.
    assert!(matches!(shutdown, ReplicationError::ServerStopping), "{shutdown:?}");
    assert!(shutdown.is_transient());
    assert!(stream.position() > start);
    let error = ReplicationClient::connect(&source.params(), timeouts(), None).unwrap_err();
    assert!(error.is_transient(), "{error}");

    source.cluster.start();
    let mut stream = source.client().start_physical(None, stream.position(), 1).unwrap();
    stream.next(TICK).unwrap();
    source.cluster.signal(Signal::SIGQUIT);
    let error = until_error(&mut stream);
    assert!(matches!(error, ReplicationError::Client(_)), "{error}");
    assert!(error.is_transient() && !error.is_stopped(), "{error}");
}

#[test]
fn our_own_stop_ends_the_wait_at_once() {
    let source = Source::start("");
    let stop = StopSignal::new().unwrap();
    let client = ReplicationClient::connect(&source.params(), timeouts(), Some(&stop)).unwrap();
    let mut stream = client.start_physical(None, source.flushed(), 1).unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            loop {
                if let Err(error) = stream.next(Duration::from_secs(600)) {
                    return error;
                }
            }
        });
        stop.fire();
        assert!(waiting.join().unwrap().is_stopped());
    });
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn the_end_of_a_timeline_tells_the_next() {
    let source = Source::start("wal_keep_size = '64MB'");
    // A copy of the server that is promoted has a second timeline, and streams the end of the first.
    let folder = postgres_testing::scratch_dir("zenith-promoted-");
    let data = folder.path().join("data");
    let (data, from) = (postgres_testing::text(&data), source.cluster.dir());
    let from = postgres_testing::text(from);
    source.cluster.run(
        "pg_basebackup",
        &["-D", data, "-h", from, "-U", "postgres", "-R", "-X", "stream", "-c", "fast"],
    );
    let config = std::path::Path::new(data).join("postgresql.auto.conf");
    let old = std::fs::read_to_string(&config).unwrap();
    let socket = format!("unix_socket_directories = '{}'", folder.path().display());
    std::fs::write(&config, format!("{old}\n{socket}\n")).unwrap();
    let log = folder.path().join("log");
    source.cluster.run("pg_ctl", &["-w", "-s", "-D", data, "-l", log.to_str().unwrap(), "start"]);
    source.cluster.run("pg_ctl", &["-w", "-s", "-D", data, "promote"]);

    let params: ConnectParams =
        format!("host={} user=postgres", folder.path().display()).parse().unwrap();
    let mut client = ReplicationClient::connect(&params, timeouts(), None).unwrap();
    assert_eq!(client.identify_system().unwrap().tli, 2);
    // From the segment in which the copy began to the end of the first timeline, and from that end.
    let start = Lsn::new(2 * SEGMENT.bytes());
    let mut stream = client.start_physical(None, start, 1).unwrap();
    let error = until_error(&mut stream);
    assert!(matches!(error, ReplicationError::TimelineEnded { next: None }), "{error:?}");
    let position = stream.position();
    let ended = stream.finish().unwrap();
    let again = ended.client.unwrap().start_physical(None, position, 1).unwrap_err();
    let ReplicationError::TimelineEnded { next: Some(next) } = again else { panic!("{again:?}") };
    assert_eq!(Some(next), ended.next_timeline);
    let stopped = source.cluster.try_run("pg_ctl", &["-s", "-m", "immediate", "-D", data, "stop"]);
    assert!(stopped.status.success());
    let (tli, begins) = ended.next_timeline.unwrap();
    assert_eq!(tli, 2);
    assert_eq!(position, begins);
}
