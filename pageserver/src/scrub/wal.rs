//! Reading the WAL of one timeline, from the first record that is there.

use std::path::Path;

use postgres_formats::Lsn;
use postgres_formats::lsn::{SegmentNumber, WalSegmentSize};
use postgres_formats::wal::WalStreamDecoder;

use super::Scrubbed;
use crate::cluster::Cluster;
use crate::timeline::manifest::Manifest;
use crate::wal::first_record::first_record;
use crate::wal::loaded::loaded_checkpoint;
use crate::wal::store::WalStore;

const CHUNK: usize = 1 << 20;

/// Reads it up to its end, which must not be before `durable`. WAL may end in the middle of a record, or
/// as a crash has left it, but not before what is in layers.
pub(super) fn read(
    dir: &Path,
    manifest: &Manifest,
    cluster: &Cluster,
    durable: Option<Lsn>,
    found: &mut Scrubbed,
) {
    let size = cluster.segment_size;
    let store = WalStore::new(dir.to_owned(), size, cluster.tli);
    let segments = match store.segments() {
        Ok(segments) => segments,
        Err(error) => return found.problem(dir, error.to_string()),
    };
    for segment in &segments {
        let path = store.path_at(segment.start(size));
        found.file(&path, std::fs::metadata(&path));
    }
    let begin = begin(&store, manifest, cluster, segments.first().copied(), size);
    let begin = match begin {
        Ok(begin) => begin,
        Err((path, what)) => return found.problem(&path, what),
    };
    let (end, error) = decode(&store, begin, cluster);
    // What is in layers has been durable.
    let durable = durable.unwrap_or(Lsn::INVALID).max(manifest.layered.end.normalized(size));
    let more_follows = segments.last().is_some_and(|last| *last > error.0.segment(size));
    if end < durable || (more_follows && error.1.is_some()) {
        let (at, what) = error;
        let what = what.unwrap_or_else(|| "WAL is missing".to_owned());
        let place = at.segment_offset(size);
        let what =
            format!("at offset {place} ({at}): {what}, though it was durable up to {durable}");
        found.problem(&store.path_at(at), what);
    }
}

type Problem = (std::path::PathBuf, String);

/// Where the first record is that can be decoded.
fn begin(
    store: &WalStore,
    manifest: &Manifest,
    cluster: &Cluster,
    first: Option<SegmentNumber>,
    size: WalSegmentSize,
) -> Result<Lsn, Problem> {
    // The WAL of a root begins with the checkpoint with which the cluster was loaded, unless it was detached.
    let loaded = match manifest.origin.ancestor() {
        None => loaded_checkpoint(store, cluster, manifest.state.prev_record)
            .map_err(|error| (store.dir().to_owned(), error.to_string()))?,
        Some(_) => None,
    };
    let start = loaded.unwrap_or(manifest.start);
    match first {
        None => Ok(manifest.layered.end),
        // Before that there may be nothing.
        Some(first) if first <= start.segment(size) && loaded.is_none() => Ok(start),
        Some(first) => {
            // Where it begins later, what is before it is in layers, and was removed.
            let at = first.start(size);
            first_record(store, first, cluster)
                .map(|record| record.max(start))
                .map_err(|error| (store.path_at(at), error.to_string()))
        }
    }
}

/// Decodes all there is. Gives the end of the last good record, and where and why there are no more.
fn decode(store: &WalStore, begin: Lsn, cluster: &Cluster) -> (Lsn, (Lsn, Option<String>)) {
    let mut decoder = WalStreamDecoder::new(begin, cluster.segment_size, Some(cluster.system_id))
        .with_tli(cluster.tli);
    let mut chunk = vec![0; CHUNK];
    loop {
        let from = decoder.expected_lsn();
        let got = match store.read(from, &mut chunk) {
            Ok(got) => got,
            Err(error) => return (decoder.next_record_start(), (from, Some(error.to_string()))),
        };
        let Some(bytes) = chunk.get(..got).filter(|bytes| !bytes.is_empty()) else {
            return (decoder.next_record_start(), (from, None));
        };
        let mut decoded = decoder.feed(from, bytes).map(|()| None);
        loop {
            decoded = match decoded {
                Ok(_) => decoder.next_record(),
                Err(error) => {
                    let what = error.kind.to_string();
                    return (decoder.next_record_start(), (error.lsn, Some(what)));
                }
            };
            if matches!(decoded, Ok(None)) {
                break;
            }
        }
    }
}
