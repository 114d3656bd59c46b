//! The WAL of a lineage as ordinary segment files, up to the last record that ends at an LSN.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use postgres_formats::lsn::{SegmentNumber, XLOG_BLCKSZ};
use postgres_formats::wal::{DecodedRecord, WalOrigin, WalStreamDecoder, rmgr, synth};
use postgres_formats::{Lsn, ServerParameters};

use super::begin::Begin;
use super::lineage::Lineage;
use super::source::Source;
use super::{MaterializeError, Materialized, io_error, tablespaces};
use crate::cluster::Cluster;

/// Writes the segments from the one on in which recovery begins into the folder `into`.
pub(super) fn write(
    lineage: &Lineage,
    begin: Begin,
    lsn: Lsn,
    into: &Path,
) -> Result<Materialized, MaterializeError> {
    let cluster = &lineage.cluster;
    let size = cluster.segment_size;
    let (first, whole_from, mut parameters) = match begin {
        Begin::Checkpoint(at) => {
            (at, at.segment(size).start(size), Some(cluster.control_file.parameters))
        }
        Begin::Record(at) => (at, at, None),
    };
    let source = Source::open(lineage, whole_from, lsn);
    let mut decoder = WalStreamDecoder::new(first, size, Some(cluster.system_id));
    let mut replaced = Vec::new();
    let last = Lsn::new(lsn.as_u64().saturating_sub(1)).max(first).segment(size);
    for number in (first.segment(size).0..=last.0).map(SegmentNumber) {
        let mut bytes = source.segment(number)?;
        if whole_from == first && number == first.segment(size) {
            put_lead_in(&mut bytes, cluster, first);
        }
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
                let decoded = ServerParameters::decode_record(&decoded.main_data)
                    .map_err(|source| MaterializeError::Parameters { start, source })?;
                parameters = Some(decoded);
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
        last_record: decoder.last_record_start().unwrap_or(first),
        tracks_commit_timestamps: parameters.map(|parameters| parameters.track_commit_timestamp),
        begins: match begin {
            Begin::Checkpoint(_) => None,
            Begin::Record(at) => Some(at),
        },
    })
}

/// PostgreSQL looks at the header of the page that it begins on, and at that of its segment
/// (`XLogReaderValidatePageHeader`, `access/transam/xlogreader.c`).
fn put_lead_in(bytes: &mut [u8], cluster: &Cluster, first: Lsn) {
    let Cluster { system_id, tli, segment_size: seg_size, .. } = *cluster;
    for (page, header) in synth::lead_in(WalOrigin { system_id, tli, seg_size }, first) {
        let at = page.segment_offset(seg_size) as usize;
        if let Some(slot) = bytes.get_mut(at..at + header.len()) {
            slot.copy_from_slice(&header);
        }
    }
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
