//! The WAL of a lineage as ordinary segment files, up to the last record that ends at an LSN.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use postgres_formats::lsn::{SegmentNumber, XLOG_BLCKSZ};
use postgres_formats::wal::{DecodedRecord, WalOrigin, WalStreamDecoder, rmgr};
use postgres_formats::{Lsn, ServerParameters, SystemId};

use super::lineage::{Lineage, Stretch};
use super::{MaterializeError, Materialized, io_error, tablespaces};
use crate::cluster::Cluster;
use crate::wal::store::WalStore;

/// Writes the segments from the one with the base image's checkpoint on into the folder `into`.
pub(super) fn write(
    lineage: &Lineage,
    lsn: Lsn,
    into: &Path,
) -> Result<Materialized, MaterializeError> {
    let cluster = &lineage.cluster;
    let size = cluster.segment_size;
    let checkpoint = cluster.control_file.check_point;
    let source = Source::open(lineage, checkpoint.segment(size).start(size), lsn);
    let oldest = source.oldest()?;
    if oldest > checkpoint && lsn > checkpoint {
        return Err(MaterializeError::WalRemoved { start: checkpoint, oldest });
    }
    let system_id: SystemId = cluster.system_id;
    let mut decoder = WalStreamDecoder::new(checkpoint, size, Some(system_id));
    let mut replaced = Vec::new();
    let mut parameters = cluster.control_file.parameters;
    let last = Lsn::new(lsn.as_u64().saturating_sub(1)).max(checkpoint).segment(size);
    for number in (checkpoint.segment(size).0..=last.0).map(SegmentNumber) {
        let bytes = source.segment(number)?;
        let path = segment_path(into, cluster, number);
        fs::write(&path, &bytes).map_err(io_error(&path))?;
        let start = number.start(size);
        let from = decoder.expected_lsn().max(start);
        let to = lsn.min(start.saturating_add(size.bytes()));
        let offset = |at: Lsn| at.distance_from(start).unwrap_or(0) as usize;
        decoder.feed(from, bytes.get(offset(from)..offset(to)).unwrap_or_default())?;
        while let Some(record) = decoder.next_record()? {
            if !may_concern(&record.bytes) {
                continue;
            }
            let start = record.start;
            let decoded = DecodedRecord::parse(&record.bytes)
                .map_err(|source| MaterializeError::Record { start, source })?;
            replaced.extend(tablespaces::kept_inside(&record, &decoded));
            if is_parameter_change(&decoded) {
                parameters = ServerParameters::decode_record(&decoded.main_data)
                    .map_err(|source| MaterializeError::Parameters { start, source })?;
            }
        }
    }
    for (start, bytes) in replaced {
        overwrite(into, cluster, start, &bytes)?;
    }
    let end = decoder.next_record_start();
    cut(into, cluster, end, last)?;
    Ok(Materialized {
        end,
        last_record: decoder.last_record_start().unwrap_or(checkpoint),
        tracks_commit_timestamps: parameters.track_commit_timestamp,
    })
}

/// Whether it is worth while to look closer at a record.
fn may_concern(record: &[u8]) -> bool {
    matches!(record.get(tablespaces::RMID_AT), Some(&(rmgr::TBLSPC | rmgr::XLOG)))
}

fn is_parameter_change(decoded: &DecodedRecord) -> bool {
    decoded.header.rmid == rmgr::XLOG && decoded.header.rmgr_info() == rmgr::xlog::PARAMETER_CHANGE
}

fn segment_path(into: &Path, cluster: &Cluster, number: SegmentNumber) -> PathBuf {
    into.join(number.file_name(cluster.tli, cluster.segment_size))
}

/// Makes zeros of everything from `end` on: PostgreSQL takes them for the end of the WAL.
fn cut(
    into: &Path,
    cluster: &Cluster,
    end: Lsn,
    last: SegmentNumber,
) -> Result<(), MaterializeError> {
    let size = cluster.segment_size;
    for number in (end.segment(size).0..=last.0).map(SegmentNumber) {
        let path = segment_path(into, cluster, number);
        let keep = end.distance_from(number.start(size)).unwrap_or(0);
        let file = File::options().write(true).open(&path).map_err(io_error(&path))?;
        file.set_len(keep).and_then(|()| file.set_len(size.bytes())).map_err(io_error(&path))?;
    }
    Ok(())
}

/// Puts the bytes of a record over those of the one at `start`, which is as long.
fn overwrite(
    into: &Path,
    cluster: &Cluster,
    start: Lsn,
    mut bytes: &[u8],
) -> Result<(), MaterializeError> {
    let size = cluster.segment_size;
    let mut at = start;
    while !bytes.is_empty() {
        at = at.normalized(size);
        let room = at.page_start().saturating_add(XLOG_BLCKSZ).distance_from(at).unwrap_or(0);
        let (piece, rest) = bytes.split_at(bytes.len().min(room as usize));
        let path = segment_path(into, cluster, at.segment(size));
        let file = File::options().write(true).open(&path).map_err(io_error(&path))?;
        file.write_all_at(piece, at.segment_offset(size)).map_err(io_error(&path))?;
        at = at.saturating_add(piece.len() as u64);
        bytes = rest;
    }
    Ok(())
}

/// The bytes of the lineage, in one row.
pub(super) struct Source<'l> {
    cluster: &'l Cluster,
    /// With where each begins and ends.
    pieces: Vec<(WalStore, Lsn, Lsn)>,
}

impl Source<'_> {
    /// Those from `start` to `end`.
    pub(super) fn open(lineage: &Lineage, start: Lsn, end: Lsn) -> Source<'_> {
        let cluster = &lineage.cluster;
        let mut from = start;
        let mut pieces = Vec::new();
        for Stretch { wal_dir, end: stretch_end } in &lineage.stretches {
            let store = WalStore::new(wal_dir.clone(), cluster.segment_size, cluster.tli);
            let to = stretch_end.map_or(end, |stretch_end| stretch_end.min(end));
            if from < to {
                pieces.push((store, from, to));
                from = to;
            }
        }
        Source { cluster, pieces }
    }

    /// The first position from which on all is there: WAL that is in layers may have been removed.
    pub(super) fn oldest(&self) -> Result<Lsn, MaterializeError> {
        let size = self.cluster.segment_size;
        let mut oldest = self.pieces.last().map_or(Lsn::INVALID, |(_, _, to)| *to);
        for (store, from, to) in self.pieces.iter().rev() {
            let segments = store.segments().map_err(io_error(store.dir()))?;
            let mut last = Lsn::new(to.as_u64().saturating_sub(1)).segment(size);
            let first = from.segment(size);
            if !segments.contains(&last) {
                // A timeline without WAL of its own, or one that ends where a segment does.
                oldest = oldest.min(*to);
                if last != first || to.page_start() > *from {
                    break;
                }
                oldest = *from;
                continue;
            }
            while last > first && segments.contains(&SegmentNumber(last.0 - 1)) {
                last = SegmentNumber(last.0 - 1);
            }
            oldest = last.start(size).max(*from);
            if last > first {
                break;
            }
        }
        Ok(oldest)
    }

    /// A whole segment, with zeros behind the end.
    pub(super) fn segment(&self, number: SegmentNumber) -> Result<Vec<u8>, MaterializeError> {
        let size = self.cluster.segment_size;
        let start = number.start(size);
        let end = start.saturating_add(size.bytes());
        let mut bytes = vec![0; size.bytes() as usize];
        for (store, from, to) in &self.pieces {
            let (first, last) = (start.max(*from), end.min(*to));
            if first >= last {
                continue;
            }
            let offset = |at: Lsn| at.distance_from(start).unwrap_or(0) as usize;
            let slot = bytes.get_mut(offset(first)..offset(last)).unwrap_or_default();
            let got = store.read(first, slot).map_err(io_error(store.dir()))?;
            let reached = first.saturating_add(got as u64);
            if reached < last {
                self.add_page_header(store, &mut bytes, number, reached, last)?;
            }
        }
        Ok(bytes)
    }

    /// A timeline that ends with a full page has no header of the next one, and what is forked from
    /// it begins behind that header.
    fn add_page_header(
        &self,
        store: &WalStore,
        bytes: &mut [u8],
        number: SegmentNumber,
        reached: Lsn,
        needed: Lsn,
    ) -> Result<(), MaterializeError> {
        let size = self.cluster.segment_size;
        let page = needed.page_start();
        if reached < page || needed.page_offset() > page.page_header_size(size) {
            let dir = store.dir().to_owned();
            return Err(MaterializeError::WalMissing { dir, end: reached, needed });
        }
        let Cluster { system_id, tli, .. } = *self.cluster;
        let header = WalOrigin { system_id, tli, seg_size: size }.page_header(page, 0).encode();
        let at = page.distance_from(number.start(size)).unwrap_or(0) as usize;
        if let Some(slot) = bytes.get_mut(at..at + header.len()) {
            slot.copy_from_slice(&header);
        }
        Ok(())
    }
}
