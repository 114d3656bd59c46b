//! Taking in WAL over broken connections and restarts: what was made durable is there afterwards,
//! and is asked for nowhere else.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pageserver::layer::freezer::LayerOptions;
use pageserver::layer::import::DataDirectory;
use pageserver::page_maker::PageMaker;
use pageserver::repository::{Repository, UnloadOptions};
use pageserver::timeline::Timeline;
use postgres_formats::wal::{RecordHeader, WalOrigin, WalWriter};
use postgres_formats::{Lsn, TimelineId};
use postgres_testing::{Cluster, bin_dir, scratch_dir, text};
use walredo_pool::WalRedoConfig;

/// A repository made from a server's files, and the server's WAL from then on.
struct Source {
    cluster: Cluster,
    repository: tempfile::TempDir,
    timeline: TimelineId,
    base: Lsn,
    /// Behind the record with which the server switched to another segment.
    behind_switch: Lsn,
    end: Lsn,
}

impl Source {
    /// The server switches to a new segment, so that most of the one before holds nothing.
    fn new() -> Source {
        let mut cluster = Cluster::init("wal_keep_size = '1GB'\nautovacuum = off");
        let repository = scratch_dir("zenith-receiving-");
        let main = "main".parse().unwrap();
        let base = DataDirectory::open(&cluster.data_dir()).unwrap().end;
        let timeline =
            Repository::init_from_pgdata(repository.path(), &cluster.data_dir(), &main).unwrap();
        cluster.start();
        cluster.sql("create table t as select generate_series(1, 1000) n");
        let behind_switch = cluster.sql("select pg_switch_wal()").parse().unwrap();
        cluster.sql("insert into t select generate_series(1, 20000)");
        cluster.stop();
        let end = DataDirectory::open(&cluster.data_dir()).unwrap().end;
        Source { cluster, repository, timeline, base, behind_switch, end }
    }

    fn open(&self) -> Arc<Timeline> {
        self.open_repository().timeline(self.timeline).unwrap()
    }

    fn open_repository(&self) -> Arc<Repository> {
        let dir = self.repository.path();
        let log = slog::Logger::root(slog::Discard, slog::o!());
        // No page is made here.
        let redo = WalRedoConfig {
            postgres_bin_dir: bin_dir(),
            module_path: "/none".into(),
            libraries: Vec::new(),
            work_dir: dir.join("walredo"),
            control_file: Vec::new(),
            processes: 1,
            processes_min: 1,
            idle_after: Duration::MAX,
            account: None,
            request_timeout: Duration::from_secs(1),
        };
        let maker = PageMaker::new(1 << 20, redo, log.clone());
        Repository::open(dir, "main", maker, LayerOptions::default(), &log).unwrap()
    }

    /// Gives the timeline the server's WAL from `from` up to `to`.
    fn give(&self, timeline: &Timeline, mut from: Lsn, to: Lsn) {
        let size = timeline.cluster().segment_size;
        while from < to {
            let path = self.segment(&self.cluster.data_dir().join("pg_wal"), timeline, from);
            let offset = from.segment_offset(size) as usize;
            let bytes = fs::read(path).unwrap();
            let left = to.distance_from(from).unwrap() as usize;
            let piece = &bytes[offset..bytes.len().min(offset + left)];
            timeline.receive_wal(from, piece).unwrap();
            from = from.checked_add(piece.len() as u64).unwrap();
        }
    }

    fn segment(&self, dir: &Path, timeline: &Timeline, lsn: Lsn) -> std::path::PathBuf {
        let size = timeline.cluster().segment_size;
        dir.join(lsn.segment(size).file_name(1, size))
    }
}

#[test]
fn a_segment_that_was_left_early_hides_nothing_behind_it() {
    let source = Source::new();
    let timeline = source.open();
    source.give(&timeline, timeline.restart_receiving().unwrap(), source.behind_switch);
    // The rest of the segment never came.
    let next = timeline.restart_receiving().unwrap();
    assert_eq!(next.segment_offset(timeline.cluster().segment_size), 0);
    source.give(&timeline, next, source.end);
    assert_eq!(timeline.sync_wal().unwrap(), source.end);
    let state = timeline.state_at(source.end).unwrap();
    drop(timeline);

    let again = source.open();
    assert_eq!(again.last_record_lsn(), source.end);
    assert_eq!(again.state_at(source.end).unwrap().state, state.state);
    // Stock tools find their way, too.
    let path = source.segment(again.wal_dir(), &again, source.base);
    let last = source.segment(again.wal_dir(), &again, source.end);
    let (start, end) = (source.base.to_string(), source.end.to_string());
    source.cluster.run("pg_waldump", &["-q", "-s", &start, "-e", &end, text(&path), text(&last)]);
}

#[test]
fn what_is_received_again_is_durable_only_when_synced_again() {
    let source = Source::new();
    let timeline = source.open();
    let from = timeline.restart_receiving().unwrap();
    // In the middle of a record that goes on for long.
    let mut cut = from;
    while timeline.last_record_lsn() >= cut {
        let next = cut.checked_add(1003).unwrap();
        source.give(&timeline, cut, next);
        cut = next;
    }
    assert_eq!(timeline.sync_wal().unwrap(), cut);
    let again = timeline.restart_receiving().unwrap();
    assert!(again < cut);
    assert!(timeline.flushed_lsn() <= again);
    source.give(&timeline, again, cut);
    assert!(timeline.flushed_lsn() <= again);
    assert_eq!(timeline.sync_wal().unwrap(), cut);
}

/// Someone else's hand in the last segment file.
fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn durable_wal_that_is_damaged_is_not_taken_to_end_there() {
    let source = Source::new();
    let timeline = source.open();
    source.give(&timeline, timeline.restart_receiving().unwrap(), source.end);
    assert_eq!(timeline.sync_wal().unwrap(), source.end);
    let path = source.segment(timeline.wal_dir(), &timeline, source.end);
    drop(timeline);
    let good = fs::read(&path).unwrap();

    let stopped = |at: &str, cause: &str| {
        let stop = source.open().stop().expect("a stop").to_string();
        assert!(stop.contains(&format!("stopped at {at}")) && stop.contains(cause), "{stop}");
    };
    change_file(&path, |bytes| bytes[100_000] ^= 1);
    stopped("0/2018", "checksum");
    change_file(&path, |bytes| bytes.truncate(100_000));
    stopped("0/2018", "missing from 0/20186A0");
    fs::remove_file(&path).unwrap();
    stopped("0/20000", "missing from 0/2000000");

    // What a crash may leave behind the mark is no damage.
    fs::write(&path, &good).unwrap();
    change_file(&path, |bytes| bytes.extend([0; 9000]));
    assert_eq!(source.open().last_record_lsn(), source.end);
    change_file(&path, |bytes| bytes[good.len()..].fill(0xEE));
    let again = source.open();
    assert_eq!(again.last_record_lsn(), source.end);
    assert_eq!(again.restart_receiving().unwrap(), source.end);
    assert_eq!(fs::read(&path).unwrap().len(), good.len());
}

#[test]
fn a_record_of_an_unknown_resource_manager_stops_ingest_there() {
    let source = Source::new();
    let timeline = source.open();
    source.give(&timeline, timeline.restart_receiving().unwrap(), source.end);
    let before = timeline.state_at(source.end).unwrap().state;
    let rels = timeline.list_rels(source.end).unwrap();
    let cluster = timeline.cluster();
    let origin = WalOrigin {
        system_id: cluster.system_id,
        tli: cluster.tli,
        seg_size: cluster.segment_size,
    };
    let mut writer = WalWriter::new(source.end, before.prev_record, origin);
    let header =
        RecordHeader { tot_len: 0, xid: 0, prev: Lsn::INVALID, info: 0x30, rmid: 200, crc: 0 };
    writer.append(header, &[255, 2, 7, 7]);

    let error = timeline.receive_wal(source.end, writer.bytes()).unwrap_err();
    let stop = timeline.stop().unwrap().to_string();
    let named = format!("resource manager 200 record 0x30 at {}", source.end);
    assert!(stop.starts_with(&format!("stopped at {}: ", source.end)), "{stop}");
    assert!(stop.contains(&named), "{stop}, {error}");
    // All before it is there and readable, and nothing of it is acknowledged or on disk.
    assert_eq!(timeline.list_rels(source.end).unwrap(), rels);
    assert_eq!(timeline.sync_wal().unwrap(), source.end);
    drop(timeline);
    let again = source.open();
    assert_eq!((again.stop(), again.last_record_lsn()), (None, source.end));
    // It is asked for again, and stops ingest as often as it comes.
    assert_eq!(again.restart_receiving().unwrap(), source.end);
    assert!(again.receive_wal(source.end, writer.bytes()).is_err());
    assert_eq!(again.last_record_lsn(), source.end);
    assert_eq!(again.state_at(source.end).unwrap().state, before);
}

#[test]
fn a_timeline_that_has_left_memory_goes_on_where_it_was() {
    const ALL: UnloadOptions = UnloadOptions { idle: Duration::ZERO, loaded_max: 0 };
    let source = Source::new();
    let repository = source.open_repository();
    let mut rounds = 0;
    loop {
        let timeline = repository.timeline(source.timeline).unwrap();
        let from = timeline.restart_receiving().unwrap();
        if from >= source.end {
            break;
        }
        let to = from.checked_add(rand::random_range(100_000..400_000)).unwrap().min(source.end);
        source.give(&timeline, from, to);
        let synced = match rand::random() {
            true => timeline.sync_wal().unwrap(),
            false => timeline.flushed_lsn(),
        };
        let before = (timeline.last_record_lsn(), timeline.version_count());
        // Not as long as somebody has it.
        assert_eq!(repository.unload_unused(ALL, Instant::now()), 0);
        drop(timeline);
        // The threads that see to layers have it for a moment now and then.
        while repository.loaded_count() > 0 {
            repository.unload_unused(ALL, Instant::now());
        }
        let again = repository.timeline(source.timeline).unwrap();
        assert_eq!((again.last_record_lsn(), again.version_count()), before);
        // What was acknowledged of a record that is not complete is asked for again by its sender.
        assert!(again.flushed_lsn() >= synced.min(before.0));
        assert_eq!(again.stop(), None);
        rounds += 1;
    }
    assert!(rounds > 3);
}
