//! A timeline that is fed with a stock server's WAL, in this process.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use pageserver::layer::freezer::LayerOptions;
use pageserver::page_maker::PageMaker;
use pageserver::repository::Repository;
use pageserver::timeline::Timeline;
use postgres_formats::Lsn;
use postgres_testing::{Cluster, account, bin_dir, redo_module};
use rand::Rng;
use rand::seq::IndexedRandom;
use walredo_pool::{Account, WalRedoConfig};

/// How long anything may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of WAL in a layer.
const STRETCH_BYTES: u64 = 300_000;

fn logger() -> slog::Logger {
    use slog::Drain;
    let decorator = slog_term::PlainSyncDecorator::new(slog_term::TestStdoutWriter);
    slog::Logger::root(slog_term::FullFormat::new(decorator).build().fuse(), slog::o!())
}

/// A repository, opened.
pub struct Opened {
    pub repository: Arc<Repository>,
    pub maker: Arc<PageMaker>,
    pub dir: tempfile::TempDir,
}

/// Opens the repository in `dir`, with a cache of so many bytes.
pub fn open(dir: tempfile::TempDir, cache_bytes: u64) -> Opened {
    let work_dir = dir.path().join("walredo");
    fs::create_dir_all(&work_dir).unwrap();
    postgres_testing::give_to_account(&work_dir);
    let config = WalRedoConfig {
        postgres_bin_dir: bin_dir(),
        module_path: redo_module(dir.path()),
        libraries: Vec::new(),
        work_dir,
        control_file: Vec::new(),
        processes: 2,
        processes_min: 1,
        idle_after: Duration::MAX,
        account: account().map(|(uid, gid)| Account { uid, gid }),
        request_timeout: TIMEOUT,
    };
    let maker = PageMaker::new(cache_bytes, config, logger());
    let image_piece_bytes = 1 << rand::random_range(18..25);
    let chain_max = 1 << rand::random_range(0..7);
    println!("images in pieces of {image_piece_bytes} bytes, chains of {chain_max} records");
    // Short ones, so that histories of tests get into layers, too.
    let layers = LayerOptions {
        stretch_bytes: STRETCH_BYTES,
        cache_bytes: cache_bytes / 2,
        image_percent: 5,
        image_piece_bytes,
        chain_max,
        // Whatever still needs WAL that is in layers does not find it.
        keep_wal_bytes: Some(0),
        memory_bytes: 1 << 20,
        ..LayerOptions::default()
    };
    let repository =
        Repository::open(dir.path(), "main", maker.clone(), layers, &logger()).unwrap();
    Opened { repository, maker, dir }
}

/// Gives a timeline the server's WAL up to `end`, in pieces of random size.
pub fn receive(timeline: &Arc<Timeline>, cluster: &Cluster, end: Lsn, rng: &mut impl Rng) {
    let size = timeline.cluster().segment_size;
    let mut lsn = timeline.restart_receiving().unwrap();
    while lsn < end {
        let segment = lsn.segment(size);
        let name = segment.file_name(1, size);
        let bytes = fs::read(cluster.data_dir().join("pg_wal").join(name)).unwrap();
        let from = lsn.segment_offset(size) as usize;
        let left = end.distance_from(lsn).unwrap() as usize;
        let mut rest = &bytes[from..bytes.len().min(from + left)];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rng.random_range(1..=100_000).min(rest.len()));
            timeline.receive_wal(lsn, piece).unwrap();
            lsn = lsn.checked_add(piece.len() as u64).unwrap();
            rest = more;
        }
    }
    assert_eq!(timeline.sync_wal().unwrap(), end);
    // All of it in layers, or the last part still in memory.
    if rng.random() {
        println!("all of it in layers");
        timeline.freeze().unwrap();
    }
    if rng.random() {
        make_images(timeline, 1, rng);
    }
    if rng.random() {
        merge_deltas(timeline, rng);
    }
    if rng.random_ratio(1, 4) {
        println!("compacted: {:?}", timeline.compact().unwrap());
    }
}

/// Merges delta layers, in two pieces that are chosen at random.
pub fn merge_deltas(timeline: &Arc<Timeline>, rng: &mut impl Rng) {
    let layers = timeline.layer_files();
    let before = layers.len();
    let Some(middle) = layers.choose(rng).map(|layer| layer.end) else { return };
    let mut pieces = vec![Lsn::INVALID, middle];
    pieces.extend(layers.iter().filter(|layer| layer.is_image).map(|layer| layer.end));
    pieces.push(Lsn::MAX);
    pieces.sort();
    for piece in pieces.windows(2) {
        timeline.merge_deltas(piece[0]..piece[1]).unwrap();
    }
    println!("{before} layers merged to {:?}", timeline.layer_files());
}

/// Makes images where so many of the delta layers end, chosen at random. Gives where.
pub fn make_images(timeline: &Arc<Timeline>, count: usize, rng: &mut impl Rng) -> Vec<Lsn> {
    let deltas = timeline.layer_files().into_iter().filter(|layer| !layer.is_image);
    let ends: Vec<Lsn> = deltas.map(|layer| layer.end).collect();
    let mut made: Vec<Lsn> = ends.choose_multiple(rng, count).copied().collect();
    made.retain(|lsn| timeline.make_image(*lsn).unwrap());
    println!("images at {made:?} of {ends:?}");
    made
}
