//! The compute's WAL: as far as it still has it, byte for byte what the page server received.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use postgres_formats::Lsn;
use postgres_formats::lsn::{SegmentNumber, WalSegmentSize};

use super::wal_differs;
use crate::compute::Compute;
use crate::error::{IoContext, Result};
use crate::verify::records::stream::RecordStream;
use crate::verify::report::Verification;
use crate::verify::{VerifyStep, Watcher};

/// `checkpoint`: start of the shutdown checkpoint, which must be the last record up to `lsn`.
pub(super) fn compare(
    compute: &Compute,
    checkpoint: Lsn,
    lsn: Lsn,
    watcher: &mut Watcher<'_>,
    report: &mut Verification,
) -> Result<()> {
    let repository = compute.repository();
    let base = compute.made_at();
    let mut stream = RecordStream::open(repository, compute.timeline(), Some(base), lsn)?;
    let size = stream.segment_size();
    let segments = segments(compute, size, lsn)?;
    // What is older than the oldest segment was removed or never there.
    let oldest = segments.keys().next().map_or(lsn, |first| first.start(size).max(base));
    let total = lsn.distance_from(oldest).unwrap_or(0);
    report.files.compared += segments.len() as u64;
    let (mut compared, mut different) = (0, None);
    let mut look = |(at, bytes): (Lsn, bytes::Bytes)| -> Result<()> {
        let (mut at, mut bytes) = (at, &bytes[..]);
        while !bytes.is_empty() && different.is_none() {
            let left = size.bytes() - at.segment_offset(size);
            let (piece, rest) = bytes.split_at(bytes.len().min(left as usize));
            let skipped = oldest.distance_from(at).unwrap_or(0).min(piece.len() as u64);
            let ours = piece.get(skipped as usize..).unwrap_or_default();
            let from = at.saturating_add(skipped);
            if !ours.is_empty() {
                different = first_difference(&segments, size, from, ours)?;
                compared += ours.len() as u64;
            }
            at = at.saturating_add(piece.len() as u64);
            bytes = rest;
        }
        watcher.tell(VerifyStep::Records { done: compared, total })
    };
    while stream.next_with(&mut look)?.is_some() {}
    report.wal_bytes = compared;
    if let Some(what) = different {
        wal_differs(report, what);
    }
    let (last, end) = stream.end();
    if last != Some(checkpoint) || end != lsn {
        let last = last.map_or("nowhere".to_owned(), |last| last.to_string());
        wal_differs(
            report,
            format!(
                "the page server's last record is at {last}, and the shutdown checkpoint at \
                 {checkpoint}"
            ),
        );
    }
    Ok(())
}

/// The segments in `pg_wal` up to `lsn`; those behind are empty ones for later.
fn segments(
    compute: &Compute,
    size: WalSegmentSize,
    lsn: Lsn,
) -> Result<BTreeMap<SegmentNumber, File>> {
    let _identity = compute.repository().account().enter();
    let dir = compute.pgdata().join("pg_wal");
    let last = Lsn::new(lsn.as_u64().saturating_sub(1)).segment(size);
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(&dir).io("list", &dir)? {
        let name = entry.io("list", &dir)?.file_name();
        let Some(number) = name.to_str().and_then(|name| number_of(name, size)) else { continue };
        if number <= last {
            let path = dir.join(&name);
            segments.insert(number, File::open(&path).io("open", &path)?);
        }
    }
    Ok(segments)
}

/// A segment's number, from the name of its file (`XLogFileName`, `access/xlog_internal.h`).
fn number_of(name: &str, size: WalSegmentSize) -> Option<SegmentNumber> {
    let part = |range| u64::from_str_radix(name.get(range)?, 16).ok();
    if name.len() != 24 {
        return None;
    }
    part(0..8)?;
    Some(SegmentNumber(part(8..16)? * ((1 << 32) / size.bytes()) + part(16..24)?))
}

/// Where `ours`, which stand at `at` and within one segment, differ from the compute's.
fn first_difference(
    segments: &BTreeMap<SegmentNumber, File>,
    size: WalSegmentSize,
    at: Lsn,
    ours: &[u8],
) -> Result<Option<String>> {
    let number = at.segment(size);
    let Some(file) = segments.get(&number) else {
        return Ok(Some(format!("the compute has no segment {}", number.file_name(1, size))));
    };
    let mut theirs = vec![0; ours.len()];
    file.read_exact_at(&mut theirs, at.segment_offset(size)).io("read", "pg_wal")?;
    let differing = ours.iter().zip(&theirs).position(|(our, their)| our != their);
    Ok(differing.map(|n| format!("bytes differ from {} on", at.saturating_add(n as u64))))
}
